"""Registries for ``haneul bench d2hub``: ours and its peers, as processes on loopback with data that is gone after it.

All serve TLS and check a token of their own kind on every request. The peers trust tokens by a certificate, so the
bench is their token service and signs what it needs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping
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
from haneul.app.installation import component_store
from haneul.bench.machine import machine_facts
from haneul.bench.process_usage import HostProcesses, Reading
from haneul.bench.registries import RegistryBench
from haneul.bench.registry_figures import BARE, DEBIAN, DISTRIBUTION, FILLED, OURS, RegistryFigures, RegistryPlan
from haneul.cli.progress import TerminalProgress
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf
from haneul.kernel.progress import Progress
from haneul.kernel.waiting import wait_for

_ADDRESS: Final = "127.0.0.1"
_START_SECONDS: Final = 180.0
_END_SECONDS: Final = 20.0
_COMPONENT: Final = "distribution"
_SECRET: Final = "only of this run's own data"  # noqa: S105 - it guards a folder that is removed after the run
_LIFE: Final = timedelta(hours=12)


async def run_registry_bench(
    plan: RegistryPlan, peer: bool, figures: RegistryFigures, machine: dict[str, str], folder: Path | None
) -> None:
    """Measure our registry, empty and filled, and with ``peer`` CNCF Distribution, new and as Debian has it.

    Distribution is built if it is not there yet. All data lies in a folder of its own in ``folder``.
    """
    clock, progress = SystemClock(), TerminalProgress()
    peers = await _peers(progress) if peer else {}
    machine |= machine_facts() | {name: _version(program) for name, program in peers.items()}
    machine["transport"] = "TLS 1.3, AES-128-GCM, ECDSA P-256" if plan.tls else "plain HTTP"
    async with contextlib.AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haneul-bench-", dir=folder)))
        identity = _Identity(data, clock)
        sides: list[_Process] = [_Ours(OURS, data / "ours", plan.tls, clock)]
        sides += [_Peer(name, data / name, program, identity, plan.tls, clock) for name, program in peers.items()]
        sides += [_Ours(FILLED, data / "filled", plan.tls, clock)] if plan.tags else []
        sides.append(_Bare(data / "bare", identity, plan.tls, clock))
        for side in sides:
            await stack.enter_async_context(_running(side))
        await RegistryBench(sides, data, clock=clock, progress=progress).run(plan, figures)
        machine["load after"] = machine_facts()["load before"]


async def _peers(progress: Progress) -> Mapping[str, Path]:
    """Return the peers' programs, by name."""
    debian = shutil.which(DEBIAN)
    if debian is None:
        raise HostNotReadyError(
            f"{DEBIAN} is not installed", hint=f"'apt-get install {DEBIAN}', or leave the peers out with --no-peer"
        )
    store = component_store()
    await store.build([_COMPONENT], progress)
    return {DISTRIBUTION: store.program("registry"), DEBIAN: Path(debian)}


def _version(program: Path) -> str:
    """Return what a peer says of its version."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return said.stdout.split()[-1] if said.stdout.split() else "unknown"


class _Identity:
    """What the bench is to the peers: the authority of their certificates, and the service that signs their tokens."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        authority = issue_authority("authority of the bench", now=clock.now())
        profile = LeafProfile("bench", addresses=(_ADDRESS,), server=True, client=True)
        self._leaf: KeyPair = issue_leaf(authority, profile, now=clock.now(), life=_LIFE)
        self.authority, self.certificate, self.key = folder / "ca.crt", folder / "tls.crt", folder / "tls.key"
        self.authority.write_bytes(authority.certificate)
        self.certificate.write_bytes(self._leaf.certificate)
        self.key.touch(0o600)
        self.key.write_bytes(self._leaf.key)

    def token(self, scope: str) -> str:
        """Sign a token (distribution's token specification), with the certificate in its header."""
        certificate = x509.load_pem_x509_certificate(self._leaf.certificate).public_bytes(Encoding.DER)
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "bench",
            "aud": "bench",
            "sub": "bench",
            "iat": now,
            "nbf": now - 10,
            "exp": now + 3600,
            "jti": str(now),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        header = {"alg": "ES256", "typ": "JWT", "x5c": [base64.b64encode(certificate).decode()]}
        return jwt.encode(header, claims, ECKey.import_key(self._leaf.key), algorithms=["ES256"])


