"""From a `RestUserService`, nothing can be reached that sends more than what the list allows.

Followed is everything that the service holds, and everything that simple-salesforce offers on the client inside it.
What is not followed is the inside of the guard itself: the connections that it hands allowed requests to.
"""

from __future__ import annotations

import inspect
import io
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter

from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.read_only import ReadOnlyAdapter
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy, SalesforceSession
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.conftest import ORG_MADE_AT

USER = "0055g000001AbCdAAK"
FORBIDDEN = [
    ("PATCH", f"/services/data/v66.0/sobjects/User/{USER}"),
    ("DELETE", f"/services/data/v66.0/sobjects/User/{USER}"),
    ("POST", "/services/data/v66.0/sobjects/User"),
    ("POST", "/services/data/v66.0/jobs/query"),
    ("POST", "/services/oauth2/token"),
    ("GET", "/services/data/v66.0/query/?q=SELECT+Id+FROM+User+FOR+VIEW"),
]
_PLAIN = (str, bytes, int, float, type(None), type, types.ModuleType, types.BuiltinFunctionType)


@pytest.fixture
def rest(salesforce: SalesforceSimulator) -> Iterator[RestUserService]:
    """A service in the middle of its work: signed in, clients open, a page on its way."""
    settings = SalesforceSettings.from_environment(salesforce.environment() | {"SALESFORCE_PAGE_SIZE": "200"})
    with RestUserService(settings, retry=RetryPolicy(tries=1)) as service:
        service.count_users()
        pages = service.fetch_users(SyncWindow(None, ORG_MADE_AT))
        next(pages)
        yield service
        pages.close()


def reachable(start: Any) -> Iterator[Any]:
    """Yield what can be reached by attributes, items, bound methods, closures and frames that stand still."""
    seen: set[int] = set()
    pending = [start]
    while pending:
        thing = pending.pop()
        if isinstance(thing, _PLAIN) or id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, ReadOnlyAdapter):
            continue
        if isinstance(thing, dict):
            pending += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            pending += thing
        pending += [
            getattr(thing, "__self__", None),
            getattr(thing, "__dict__", None),
            getattr(thing, "gi_frame", None),
        ]
        pending += [
            cell.cell_contents for cell in getattr(thing, "__closure__", None) or () if cell != types.CellType()
        ]
        if isinstance(thing, types.FrameType):
            pending.append(thing.f_locals)
        for kind in type(thing).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            pending += [getattr(thing, name, None) for name in ([slots] if isinstance(slots, str) else slots)]


def test_every_session_within_reach_is_guarded(salesforce: SalesforceSimulator, rest: RestUserService) -> None:
    things = [*reachable(rest)]
    sessions = [thing for thing in things if isinstance(thing, requests.Session)]
    assert sessions
    for session in sessions:
        assert isinstance(session, SalesforceSession)
        assert session.adapters.keys() == {"https://"}
    adapters = [thing for thing in things if isinstance(thing, BaseAdapter)]
    assert adapters
    assert {type(adapter) for adapter in adapters} == {ReadOnlyAdapter}
    assert not [thing for thing in things if isinstance(thing, urllib3.PoolManager | urllib3.HTTPConnectionPool)]
    salesforce.journal.clear()
    for method, path in FORBIDDEN:
        sends: list[Callable[[requests.PreparedRequest], requests.Response]] = [
            *(session.send for session in sessions),
            *(adapter.send for adapter in adapters),
        ]
        for send in sends:
            request = requests.Request(method, salesforce.url + path).prepare()
            with pytest.raises(NotReadOnlyError):
                send(request)
    assert salesforce.journal.exchanges == []


ARGUMENTS: dict[str, Any] = {
    "query": "SELECT Id FROM User FOR VIEW",
    "search": "FIND {ann}",
    "record_id": USER,
    "user": USER,
    "data": {"Title": "x"},
    "records": [{"Id": USER, "Title": "x"}],
    "params": {},
    "method": "PATCH",
    "zipfile": io.BytesIO(b"PK"),
    "sandbox": False,
}


def attempts(thing: Any) -> Iterator[Callable[[], Any]]:
    """Yield a call of every method that `thing` has, its private ones too, with arguments that would change data."""
    for name in dir(type(thing)):
        if name.startswith("__") or not inspect.isfunction(getattr(type(thing), name)):
            continue
        method = getattr(thing, name)
        required = [
            parameter
            for parameter in inspect.signature(method).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and (parameter.default is parameter.empty or parameter.name in ("method", "data", "params"))
        ]
        arguments = {parameter.name: ARGUMENTS.get(parameter.name, f"sobjects/User/{USER}") for parameter in required}
        yield partial(exhaust, method, arguments)


def exhaust(method: Callable[..., Any], arguments: dict[str, Any]) -> None:
    result = method(**arguments)
    if inspect.isgenerator(result):
        for _ in result:
            pass


def test_nothing_that_simple_salesforce_offers_does_more_than_read(
    salesforce: SalesforceSimulator, rest: RestUserService
) -> None:
    client: Any = rest._client()
    salesforce.journal.clear()
    stopped = 0
    for thing in (client, client.User, client.Account, client.bulk, client.bulk.User, client.bulk2, client.bulk2.User):
        for attempt in attempts(thing):
            try:
                attempt()
            except NotReadOnlyError:
                stopped += 1
            except Exception:  # noqa: S112
                continue  # an argument of the wrong kind
    assert stopped > 40
    assert salesforce.journal.violations == []
    assert {exchange.method for exchange in salesforce.journal.exchanges} <= {"GET"}


def test_the_metadata_client_with_its_own_session_is_out_of_reach(rest: RestUserService) -> None:
    client: Any = rest._client()
    with pytest.raises(NotReadOnlyError):
        _ = client.mdapi
    token = rest._authenticator.access_token()
    assert token not in " ".join([client.session_id, *client.headers.values()])
