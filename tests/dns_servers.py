"""Real DNS servers for tests: PowerDNS, BIND and Knot as plain processes on the loopback interface.

Each has the same two zones, a key that may do everything, and a folder with all that it writes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import dns.asyncquery
import dns.tsig
import dns.update
import pytest

from haneul.dns.adapters.asking import Answer, ask
from haneul.dns.adapters.powerdns import PowerDns, PowerDnsAccess
from haneul.dns.adapters.rfc2136 import UpdateAccess, UpdatedServer
from haneul.dns.model import Key, RecordSet
from haneul.dns.ports import DnsProvider
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.waiting import wait_for
from tests.ports import port

ZONE, REVERSE = "corp.example.", "10.in-addr.arpa."
ZONES = (ZONE, REVERSE)
LOOPBACK = "127.0.0.1"
SECRET = base64.b64encode(b"a secret of thirty-two characters").decode()
WRONG = base64.b64encode(b"another secret of as many letters").decode()
NEGATIVE_TTL = 5
_SOA = f"ns.{ZONE} admin.{ZONE} 1 3600 600 86400 {NEGATIVE_TTL}"
_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        pytest.skip(f"{name} is not here: 'make system-packages'")
    return found


class Server:
    """One server; it may be ended, killed and started again on the same port, and keeps its zones."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port()
        self.process: asyncio.subprocess.Process | None = None
        self.prepare()

    def prepare(self) -> None:
        """Write what the server starts with."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return how it is started."""
        raise NotImplementedError

    def provider(self, *, secret: str = SECRET, zones: Sequence[str] = ZONES) -> DnsProvider:
        """Return the adapter under test."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the provider's file, without the file of its key."""
        raise NotImplementedError

    async def by_hand(self, records: RecordSet, *, gone: bool = False) -> None:
        """Write a record set, or take it away, as a person does who knows of no marks."""
        raise NotImplementedError

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*self.command(), stdout=log, stderr=log)

        async def answers() -> bool:
            assert self.process
            assert self.process.returncode is None, (self.folder / "log").read_text()[-3000:]
            # A question that comes before the server listens is lost, and there is no use in waiting for its answer.
            with contextlib.suppress(UnavailableError, TimeoutError):
                async with asyncio.timeout(0.5):
                    return (await self.ask(Key(ZONE, "SOA"))).authoritative
            return False

        await wait_for(answers, what=f"{self.name} to answer", timeout=30, clock=SystemClock(), interval=0.05)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            try:
                await asyncio.wait_for(self.process.wait(), 60)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    async def ask(self, key: Key) -> Answer:
        return await ask(LOOPBACK, self.port, key.name, key.type)


class PowerDnsServer(Server):
    """With its SQLite backend, and its API on another port."""

    name = "PowerDNS"

    def prepare(self) -> None:
        self.api_port = port()
        database = self.folder / "pdns.sqlite3"
        program("pdns_server")
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.executescript(_SCHEMA.read_text())
            for number, zone in enumerate(ZONES, 1):
                name = zone.removesuffix(".")
                connection.execute("INSERT INTO domains (id, name, type) VALUES (?, ?, 'NATIVE')", (number, name))
                connection.execute(
                    "INSERT INTO domainmetadata (domain_id, kind, content) VALUES (?, 'SOA-EDIT-API', 'INCREASE')",
                    (number,),
                )
                for kind, content in (("SOA", _SOA), ("NS", f"ns.{ZONE}")):
                    connection.execute(
                        "INSERT INTO records (domain_id, name, type, content, ttl, auth) VALUES (?, ?, ?, ?, 3600, 1)",
                        (number, name, kind, content.replace(". ", " ").removesuffix(".")),
                    )
            connection.commit()
        (self.folder / "pdns.conf").write_text(
            f"launch=gsqlite3\ngsqlite3-database={database}\nlocal-address={LOOPBACK}\nlocal-port={self.port}\n"
            f"api=yes\napi-key={SECRET}\nwebserver=yes\nwebserver-address={LOOPBACK}\nwebserver-port={self.api_port}\n"
            f"socket-dir={self.folder}\ndaemon=no\nguardian=no\ndisable-syslog=yes\n"
        )

    def command(self) -> list[str]:
        return [program("pdns_server"), f"--config-dir={self.folder}"]

    def provider(self, *, secret: str = SECRET, zones: Sequence[str] = ZONES) -> DnsProvider:
        return PowerDns(PowerDnsAccess(f"http://{LOOPBACK}:{self.api_port}", secret, tuple(zones)))

    def settings(self) -> dict[str, Any]:
        url = f"http://{LOOPBACK}:{self.api_port}"
        return {"kind": "powerdns", "url": url, "zones": list(ZONES), "address": LOOPBACK, "port": self.port}

    async def start(self) -> None:
        await super().start()

        async def answers() -> bool:
            provider = self.provider()
            try:
                with contextlib.suppress(UnavailableError):
                    await provider.read(ZONE)
                    return True
                return False
            finally:
                await provider.close()

        await wait_for(answers, what="PowerDNS's API to answer", timeout=30, clock=SystemClock(), interval=0.05)

    async def by_hand(self, records: RecordSet, *, gone: bool = False) -> None:
        change: dict[str, Any] = {"name": records.name, "type": records.type, "changetype": "DELETE"}
        if not gone:
            contents = [{"content": value, "disabled": False} for value in records.values]
            change |= {"changetype": "REPLACE", "ttl": records.ttl, "records": contents}
        url = f"http://{LOOPBACK}:{self.api_port}/api/v1/servers/localhost/zones/{ZONE}"
        async with (
            aiohttp.ClientSession(headers={"X-API-Key": SECRET}) as session,
            session.patch(url, json={"rrsets": [change]}) as answer,
        ):
            assert answer.status == 204, await answer.text()


