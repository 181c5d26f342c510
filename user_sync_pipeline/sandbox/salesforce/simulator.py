"""The Salesforce simulator as a whole: an organisation, its clock and its journal behind one https address."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.http_server import HttpServer
from user_sync_pipeline.sandbox.salesforce.api import SalesforceApi
from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock
from user_sync_pipeline.sandbox.salesforce.faults import FaultScript
from user_sync_pipeline.sandbox.salesforce.journal import Journal
from user_sync_pipeline.sandbox.salesforce.oauth import ConnectedApp, TokenService
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.sample_people import Person, people

DEFAULT_CLIENT_ID = "user-sync-sandbox"


class SalesforceSimulator:
    """A Salesforce organisation that answers like the real one, for as long as the `with` block lasts.

    `members` are its users, or how many of the sandbox's people to draw with `seed`, as they were at `org_start`
    (aware; the present moment when it is not given). The same `seed` is the same organisation. Without a
    `client_secret` a random one is made; `port=0` lets the system choose. `certificate` proves signed sign-ins, and
    `faults` befall the answers; both can be changed later, at `connected_app` and `faults`. `application` is what
    answers, for those who need no server.
    """

    def __init__(
        self,
        members: int | Sequence[Person],
        authority: CertificateAuthority,
        *,
        seed: int = 1,
        org_start: datetime | None = None,
        client_id: str = DEFAULT_CLIENT_ID,
        client_secret: str | None = None,
        certificate: str | None = None,
        faults: FaultScript | None = None,
        port: int = 0,
    ) -> None:
        self.clock = VirtualClock()
        self.journal = Journal()
        self.faults = faults or FaultScript()
        if isinstance(members, int):
            members = people(members, seed=seed, until=org_start or self.clock.now())
        self.org = Org(members, seed=seed, clock=self.clock)
        secret = client_secret or secrets.token_urlsafe(32)
        self.connected_app = ConnectedApp(client_id, secret, certificate)
        self._authority = authority
        self.tokens = TokenService(self.org, self.connected_app)
        api = SalesforceApi(self.org, self.tokens, self.journal, self.faults, url=lambda: self.url)
        self.application = api.application()
        self._server = HttpServer(self.application, authority, port=port, date_header=False)

    @property
    def url(self) -> str:
        """The address to sign in at, and of the instance; known once the simulator has started."""
        return self._server.url

    def environment(self) -> dict[str, str]:
        """Return the settings that lead a client here, the secret among them."""
        return {
            "SALESFORCE_LOGIN_URL": self.url,
            "SALESFORCE_CLIENT_ID": self.connected_app.client_id,
            "SALESFORCE_CLIENT_SECRET": self.connected_app.client_secret,
            "SALESFORCE_CA_BUNDLE": str(self._authority.ca_file),
        }

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """Stop answering; the organisation stays as it is and can be started again."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
