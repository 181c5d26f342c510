"""`user-sync serve`: health endpoints and metrics over HTTP, until Ctrl-C."""

from __future__ import annotations

import re

import click

from user_sync_pipeline.cli import options, output
from user_sync_pipeline.core.errors import UsageError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, metavar="H", help="The address to listen on.")
@click.option(
    "--port",
    type=options.WholeNumber(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    metavar="P",
    help="The port to listen on.",
)
@click.option("--root-path", default="", metavar="PATH", help="The prefix that a proxy in front takes away.")
def serve(host: str, port: int, root_path: str) -> None:
    """Answer /health, /metrics and two more about users and Dagster."""
    root_path = root_path.rstrip("/")
    if not _ROOT_PATH.fullmatch(root_path):
        raise UsageError(f"--root-path is {root_path!r}; give a path such as /user-sync.")

    from user_sync_pipeline.core import settings
    from user_sync_pipeline.health.answers import Surroundings, answers_from
    from user_sync_pipeline.health.app import build_app
    from user_sync_pipeline.health.server import listen
    from user_sync_pipeline.health.server import serve as serve_app

    token = settings.admin_token()
    surroundings = Surroundings(
        settings.database_url(), settings.SupabaseSettings.from_environment(), settings.dagster_url()
    )
    with answers_from(surroundings) as answers, listen(host, port, token=token) as listener:
        shown = f"[{host}]" if ":" in host else host
        serve_app(
            build_app(answers, token=token),
            listener,
            root_path=root_path,
            started=lambda: output.say(f"Serving http://{shown}:{port}{root_path}/health; Ctrl-C stops it."),
        )
