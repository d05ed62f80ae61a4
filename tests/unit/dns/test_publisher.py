"""Publishing in batches: what is remembered, what is done again, and when a receipt is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from haneul.dns.adapters.memory import MemoryDns
from haneul.dns.metrics import Figures
from haneul.dns.model import Acknowledgement, Change, ClusterDomain, Key, RecordSet, ZoneChangedError, ZoneState
from haneul.dns.publisher import Publisher
from haneul.dns.receipts import CONFLICT
from haneul.dns.wanted import Wanted
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import SERVICES
from haneul.kernel.kube_objects import Place
from tests.unit.dns.objects import service

ZONE, OWNER = "zone.", "first/1"


class Server(MemoryDns):
    """A server that counts, and lets a test act before a batch is done."""

    def __init__(self) -> None:
        super().__init__(ZONE)
        self.reads = 0
        self.batches: list[int] = []
        self.before: Callable[[], None] = lambda: None

    async def read(self, zone: str) -> ZoneState:
        self.reads += 1
        return await super().read(zone)

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        self.before()
        word = await super().apply(zone, owner, changes)
        self.batches.append(len(changes))
        return word


class Work:
    def __init__(self, batch: int = 200) -> None:
        self.clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.server = Server()
        self.wanted = Wanted(ClusterDomain.of("first", "zone"))
        self.figures = Figures()
        self.publisher = Publisher(self.server, OWNER, self.wanted, clock=self.clock, batch=batch, figures=self.figures)

    def see(self, name: str, address: str) -> None:
        self.wanted.see(SERVICES, service(name, address, ports=[]), self.clock.monotonic())

    async def address(self, name: str) -> tuple[str, ...]:
        there = (await MemoryDns.read(self.server, ZONE)).sets.get(Key(f"{name}.shop.svc.first.zone.", "A"))
        return there.records.values if there else ()


WEB = Place("Service", "shop", "web")


async def test_a_change_costs_one_batch_and_no_look_at_the_zone() -> None:
    work = Work()
    await work.publisher.publish()
    reads, before = work.server.reads, len(work.server.batches)
    work.see("web", "10.0.0.1")
    await work.publisher.publish()
    # The one look is that of the server in memory into itself.
    assert (work.server.reads - reads, work.server.batches[before:]) == (1, [1])


async def test_the_receipt_says_how_long_it_took() -> None:
    work = Work()
    await work.publisher.publish()
    work.see("web", "10.0.0.1")
    work.clock.advance(0.25)
    receipt = (await work.publisher.publish())[WEB]
    assert (receipt.status, "after 0.25 s" in receipt.message) == (True, True)
    again = (await work.publisher.resync())[WEB]
    assert (again.news, "there already" in again.message) == (False, True)


async def test_after_a_failure_the_zone_is_read_and_only_the_rest_is_written() -> None:
    work = Work(batch=2)
    await work.publisher.publish()
    for number in range(6):
        work.see(f"web-{number}", f"10.0.0.{number}")

    def fail_at_third() -> None:
        if len(work.server.batches) == 3:
            raise UnavailableError("gone")

    work.server.before = fail_at_third
    with pytest.raises(UnavailableError) as caught:
        await work.publisher.publish()
    assert len(work.publisher.held_up(caught.value)) == 6
    work.server.before = lambda: None
    work.clock.advance(3.0)
    receipts = await work.publisher.publish()
    assert work.server.batches == [1, 2, 2, 2]
    assert all("after 3.00 s" in receipt.message for receipt in receipts.values())
    assert len(receipts) == 6


async def test_a_service_that_changes_while_it_is_written_gets_no_receipt_for_what_is_not() -> None:
    work = Work()
    await work.publisher.publish()
    work.see("web", "10.0.0.1")
    work.server.before = lambda: work.see("web", "10.0.0.2")
    assert await work.publisher.publish() == {}
    assert await work.address("web") == ("10.0.0.1",)
    work.server.before = lambda: None
    assert (await work.publisher.publish())[WEB].status
    assert await work.address("web") == ("10.0.0.2",)


async def test_figures_say_what_waits_and_how_long_it_took() -> None:
    work = Work()
    await work.publisher.publish()
    written = work.figures.written
    work.see("web", "10.0.0.1")
    began = work.clock.monotonic()

    def fail() -> None:
        raise UnavailableError("gone")

    work.server.before = fail
    with pytest.raises(UnavailableError) as caught:
        await work.publisher.publish()
    work.publisher.held_up(caught.value)
    # Its own name and that of its address.
    assert (work.figures.pending, work.figures.pending_since) == (2, began)
    assert dict(work.figures.failures) == {UnavailableError.code: 1}
    work.server.before = lambda: None
    work.clock.advance(3.0)
    before = work.figures.waited
    await work.publisher.publish()
    assert (work.figures.written - written, work.figures.waited - before) == (1, 3.0)
    assert (work.figures.pending, work.figures.pending_since) == (0, None)


async def test_a_name_that_another_owner_has_is_a_conflict_also_when_it_is_wanted_later() -> None:
    work = Work()
    taken = RecordSet("web.shop.svc.first.zone.", "A", 5, ("10.9.9.9",))
    await work.server.apply(ZONE, "second/2", [Change(None, taken)])
    await work.publisher.publish()
    work.see("web", "10.0.0.1")
    # What others have at names that nobody wants is not remembered, so the server is the one to say it.
    with pytest.raises(ZoneChangedError):
        await work.publisher.publish()
    receipt = (await work.publisher.publish())[WEB]
    assert (receipt.status, receipt.reason) == (False, CONFLICT)
    assert work.figures.conflicts == 1
    assert await work.address("web") == ("10.9.9.9",)
