"""A real authority for tests: Pebble by RFC 8555, and the DNS server that it asks, which has one address for all names.

Pebble validates in earnest: it looks names up there, and asks port ``http_port`` of what it finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from haneul.app.installation import component_store
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.kernel.waiting import wait_for
from tests.ports import ports
from tests.processes import kill_all

BLOCKED = "blocked.example.com"
_SECONDS = 120.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Pebble:
    """Where it answers, whose certificate it answers with, and where it says who it is."""

    directory: str
    trust: Path
    management: str
    log: Path

    def orders(self) -> int:
        """Return how many orders it has taken."""
        return self.log.read_text().count("Added order")

    async def root(self) -> bytes:
        """Return the certificate of the authority that it signs with, PEM."""
        connector = aiohttp.TCPConnector(ssl=False)
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"{self.management}/roots/0") as answer,
        ):
            return await answer.read()


def _program(name: str) -> str:
    try:
        return str(component_store().program(name))
    except HaneulError as error:
        pytest.skip(f"{error.detail}: 'haneul components build pebble'")


def _started(log: Path, environment: Mapping[str, str], *command: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=dict(environment))


@contextlib.asynccontextmanager
async def pebble(
    folder: Path, *, address: str, http_port: int, keys: Mapping[str, str] | None = None
) -> AsyncIterator[Pebble]:
    """Yield one that asks an address's port; ``keys`` are of accounts elsewhere, without which it signs up nobody."""
    programs = _program("pebble"), _program("pebble-challtestsrv")
    listen, management, dns, dns_management = ports(4)
    authority = issue_authority("pebble's own", now=datetime.now(UTC))
    pair = issue_leaf(authority, LeafProfile("pebble", addresses=(_LOOPBACK,), server=True), now=datetime.now(UTC))
    for name, content in (("ca.pem", authority.certificate), ("crt.pem", pair.certificate), ("key.pem", pair.key)):
        (folder / name).write_bytes(content)
    settings: dict[str, Any] = {
        "listenAddress": f"{_LOOPBACK}:{listen}",
        "managementListenAddress": f"{_LOOPBACK}:{management}",
        "certificate": str(folder / "crt.pem"),
        "privateKey": str(folder / "key.pem"),
        "httpPort": http_port,
        "tlsPort": 1,
        "domainBlocklist": [BLOCKED],
        "retryAfter": {"authz": 1, "order": 1},
        "externalAccountBindingRequired": keys is not None,
        "externalAccountMACKeys": dict(keys or {}),
        "profiles": {"default": {"description": "for tests", "validityPeriod": 7776000}},
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    # Of what Pebble does by chance to its clients, only validation's pauses and refused nonces are left aside.
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    log = folder / "pebble.log"
    resolver = f"{_LOOPBACK}:{dns}"
    # Of what the second could answer besides names, nothing is asked for.
    nothing = [word for name in ("http01", "https01", "tlsalpn01", "doh", "defaultIPv6") for word in (f"-{name}", "")]
    named = ["-defaultIPv4", address, "-dnsserver", resolver, "-management", f"{_LOOPBACK}:{dns_management}"]
    names = _started(log, environment, programs[1], *nothing, *named)
    server = _started(log, environment, programs[0], "-config", str(folder / "pebble.json"), "-dnsserver", resolver)
    made = Pebble(f"https://{_LOOPBACK}:{listen}/dir", folder / "ca.pem", f"https://{_LOOPBACK}:{management}", log)
    try:

        async def answers() -> bool:
            assert server.poll() is None, log.read_text()
            assert names.poll() is None, log.read_text()
            try:
                return b"BEGIN CERTIFICATE" in await made.root()
            except aiohttp.ClientConnectionError:
                return False

        await wait_for(answers, what="Pebble", timeout=_SECONDS, clock=SystemClock(), interval=0.05)
        yield made
    finally:
        kill_all(server, names)