class _Process:
    """A server in a process of its own."""

    environment: Mapping[str, str] = {}

    def __init__(self, name: str, folder: Path, clock: Clock) -> None:
        folder.mkdir(parents=True)
        self.name, self.folder, self.clock = name, folder, clock
        self._held = _held_port()
        self.address, self.port = _ADDRESS, int(self._held.getsockname()[1])
        self.authority: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return what to run."""
        raise NotImplementedError

    async def authorization(self, scope: str) -> str:
        """Return the header's value for a scope."""
        raise NotImplementedError

    def memory_mib(self) -> float:
        """Return the resident memory."""
        return sum(one.rss for one in self._readings()) / (1 << 20)

    def cpu_seconds(self) -> float:
        """Return the processor time."""
        return sum(one.cpu_seconds for one in self._readings())

    def _readings(self) -> Collection[Reading]:
        pids = [self.process.pid] if self.process is not None else []
        return HostProcesses().read(pids).values()

    async def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it is over in milliseconds
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.environment},
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
        self._held.close()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            await asyncio.to_thread(self.process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)


class _Ours(_Process):
    """D2Hub."""

    def __init__(self, name: str, folder: Path, tls: bool, clock: Clock) -> None:
        super().__init__(name, folder, clock)
        accounts_of(folder / "data", make=True).add_user("bench", _SECRET, admin=True, projects={})
        self.authority = folder / "data" / "tls" / "ca.crt" if tls else None
        self._tokens: dict[str, tuple[str, float]] = {}

    def command(self) -> list[str]:
        options = ["--data", str(self.folder / "data"), "--port", str(self.port)]
        plain = [] if self.authority is not None else ["--plain-http"]
        return [sys.executable, "-m", "haneul.app.main", "d2hub", "serve", *options, *plain]

    async def authorization(self, scope: str) -> str:
        """Ask for a token as a client does, and use it for a quarter of its life: no round shall see it end."""
        token, until = self._tokens.get(scope, ("", 0.0))
        if self.clock.monotonic() > until:
            scheme, verify = ("http", True) if self.authority is None else ("https", _trusting(self.authority))
            async with httpx2.AsyncClient(verify=verify, trust_env=False, timeout=30) as http:
                answer = await http.get(
                    f"{scheme}://{self.address}:{self.port}/token", params={"scope": scope}, auth=("bench", _SECRET)
                )
            answer.raise_for_status()
            token = answer.json()["token"]
            self._tokens[scope] = token, self.clock.monotonic() + answer.json()["expires_in"] / 4
        return f"Bearer {token}"


class _Peer(_Process):
    """CNCF Distribution, of whichever version the program is."""

    # Without it, version 3 sends traces to a collector that is not there.
    environment = {"OTEL_TRACES_EXPORTER": "none"}

    def __init__(self, name: str, folder: Path, program: Path, identity: _Identity, tls: bool, clock: Clock) -> None:
        super().__init__(name, folder, clock)
        self._program, self._identity = program, identity
        self.authority = identity.authority if tls else None
        (folder / "config.yml").write_text(yaml.safe_dump(self._config()))

    def command(self) -> list[str]:
        return [str(self._program), "serve", str(self.folder / "config.yml")]

    async def authorization(self, scope: str) -> str:
        """Sign a token as its token service."""
        return f"Bearer {self._identity.token(scope)}"

    def _config(self) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": f"{self.address}:{self.port}", "secret": "bench"}
        if self.authority is not None:
            http["tls"] = {"certificate": str(self._identity.certificate), "key": str(self._identity.key)}
        return {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
            },
            "http": http,
            "auth": {
                "token": {
                    "realm": "https://127.0.0.1/token",
                    "service": "bench",
                    "issuer": "bench",
                    "rootcertbundle": str(self._identity.authority),
                }
            },
        }


class _Bare(_Process):
    """A server that does nothing but answer."""

    def __init__(self, folder: Path, identity: _Identity, tls: bool, clock: Clock) -> None:
        super().__init__(BARE, folder, clock)
        self._identity = identity
        self.authority = identity.authority if tls else None

    def command(self) -> list[str]:
        files = [] if self.authority is None else [str(self._identity.certificate), str(self._identity.key)]
        return [sys.executable, "-m", "haneul.bench.bare_responder", str(self.port), *files]

    async def authorization(self, scope: str) -> str:
        """Return something of a token's length: it is not looked at."""
        return f"Bearer {self._identity.token(scope)}"


@contextlib.asynccontextmanager
async def _running(process: _Process) -> AsyncIterator[_Process]:
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


def _trusting(authority: Path) -> Any:
    return ssl.create_default_context(cafile=str(authority))


def _held_port() -> socket.socket:
    """Return a socket that keeps a port from being given to others; who names it may listen there all the same."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((_ADDRESS, 0))
    return held
