"""A PostgreSQL of Debian's package, in a folder and at a socket of its own, that tests start, end and kill."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy import URL

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
DEADLINE = 60.0
USER, PASSWORD = "haneul", "a secret of tests"
#: Its own test of what is only promised for a running machine: what is committed survives processes, not power cuts.
SETTINGS = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=80", "listen_addresses=")


class Postgres:
    """One server. It refuses root, so root starts it as the user that the package made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.log = folder, folder / "data", folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
        self._names = (f"hub{number}" for number in itertools.count())
        password = folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        # A language whose order of letters is not that of bytes.
        language = ("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")
        self._run(
            "initdb", "--no-sync", *language, f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={password}"
        )

    def start(self) -> None:
        settings = [
            word for setting in (*SETTINGS, f"unix_socket_directories={self.folder}") for word in ("-c", setting)
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", PROGRAMS / "postgres", "-D", self.data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._owner.pw_uid,
                group=self._owner.pw_gid,
                extra_groups=[],
            )
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError), self.connected("postgres"):
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"PostgreSQL does not answer:\n{self.log.read_text()}")

    def stop(self) -> None:
        """End it as a restart of its service does: connections are cut, what was committed stays."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill it; it recovers when it starts again."""
        self._end(signal.SIGQUIT)

    def url(self, database: str) -> URL:
        """Return where the registry's adapters find a database."""
        return URL.create("postgresql+psycopg", USER, PASSWORD, database=database, query={"host": str(self.folder)})

    def connected(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.folder), user=USER, password=PASSWORD, dbname=database, autocommit=True, connect_timeout=60
        )

    def make(self, template: str = "template0") -> str:
        """Make a database and return its name."""
        name = next(self._names)
        with self.connected("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return name

    def _end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(DEADLINE)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [PROGRAMS / program, "-D", self.data, *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            cwd=self.folder,
            user=self._owner.pw_uid,
            group=self._owner.pw_gid,
            extra_groups=[],
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server until the block ends. Its folder is not a test's: other users cannot enter those."""
    folder = Path(tempfile.mkdtemp(prefix="haneul-postgres-"))
    try:
        server = Postgres(folder)
        try:
            server.start()
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.kill()
    finally:
        shutil.rmtree(folder)
