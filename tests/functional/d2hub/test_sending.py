"""What sends deliveries, against a real server: TLS, silence; and what gathers records, with time that is told."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haneul.d2hub.adapters.http_sender import HttpSender
from haneul.d2hub.happenings import AuditEntry, Happening
from haneul.d2hub.journal import MOST_WAITING, Journal
from haneul.d2hub.receivers import Receiver
from haneul.d2hub.record_ports import Span
from haneul.d2hub.rules import ProjectRules
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ForbiddenError, InvalidInputError, UnavailableError
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from tests.functional.d2hub.receiver import receiving

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture
def sender() -> Iterator[HttpSender]:
    sender = HttpSender(timeout_seconds=20, local=["localhost"])
    yield sender
    sender.close()


def server(folder: Path, name: str) -> ssl.SSLContext:
    """Make a certificate for a name, and its authority in the file ``ca.crt``."""
    now = datetime.now(UTC)
    authority = issue_authority("receivers", now=now)
    leaf = issue_leaf(authority, LeafProfile(name, dns_names=(name,), server=True), now=now, life=timedelta(days=1))
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tls.crt").write_bytes(leaf.certificate)
    (folder / "tls.key").write_bytes(leaf.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


async def test_tls_is_checked_against_the_receivers_name(sender: HttpSender, tmp_path: Path) -> None:
    with receiving(server(tmp_path, "localhost")) as server_:
        url = server_.at("/x?y=1", host="localhost", scheme="https")
        known = Receiver(url, Path("unused"), authority=tmp_path / "ca.crt")
        assert await sender.send(known, {"webhook-id": "evt_1"}, b"{}") == 200
        [arrived] = server_.arrived
        assert (arrived.path, arrived.body, arrived.headers["webhook-id"]) == ("/x?y=1", b"{}", "evt_1")
        assert arrived.headers["host"] == f"localhost:{server_.port}"
        with pytest.raises(UnavailableError):
            await sender.send(Receiver(url, Path("unused")), {}, b"{}")
        with pytest.raises(InvalidInputError):
            await sender.send(Receiver(url, Path("unused"), authority=tmp_path / "missing"), {}, b"{}")
    with receiving(server(tmp_path, "other.example.com")) as server_:
        url = server_.at("/", host="localhost", scheme="https")
        with pytest.raises(UnavailableError):
            await sender.send(Receiver(url, Path("unused"), authority=tmp_path / "ca.crt"), {}, b"{}")
        assert server_.arrived == []


async def test_silence_and_closed_doors(sender: HttpSender) -> None:
    with receiving() as server_:
        with pytest.raises(ForbiddenError):
            await sender.send(Receiver(server_.at("/"), Path("unused")), {}, b"{}")
        server_.silent.add("/silent")
        impatient = HttpSender(timeout_seconds=0.2, local=["localhost"])
        with pytest.raises(UnavailableError, match=r"no answer within 0\.2 s"):
            await impatient.send(Receiver(server_.at("/silent", host="localhost"), Path("unused")), {}, b"{}")
        impatient.close()
        gone = server_.at("/", host="localhost")
    with pytest.raises(UnavailableError, match="ConnectError"):
        await sender.send(Receiver(gone, Path("unused")), {}, b"{}")


class Kept:
    """Audit records in memory; writing them fails as often as told."""

    def __init__(self) -> None:
        self.entries_: list[AuditEntry] = []
        self.failures = 0
        self.added, self.purged = asyncio.Event(), asyncio.Event()

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is on fire")
        self.entries_ += entries
        self.added.set()

    async def entries(
        self, project: str, span: Span, *, before: str = "", limit: int
    ) -> tuple[Sequence[AuditEntry], str]:
        raise NotImplementedError

    async def purge(self, *, before: datetime, limit: int) -> int:
        old = [entry for entry in self.entries_ if entry.at < before][:limit]
        self.entries_ = [entry for entry in self.entries_ if entry not in old]
        self.purged.set()
        return len(old)


class Sampled:
    """Rules by which all pulls are written down, one in seven, or none."""

    def rules(self, project: str) -> ProjectRules:
        return ProjectRules(audit_pulls={"all": 1, "some": 7}.get(project, 0))


def journal(kept: Kept, clock: VirtualClock) -> Journal:
    chance = random.Random(1)  # noqa: S311 - chance, no secret
    return Journal(kept, Sampled(), keep=timedelta(days=1), clock=clock, chance=chance)


async def test_what_cannot_be_written_waits_and_what_has_no_room_is_counted() -> None:
    kept, clock = Kept(), VirtualClock(NOW)
    journal_ = journal(kept, clock)
    for number in range(MOST_WAITING + 3):
        journal_.pulled("shop/web", f"t{number}", "sha256:aa", by=("bob", "192.0.2.7"), weight=1)
    assert "d2hub_audit_lost_total 3" in journal_.lines()
    kept.failures = 1
    with pytest.raises(OSError, match="on fire"):
        await journal_.flush()
    assert f"d2hub_audit_waiting {MOST_WAITING}" in journal_.lines()
    await asyncio.gather(journal_.flush(), journal_.flush())
    assert [entry.reference for entry in kept.entries_] == [f"t{number}" for number in range(MOST_WAITING)]
    assert "d2hub_audit_waiting 0" in journal_.lines()


async def test_it_writes_and_purges_by_itself_and_ends_between_writes() -> None:
    kept, clock = Kept(), VirtualClock(NOW)
    kept.failures = 2
    kept.entries_ = [AuditEntry(NOW - timedelta(days=turn), Happening.PUSH, "a/b", "", "", "") for turn in range(3)]
    journal_ = journal(kept, clock)
    journal_.refused(Happening.PUSH, "shop/web", "v1", "", by=("bob", "192.0.2.7"), result="forbidden")
    running = asyncio.ensure_future(journal_.run())
    async with asyncio.timeout(60):
        await kept.added.wait()
        await kept.purged.wait()
    assert [entry.result for entry in kept.entries_] == ["done", "forbidden"]
    journal_.refused(Happening.PUSH, "shop/web", "v2", "", by=("bob", "192.0.2.7"), result="forbidden")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await journal_.end()
    assert [entry.reference for entry in kept.entries_] == ["", "v1", "v2"]
    kept.failures = 1
    journal_.refused(Happening.PUSH, "shop/web", "v3", "", by=("bob", "192.0.2.7"), result="forbidden")
    await journal_.end()


def test_what_a_pull_stands_for() -> None:
    journal_ = journal(Kept(), VirtualClock(NOW))
    assert {journal_.weight("all/web") for _ in range(10)} == {1}
    assert {journal_.weight("none/web") for _ in range(10)} == {0}
    assert {journal_.weight("some/web") for _ in range(1000)} == {0, 7}
