"""Registries for ``haneul bench d2hub``: ours and Debian's, as processes on loopback with data that is gone after it.

Both check a token of their own kind on every request. Debian's docker-registry trusts tokens by a certificate, so the
bench is its token service and signs what it needs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from haneul.app.d2hub import accounts_of
from haneul.bench.machine import machine_facts
from haneul.bench.process_usage import HostProcesses
from haneul.bench.registries import RegistryBench
from haneul.bench.registries_report import OURS
from haneul.bench.registry_figures import RegistryFigures, RegistryPlan
from haneul.cli.progress import TerminalProgress
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.kernel.waiting import wait_for

_ADDRESS: Final = "127.0.0.1"
_START_SECONDS: Final = 180.0
_END_SECONDS: Final = 20.0
_PEER: Final = "docker-registry"
_SECRET: Final = "only of this run's own data"  # noqa: S105 - it guards a folder that is removed after the run
_LIFE: Final = timedelta(hours=12)


async def run_registry_bench(
    plan: RegistryPlan, peer: bool, figures: RegistryFigures, machine: dict[str, str], folder: Path | None
) -> None:
    """Measure our registry and, with ``peer``, Debian's; their data lies in a folder of its own in ``folder``."""
    clock = SystemClock()
    if peer and shutil.which(_PEER) is None:
        raise HostNotReadyError(
            f"{_PEER} is not installed", hint="'apt-get install docker-registry', or leave it out with --no-peer"
        )
    machine |= machine_facts()
    async with contextlib.AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haneul-bench-", dir=folder)))
        registries: list[_Process] = [await stack.enter_async_context(_running(_Ours(data / "ours", clock)))]
        if peer:
            theirs = _Theirs(data / "theirs", clock)
            registries.append(await stack.enter_async_context(_running(theirs)))
            machine[_PEER] = theirs.version()
        await RegistryBench(registries, clock=clock, progress=TerminalProgress()).run(plan, figures)


class _Process:
    """A registry in a process of its own."""

    name = ""

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(parents=True)
        self.folder, self.clock = folder, clock
        self.address, self.port = _ADDRESS, _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return what to run."""
        raise NotImplementedError

    async def authorization(self, repositories: Sequence[str]) -> str:
        """Return the header's value for everything with these repositories."""
        raise NotImplementedError

    def memory_mib(self) -> float:
        """Return the resident memory."""
        pids = [self.process.pid] if self.process is not None else []
        return sum(one.rss for one in HostProcesses().read(pids).values()) / (1 << 20)

    async def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it is over in milliseconds
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

        async def answers() -> bool:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self.address, self.port)
                writer.close()
                return True
            if self.process is not None and self.process.poll() is not None:
                said = (self.folder / "log").read_text(errors="replace")[-1000:]
                raise UnavailableError(f"{self.name} ended with {self.process.returncode}: {said}")
            return False

        await wait_for(answers, what=self.name, timeout=_START_SECONDS, clock=self.clock, max_interval=0.2)

    async def stop(self) -> None:
        """End the process."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            await asyncio.to_thread(self.process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)


class _Ours(_Process):
    name = OURS

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder, clock)
        accounts_of(folder / "data").add_user("bench", _SECRET, admin=True, projects={})
        self._token, self._until = "", 0.0

    def command(self) -> list[str]:
        data = str(self.folder / "data")
        options = ["--data", data, "--port", str(self.port), "--plain-http"]
        return [sys.executable, "-m", "haneul.app.main", "d2hub", "serve", *options]

    async def authorization(self, repositories: Sequence[str]) -> str:
        """Ask for a token as a client does; they are short-lived."""
        if self.clock.monotonic() > self._until:
            scopes = [f"repository:{name}:pull,push" for name in repositories]
            url = f"http://{self.address}:{self.port}/token"
            async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
                answer = await http.get(url, params={"scope": scopes}, auth=("bench", _SECRET))
            answer.raise_for_status()
            self._token = answer.json()["token"]
            self._until = self.clock.monotonic() + answer.json()["expires_in"] / 4
        return f"Bearer {self._token}"


class _Theirs(_Process):
    name = _PEER

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder, clock)
        now = clock.now()
        authority = issue_authority("bench", now=now)
        self._leaf = issue_leaf(authority, LeafProfile("bench", client=True), now=now, life=_LIFE)
        (folder / "authority.crt").write_bytes(authority.certificate)
        (folder / "config.yml").write_text(yaml.safe_dump(self._config()))

    def command(self) -> list[str]:
        return [_PEER, "serve", str(self.folder / "config.yml")]

    def version(self) -> str:
        """Return the version, for the report."""
        said = subprocess.run([_PEER, "--version"], capture_output=True, text=True, timeout=20, check=False)
        return said.stdout.strip() or "unknown"

    async def authorization(self, repositories: Sequence[str]) -> str:
        """Sign a token (distribution's token specification): the certificate in its header, all actions."""
        certificate = x509.load_pem_x509_certificate(self._leaf.certificate).public_bytes(Encoding.DER)
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "bench",
            "aud": "bench",
            "sub": "bench",
            "iat": now,
            "nbf": now - 10,
            "exp": now + 3600,
            "jti": str(now),
            "access": [{"type": "repository", "name": name, "actions": ["pull", "push"]} for name in repositories],
        }
        header = {"alg": "ES256", "typ": "JWT", "x5c": [base64.b64encode(certificate).decode()]}
        return f"Bearer {jwt.encode(header, claims, ECKey.import_key(self._leaf.key), algorithms=['ES256'])}"

    def _config(self) -> dict[str, Any]:
        return {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"{self.address}:{self.port}"},
            "auth": {
                "token": {
                    "realm": "http://127.0.0.1/token",
                    "service": "bench",
                    "issuer": "bench",
                    "rootcertbundle": str(self.folder / "authority.crt"),
                }
            },
        }


@contextlib.asynccontextmanager
async def _running(process: _Process) -> AsyncIterator[_Process]:
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