class UpdatedByMessage(Server):
    """What BIND and Knot share."""

    def prepare(self) -> None:
        for zone in ZONES:
            (self.folder / f"{zone}zone").write_text(f"{zone} 3600 IN SOA {_SOA}\n{zone} 3600 IN NS ns.{ZONE}\n")
        with (self.folder / f"{ZONE}zone").open("a") as file:
            file.write(f"ns.{ZONE} 3600 IN A 192.0.2.53\n")
        (self.folder / "server.conf").write_text(self.configuration())

    def configuration(self) -> str:
        raise NotImplementedError

    def provider(self, *, secret: str = SECRET, zones: Sequence[str] = ZONES) -> DnsProvider:
        return UpdatedServer(UpdateAccess(LOOPBACK, tuple(zones), "haneul", secret, self.port))

    def settings(self) -> dict[str, Any]:
        place = {"address": LOOPBACK, "port": self.port, "keyName": "haneul"}
        return {"kind": "rfc2136", "zones": list(ZONES), **place}

    async def by_hand(self, records: RecordSet, *, gone: bool = False) -> None:
        update = dns.update.UpdateMessage(ZONE, keyring=dns.tsig.Key("haneul", SECRET, "hmac-sha256"))
        update.delete(records.name, records.type)
        if not gone:
            update.add(records.name, records.ttl, records.type, *records.values)
        answer = await dns.asyncquery.tcp(update, LOOPBACK, 10, port=self.port)
        assert answer.rcode() == 0, answer


class Bind(UpdatedByMessage):
    """BIND's named."""

    name = "BIND"

    def configuration(self) -> str:
        zones = "".join(
            f'zone "{zone}" {{ type primary; file "{self.folder}/{zone}zone"; allow-update {{ key haneul; }}; }};\n'
            for zone in ZONES
        )
        return (
            f'options {{ directory "{self.folder}"; pid-file none; session-keyfile none; lock-file none;\n'
            f'  managed-keys-directory "{self.folder}"; listen-on port {self.port} {{ {LOOPBACK}; }};\n'
            "  listen-on-v6 { none; }; recursion no; dnssec-validation no; notify no;\n"
            "  allow-transfer { key haneul; }; empty-zones-enable no; };\n"
            "controls { };\n"
            f'key haneul {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n{zones}'
        )

    def command(self) -> list[str]:
        return [program("named"), "-g", "-n", "1", "-c", f"{self.folder}/server.conf"]


class Knot(UpdatedByMessage):
    """Knot's knotd."""

    name = "Knot"

    def configuration(self) -> str:
        zones = "".join(
            f"  - domain: {zone}\n    storage: {self.folder}\n    file: {zone}zone\n    acl: haneul\n" for zone in ZONES
        )
        return (
            f"server:\n    rundir: {self.folder}\n    listen: {LOOPBACK}@{self.port}\n"
            "    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n"
            f"log:\n  - target: stderr\n    any: info\ndatabase:\n    storage: {self.folder}\n"
            f"key:\n  - id: haneul\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
            "acl:\n  - id: haneul\n    key: haneul\n    action: [update, transfer]\n"
            f"zone:\n{zones}"
        )

    def command(self) -> list[str]:
        return [program("knotd"), "-c", f"{self.folder}/server.conf"]


SERVERS = {"powerdns": PowerDnsServer, "bind": Bind, "knot": Knot}


@contextlib.asynccontextmanager
async def running(kind: str, folder: Path) -> AsyncIterator[Server]:
    server = SERVERS[kind](folder)
    try:
        await server.start()
        yield server
    finally:
        await server.end()
