"""PgBouncer in front of a server, for the tests that want to know what a pooler breaks."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from user_sync_pipeline.sandbox.certificates import CertificateAuthority
    from user_sync_pipeline.sandbox.postgres import PostgresServer

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

MOST_CONNECTIONS = 20

Mode = Literal["transaction", "session"]


class PgBouncer:
    """One pooler on 127.0.0.1 and on a socket in its folder, with TLS for those who ask for it.

    `passwords` are those of the logins. The database `tenant` is the server's `postgres`, as the role of that name for
    whoever signs in: poolers of many projects tell these apart by logins such as `postgres.project`.
    """

    def __init__(
        self,
        server: PostgresServer,
        folder: Path,
        authority: CertificateAuthority,
        *,
        mode: Mode,
        passwords: dict[str, str],
    ) -> None:
        self.folder = folder
        self._server = server
        self._authority = authority
        self._mode = mode
        self._passwords = passwords
        self._program: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def url(self, database: str, role: str, **query: str) -> str:
        """Return the address of a database behind the pooler."""
        secret = quote(self._passwords[role], safe="")
        url = f"postgresql://{role}:{secret}@127.0.0.1:{self.port}/{database}"
        return make_url(url).update_query_dict({"connect_timeout": "60", **query}).render_as_string(hide_password=False)

    def start(self) -> None:
        """Start, and wait for the port."""
        self.folder.mkdir(parents=True)
        users = self.folder / "users.txt"
        users.write_text("".join(f'"{role}" "{password}"\n' for role, password in self._passwords.items()))
        certificates = {
            "key": self.folder / "server.key",
            "cert": self.folder / "server.pem",
        }
        shutil.copy(self._authority.server_key, certificates["key"])
        shutil.copy(self._authority.server_certificate, certificates["cert"])
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": self.folder,
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "pool_mode": self._mode,
            "max_client_conn": MOST_CONNECTIONS,
            "default_pool_size": MOST_CONNECTIONS,
            "client_tls_sslmode": "allow",
            "client_tls_key_file": certificates["key"],
            "client_tls_cert_file": certificates["cert"],
            "logfile": self.folder / "pgbouncer.log",
            "stats_period": 600,
        }
        where = f"host=127.0.0.1 port={self._server.port}"
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = {where}\ntenant = {where} dbname=postgres user=postgres\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        identity = {}
        if os.geteuid() == 0:  # it refuses to run as root
            account = pwd.getpwnam("nobody")
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        assert PROGRAM is not None
        self._program = subprocess.Popen(
            [PROGRAM, "--quiet", str(configuration)], cwd=self.folder, stderr=subprocess.DEVNULL, **identity
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "pgbouncer.log").read_text())

    def stop(self) -> None:
        """Stop, whatever is open."""
        if self._program is not None:
            self._program.send_signal(signal.SIGTERM)
            self._program.wait(60)
