"""The results of a Bulk job that is complete: all its pages, at the same time where Salesforce lists them.

What belongs here: where pages begin, and that each holds as many records as Salesforce says.
What does not: the job itself (`bulk.py`), and CSV (`bulk_csv.py`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec
from requests import Response
from urllib3.exceptions import HTTPError

from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.salesforce.bulk_csv import BrokenCsvError, CsvDecoder, CsvPage
from user_sync_pipeline.core.salesforce.decisions import Decision
from user_sync_pipeline.core.salesforce.errors import RefusedError
from user_sync_pipeline.core.salesforce.parallel import in_parallel
from user_sync_pipeline.core.salesforce.records import UserPage
from user_sync_pipeline.core.salesforce.transport import CSV, SalesforceSession

# How many records a page is asked to hold where pages are read in turn; about what Salesforce takes by itself.
PAGE_RECORDS = 50_000
# So many addresses of pages come in one answer.
PAGES_IN_A_LIST = 5
# A page can be asked for again as long as its job exists.
PAGE_TRIES = 3
_LOCATOR = re.compile(r"[?&]locator=([^&]*)")


class Connect(Protocol):
    """What opens a session for Bulk."""

    def __call__(self, *, tries: int | None = None) -> SalesforceSession:
        """Return a session for one thread, to be closed, that sends a request so often (None: as often as usual)."""


class _PageLink(msgspec.Struct, rename="camel"):
    """Salesforce's documentation spells this name in two ways, and that of the next list too."""

    result_url: str = ""
    result_link: str = ""


class _PageList(msgspec.Struct, rename="camel"):
    result_pages: list[_PageLink]
    next_records_url: str | None = None
    next_record_url: str | None = None


class _Locators:
    """Where we are in a chain of answers of which each tells where the next one begins, "" at its beginning."""

    def __init__(self) -> None:
        self.present: str = ""
        self._seen = {"", "null"}

    def go_on(self, locator: str) -> bool:
        """Take the next place; False at the end. Raises `UnreachableError` when the chain leads back."""
        if locator in ("", "null"):
            return False
        if locator in self._seen:
            raise not_whole()
        self._seen.add(locator)
        self.present = locator
        return True


class JobResults:
    """The pages of the job at `job_url`, of `total` records, read by so many `workers`."""

    def __init__(self, connect: Connect, job_url: str, decoder: CsvDecoder, total: int, *, workers: int) -> None:
        self._connect = connect
        self._url = job_url
        self._decoder = decoder
        self._total = total
        self._workers = workers

    def pages(self) -> Generator[UserPage, None, None]:
        """Yield all users of the job; each worker holds one page of the results at a time.

        Raises `UnreachableError` when a page is not whole, also when it is asked for again, and `RefusedError`
        when Salesforce refuses it.
        """
        with closing(self._connect()) as session:
            begins = self._page_begins(session)
        if begins is None:
            yield from self._in_turn()
            return
        with closing(in_parallel([self._page(locator) for locator in begins], workers=self._workers)) as pages:
            for _, page in pages:
                if page is not None:
                    yield page

    def _page_begins(self, session: SalesforceSession) -> list[str] | None:
        """Return where each page begins; None when Salesforce does not tell, as before version 58.0."""
        begins: list[str] = []
        lists = _Locators()
        while True:
            parameters = {"locator": lists.present} if lists.present else {}
            try:
                answer = session.get(f"{self._url}/resultPages", params=parameters)
                pages = msgspec.json.decode(answer.content, type=_PageList)
            except RefusedError as refused:
                if refused.decision is Decision.STOP:
                    return None
                raise
            except ValueError:
                return None
            begins += [_locator(page.result_url or page.result_link) for page in pages.result_pages]
            if not lists.go_on(_locator(pages.next_records_url or pages.next_record_url or "")):
                return begins

    def _page(self, locator: str) -> Iterator[UserPage]:
        with closing(self._connect()) as session:
            page, _ = self._fetch(session, locator)
        yield from self._decoder.pages(page, self._total)

    def _in_turn(self) -> Iterator[UserPage]:
        places = _Locators()
        with closing(self._connect()) as session:
            while True:
                page, following = self._fetch(session, places.present, most_records=PAGE_RECORDS)
                yield from self._decoder.pages(page, self._total)
                if not places.go_on(following):
                    return

    def _fetch(
        self, session: SalesforceSession, locator: str, *, most_records: int | None = None
    ) -> tuple[CsvPage, str]:
        """Return a page that holds as many records as Salesforce says, and where the next one begins."""
        parameters: dict[str, str | int] = {"locator": locator} if locator else {}
        if most_records is not None:
            parameters["maxRecords"] = most_records
        for _ in range(PAGE_TRIES):
            answer = session.get(f"{self._url}/results", params=parameters, headers={"Accept": CSV}, stream=True)
            with suppress(BrokenCsvError):
                page = self._decoder.read(**_body(answer))
                if answer.headers.get("Sforce-NumberOfRecords") == str(page.rows):
                    return page, answer.headers.get("Sforce-Locator", "")
        raise not_whole()


def _body(answer: Response) -> dict[str, Any]:
    """Return the body as it was sent: a page is some ten times as large when it is unpacked."""
    is_gzip = answer.headers.get("Content-Encoding") == "gzip"
    try:
        return {"body": answer.raw.read(decode_content=not is_gzip), "is_gzip": is_gzip}
    except HTTPError:
        raise BrokenCsvError from None


def not_whole() -> UnreachableError:
    """Return the error for a job of which not every record arrived."""
    return UnreachableError(
        "Salesforce sent other records of a Bulk job than it counted, so they are not all here; run again, or set "
        "SALESFORCE_TRANSPORT=rest."
    )


def _locator(address: str) -> str:
    found = _LOCATOR.search(address)
    return unquote(found[1]) if found else ""
