"""One Supabase project on this machine: gateway, GoTrue and PostgREST over one database, behind TLS.

What belongs here: putting them together, starting and stopping, and the settings that point at them.
What does not: how each of them answers.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.http_server import HttpServer
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase.database import API_LOGIN_ROLE, AUTH_ADMIN_ROLE
from user_sync_pipeline.sandbox.supabase.gateway import gateway
from user_sync_pipeline.sandbox.supabase.gotrue import GoTrue
from user_sync_pipeline.sandbox.supabase.keys import ApiKeys
from user_sync_pipeline.sandbox.supabase.postgrest import Postgrest

PROJECT_REFERENCE = "sandbox"
MAX_ROWS = 1000


class SupabaseSimulator:
    """Serves a database that `prepare_supabase` has made ready, whose two passwords are asked for again.

    `keys` are made anew for each simulator. `port=0` lets the system choose. Each answer takes `delay` seconds longer;
    without `takes_legacy_keys` the signed keys of former years are switched off.
    """

    def __init__(
        self,
        server: PostgresServer,
        database: str,
        authority: CertificateAuthority,
        *,
        authenticator_password: str,
        auth_admin_password: str,
        port: int = 0,
        takes_legacy_keys: bool = True,
        delay: float = 0,
    ) -> None:
        self.keys = ApiKeys.generate(PROJECT_REFERENCE)
        auth_url = server.url(database, role=AUTH_ADMIN_ROLE, password=auth_admin_password)
        rest_url = server.url(database, role=API_LOGIN_ROLE, password=authenticator_password)
        app = gateway(
            self.keys,
            auth=GoTrue(auth_url, self.keys).app,
            rest=Postgrest(rest_url, self.keys, max_rows=MAX_ROWS).app,
            takes_legacy_keys=takes_legacy_keys,
            delay=delay,
        )
        self._authority = authority
        self._http = HttpServer(app, authority, port=port)

    @property
    def url(self) -> str:
        """The address of the project; known once it has started."""
        return self._http.url

    def environment(self) -> dict[str, str]:
        """Return the settings with which the pipeline finds this project and may do everything in it."""
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_SERVICE_ROLE_KEY": self.keys.secret_key,
            "SUPABASE_CA_BUNDLE": str(self._authority.ca_file),
        }

    def start(self) -> None:
        """Return when the project answers."""
        self._http.start()

    def stop(self) -> None:
        """Close every connection and free the port."""
        self._http.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
