"""The in-house DNS for real: what keeps the zones, what is asked, and what becomes of both when they are killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import pytest

from haneul.dns.adapters.powerdns import PowerDns, PowerDnsAccess
from haneul.dns.model import Change, Key, RecordSet
from haneul.host.supervisord import Supervisord
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ForbiddenError
from haneul.kernel.waiting import wait_for
from haneul.management.name_server import DNS_PORT, NameServer
from haneul.management.settings import ManagementSettings
from tests.dns_servers import program
from tests.ports import port

ZONE = "k8s.example"
ALL = ("dns-zones", "dns-zones-second", "dns", "dns-second")
OWNER = "shop/web/uid/id"
WEB = RecordSet(f"web.prod.svc.first.shop.{ZONE}.", "A", 5, ("10.128.0.7",))
OTHER = RecordSet(f"other.prod.svc.first.shop.{ZONE}.", "A", 5, ("10.128.0.8",))
POINTER = RecordSet("7.0.128.10.in-addr.arpa.", "PTR", 5, (WEB.name,))
DEADLINE = 60.0


def settings(folder: Path, zone: str, *resolvers: str) -> ManagementSettings:
    # Whoever else listens on port 53 does so at another one of the sixteen million addresses of loopback.
    address = ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])
    return ManagementSettings(
        address=address,
        host_name="host-a",
        state=folder / "state",
        runtime=folder / "run",
        logs=folder / "logs",
        zone=zone,
        zones_port=port(),
        second_zones_port=port(),
        zones_api_port=port(),
        resolvers=resolvers,
    )


class Running:
    """A name server under a supervisord of its own."""

    def __init__(self, wanted: ManagementSettings) -> None:
        self.settings = wanted
        self.services = Supervisord(
            state=wanted.state, runtime=wanted.runtime, logs=wanted.logs, clock=SystemClock(), patience=5
        )
        self.server = NameServer(wanted, services=self.services, clock=SystemClock())

    @property
    def key(self) -> str:
        return self.server.files.key.read_text().strip()

    def provider(self, key: str = "") -> PowerDns:
        url = f"http://{self.settings.address}:{self.settings.zones_api_port}"
        return PowerDns(PowerDnsAccess(url, key or self.key, self.settings.zones))

    async def pid(self, name: str) -> int:
        (state,) = [state for state in await self.services.states() if state.name == name]
        return state.pid or 0

    async def ask(self, name: str, kind: str = "A") -> tuple[str, list[str]]:
        """Ask as a pod's resolver does; return the code and the values."""
        question = dns.message.make_query(name, kind)
        said = await dns.asyncquery.udp(question, self.settings.address, 5, port=DNS_PORT)
        values = [record.to_text() for found in said.answer for record in found]
        return dns.rcode.to_text(said.rcode()), values

    async def definite(self, name: str, kind: str = "A") -> tuple[str, list[str]]:
        """Return the first answer that says whether a name is there; on a busy machine questions are lost."""

        async def said() -> tuple[str, list[str]] | None:
            with contextlib.suppress(OSError, dns.exception.DNSException):
                answer = await self.ask(name, kind)
                return answer if answer[0] in ("NOERROR", "NXDOMAIN") else None
            return None

        return await wait_for(said, what=f"an answer about {name}", timeout=DEADLINE, clock=SystemClock())

    async def until(self, name: str, kind: str, expected: tuple[str, list[str]]) -> None:
        async def seen() -> bool:
            with contextlib.suppress(OSError, dns.exception.DNSException):
                return await self.ask(name, kind) == expected
            return False

        await wait_for(seen, what=f"{name} {kind} to be {expected}", timeout=DEADLINE, clock=SystemClock())


