"""The UI as a person uses it who has typed `user-sync dev`: a real browser, from the graph to the plots.

What it sees on the way becomes the pictures of the README, when it is told where they lie:
`pytest user_sync_pipeline_tests/end_to_end/test_browser.py --pictures docs/pictures`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from user_sync_pipeline_tests.end_to_end.running_command import RunningCommand
from user_sync_pipeline_tests.orchestration.live_dagster import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
WIDTH, HEIGHT = 1600, 900
# For one step of the person: Dagster looks for backfills every 30 seconds, and a machine may have much else to do.
MILLISECONDS_TO_SHOW, MILLISECONDS_TO_RUN = 180_000, 600_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A window of the browser, at the UI of a `user-sync dev` that nobody has used yet."""
    from playwright.sync_api import sync_playwright

    port = free_port()
    with RunningCommand("dev", "--port", str(port), cwd=tmp_path) as dev, sync_playwright() as playwright:
        dev.read_until("Ctrl-C")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, base_url=f"http://127.0.0.1:{port}")
        page.set_default_timeout(MILLISECONDS_TO_SHOW)
        yield page
        browser.close()


def test_a_person_fills_the_tables_in_the_ui_and_looks_at_what_came_of_it(
    page: Page, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pictures = Path(request.config.getoption("--pictures") or tmp_path)
    page.goto("/asset-groups")
    for asset in ("salesforce_users_raw", "sf_users", "profile_reconciliation"):
        page.get_by_text(asset).first.wait_for()

    open_launch_dialog(page)
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_text(re.compile(r"^\d\d partitions$")).first.wait_for()
    launch_and_wait_for_green(page)

    today = datetime.now(UTC).date()
    open_launch_dialog(page)
    days = page.get_by_role("dialog").get_by_role("textbox").first
    days.fill(f"[{today - timedelta(days=2)}...{today}]")
    days.press("Enter")
    page.get_by_text("3 partitions", exact=True).wait_for()
    take(page, pictures / "launch.png")
    launch_and_wait_for_green(page)

    page.goto("/asset-groups")
    page.get_by_text("Hide navigation").click()
    page.get_by_text("100% filled").first.wait_for()
    for checks in ("5 / 5 Passed", "4 / 4 Passed"):
        page.get_by_text(checks).first.wait_for()
    take(page, pictures / "graph.png")

    page.goto("/assets/profile_reconciliation?view=checks")
    page.get_by_text("sync_percentage").first.click()
    page.get_by_text("Passed", exact=True).wait_for()
    page.get_by_role("cell", name="100", exact=True).wait_for()
    take(page, pictures / "checks.png")

    page.goto("/assets/profile_reconciliation")
    page.get_by_text("Plots", exact=True).click()
    page.get_by_text("sync_percentage", exact=True).last.scroll_into_view_if_needed()
    take(page, pictures / "plots.png")


def open_launch_dialog(page: Page) -> None:
    page.goto("/jobs")
    page.get_by_role("link", name="user_sync").first.click()
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("dialog").wait_for()


def launch_and_wait_for_green(page: Page) -> None:
    page.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("Created backfill").wait_for()
    page.get_by_text("View", exact=True).last.click()
    page.wait_for_url("**/runs/b/*")
    ended = re.compile(r"^(Succeeded|Failed|Canceled)$")
    status = page.get_by_text("Status", exact=True).locator("xpath=..").get_by_text(ended)
    status.wait_for(timeout=MILLISECONDS_TO_RUN)
    assert status.inner_text() == "Succeeded", page.inner_text("body")


def take(page: Page, picture: Path) -> None:
    """Take a picture once nothing moves any more."""
    page.wait_for_timeout(3_000)
    page.screenshot(path=picture)
    assert picture.stat().st_size > 20_000