@contextlib.asynccontextmanager
async def running(wanted: ManagementSettings) -> AsyncIterator[Running]:
    found = Running(wanted)
    try:
        await found.server.start()
        yield found
    finally:
        await found.services.shut_down()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a socket in it has at most 107 characters (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="names-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(autouse=True)
def _only_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can let a program have another user and root folder")
    for name in ("pdns_server", "pdns_recursor"):
        program(name)


async def test_names_are_answered_whoever_was_killed(folder: Path) -> None:
    async with running(settings(folder, ZONE)) as found:
        provider = found.provider()
        for name, kind in ((WEB.name, "A"), (POINTER.name, "PTR")):
            await found.until(name, kind, ("NXDOMAIN", []))
        try:
            word = await provider.apply(f"{ZONE}.", OWNER, [Change(None, WEB), Change(None, OTHER)])
            await provider.apply("10.in-addr.arpa.", OWNER, [Change(None, POINTER)])
            state = await provider.read(f"{ZONE}.")
        finally:
            await provider.close()
        assert word.serial > 1
        assert state.negative_ttl == 0
        assert state.sets[Key(f"ns.{ZONE}.", "A")].records.values == (found.settings.address,)
        # Nobody remembers that they were not there.
        assert await found.definite(WEB.name) == ("NOERROR", ["10.128.0.7"])
        assert await found.definite(POINTER.name, "PTR") == ("NOERROR", [WEB.name])
        assert (await found.definite(f"nobody.{ZONE}"))[0] == "NXDOMAIN"
        for name in ALL:
            before = await found.pid(name)
            os.kill(before, signal.SIGKILL)
            # Who asks in that moment for what nobody remembers gets no answer, and must not be told so afterwards.
            with contextlib.suppress(OSError, dns.exception.DNSException):
                await found.ask(OTHER.name)

            async def another(name: str = name, before: int = before) -> bool:
                return await found.pid(name) not in (0, before)

            await wait_for(another, what=f"{name} to be started again", timeout=DEADLINE, clock=SystemClock())
            await found.until(WEB.name, "A", ("NOERROR", ["10.128.0.7"]))
            await found.until(OTHER.name, "A", ("NOERROR", ["10.128.0.8"]))


async def test_one_of_each_pair_that_is_missing_is_missed_by_nobody(folder: Path) -> None:
    async with running(settings(folder, ZONE)) as found:
        provider = found.provider()
        try:
            for number, name in enumerate(ALL):
                await found.until(f"ns.{ZONE}", "A", ("NOERROR", [found.settings.address]))
                await found.services.stop(name)
                # What nobody asked for before is answered from no memory; who asks takes each time another port, so the
                # kernel gives the questions to whoever of the recursors is there.
                if name != "dns-zones":
                    fresh = RecordSet(f"fresh-{number}.prod.svc.first.shop.{ZONE}.", "A", 5, (f"10.128.1.{number}",))
                    await provider.apply(f"{ZONE}.", OWNER, [Change(None, fresh)])
                    assert await found.definite(fresh.name) == ("NOERROR", list(fresh.values))
                codes = []
                for _ in range(20):
                    with contextlib.suppress(OSError, dns.exception.DNSException):
                        codes.append((await found.ask(f"nobody.{ZONE}"))[0])
                # A busy machine may lose some; without the other one it would be all.
                assert codes.count("NXDOMAIN") > 10, codes
                await found.server.start()
        finally:
            await provider.close()


async def test_a_start_after_the_end_finds_what_was_there(folder: Path) -> None:
    wanted = settings(folder, ZONE)
    async with running(wanted) as found:
        key = found.server.files.key.read_text()
        provider = found.provider()
        try:
            await provider.apply(f"{ZONE}.", OWNER, [Change(None, WEB)])
        finally:
            await provider.close()
    async with running(wanted) as found:
        # Nothing that runs is touched by another one.
        before = [await found.pid(name) for name in ALL]
        await found.server.start()
        assert [await found.pid(name) for name in ALL] == before
        assert found.server.files.key.read_text() == key
        await found.until(WEB.name, "A", ("NOERROR", ["10.128.0.7"]))


async def test_another_key_is_taken_at_the_next_start_and_the_one_before_no_more(folder: Path) -> None:
    async with running(settings(folder, ZONE)) as found:
        before = found.key
        others = [await found.pid(name) for name in ALL[1:]]
        found.server.files.key.unlink()
        await found.server.start()
        assert found.key != before
        former, renewed = found.provider(before), found.provider()
        try:
            with pytest.raises(ForbiddenError):
                await former.read(f"{ZONE}.")
            assert (await renewed.read(f"{ZONE}.")).sets
        finally:
            await former.close()
            await renewed.close()
        assert [await found.pid(name) for name in ALL[1:]] == others


async def test_other_names_are_asked_of_the_host_s_resolvers(folder: Path) -> None:
    async with running(settings(folder / "company", "corp.example")) as company:
        address = company.settings.address
        async with running(settings(folder / "ours", ZONE, address)) as ours:
            await ours.until("ns.corp.example.", "A", ("NOERROR", [address]))
            await ours.until(f"ns.{ZONE}.", "A", ("NOERROR", [ours.settings.address]))


async def test_neither_program_is_root_s_and_the_key_is_root_s_alone(folder: Path) -> None:
    async with running(settings(folder, ZONE)) as found:
        for name in ALL:
            pid = await found.pid(name)

            async def nobody_special(pid: int = pid) -> bool:
                # It listens as root, and gives that up a moment later.
                status = Path(f"/proc/{pid}/status").read_text()
                (users,) = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
                return "0" not in users

            await wait_for(nobody_special, what=f"{name} to be nobody's", timeout=DEADLINE, clock=SystemClock())
            assert found.server.files.key.read_text().strip().encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert found.server.files.key.read_text().strip().encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        for secret in (found.server.files.key, found.server.files.keeper / "pdns.conf"):
            assert secret.stat().st_mode & 0o777 == 0o600
