"""For how many new hosts certificates are ordered, and what becomes of hosts that nobody wants any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from haneul.ingress.adapters.certificate_folder import CertificateFolder
from haneul.ingress.issuing import Issuer
from haneul.ingress.new_orders import MOST_NEW, WINDOW, counted, held_up
from haneul.ingress.ports import Begun
from haneul.ingress.renewals import Refusals
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from tests.followed import until
from tests.unit.ingress.objects import HOST, NOW
from tests.unit.ingress.test_renewals import MemoryAuthority, certified, compiled, given, supplying

HOUR = timedelta(hours=1)


def test_new_hosts_wait_while_others_had_all_orders_of_the_window() -> None:
    orders = {f"h{number}.example.com": NOW + timedelta(minutes=number) for number in range(MOST_NEW)}
    now = NOW + timedelta(days=1)
    few = dict(list(orders.items())[1:])
    assert held_up([HOST], [], few, now) == {}
    # Until the first of them counts no more, at a full hour: the second goes on counting for an hour.
    assert held_up([HOST], [], orders, now) == {HOST: NOW + WINDOW}
    more = orders | {"late.example.com": now}
    assert held_up([HOST], [], more, now) == {HOST: NOW + WINDOW + HOUR}
    assert held_up([HOST], [], more, NOW + WINDOW + HOUR - timedelta(seconds=1)) == {HOST: NOW + WINDOW + HOUR}
    assert held_up([HOST], [], more, NOW + WINDOW + HOUR) == {}
    # Neither renewals wait, nor whoever is ordered for again.
    assert held_up([HOST, "h3.example.com"], [HOST], orders, now) == {}


def test_orders_of_a_wrong_clock_do_not_count() -> None:
    orders = {"a": NOW + timedelta(days=3650), "b": NOW - WINDOW, "c": NOW, "d": NOW - WINDOW + HOUR}
    assert counted(orders, NOW) == {name: orders[name] for name in ("c", "d")}


async def test_new_orders_are_counted_before_they_are_placed_and_renewals_never(tmp_path: Path) -> None:
    class Counting(MemoryAuthority):
        async def begin(self, host: str) -> Begun:
            counts.append((host, host in store.orders()))
            return await super().begin(host)

    store, counts = CertificateFolder(tmp_path), list[tuple[str, bool]]()
    now = SystemClock().now()
    store.keep("old.example.com", given("old.example.com", begins=now - timedelta(days=80)))
    fewer = {f"h{number}.example.com": now for number in range(MOST_NEW - 1)}
    store.count(fewer)
    authority = Counting()
    async with supplying(authority, store, "a.example.com", "b.example.com", "old.example.com") as issuer:
        before = issuer.issued["old.example.com"]
        await until(lambda: issuer.issued["old.example.com"] != before, "what there was to be renewed")
        await until(lambda: "b.example.com" in issuer.unissued, "the second new one to be told to wait")
        why = issuer.unissued["b.example.com"]
        assert set(issuer.unissued) == {"b.example.com"}
    assert sorted(counts) == [("a.example.com", True), ("old.example.com", False)]
    assert set(store.orders()) == {*fewer, "a.example.com"}
    # Whoever comes later knows of it, and a host that has its certificate is not in the way.
    later = MemoryAuthority()
    async with supplying(later, store, "a.example.com", "b.example.com") as issuer:
        await until(lambda: "b.example.com" in issuer.unissued, "it to be told again")
        assert issuer.unissued["b.example.com"] == why
    assert later.begun == []
    [problem] = compiled(certified(), unissued={HOST: why}).problems
    assert "hosts of this cluster had all 100 new certificates of 7 days; more are given from" in problem.message
    assert problem.message.endswith("; wait, it goes on by itself; hosts that have a certificate keep it")


async def test_an_order_that_cannot_be_counted_is_not_placed(tmp_path: Path) -> None:
    class Full(CertificateFolder):
        def count(self, orders: object) -> None:
            raise UnavailableError("no space left")

    authority = MemoryAuthority()
    async with supplying(authority, Full(tmp_path), HOST) as issuer:
        await until(lambda: issuer.unissued == {HOST: "no space left"}, "it to be told")
    assert authority.begun == []


async def test_a_host_that_went_waits_on_when_it_comes_back(tmp_path: Path) -> None:
    store = CertificateFolder(tmp_path)
    now = SystemClock().now()
    went, forgotten = Refusals(9, now - HOUR, "no"), Refusals(9, now - WINDOW - HOUR, "no")
    store.remember({"went.example.com": went, "forgotten.example.com": forgotten})
    async with supplying(MemoryAuthority(), store, HOST) as issuer:
        await until(lambda: HOST in issuer.issued, "the host to be supplied")
        await until(lambda: set(issuer.unissued) == {"went.example.com"}, "the older refusal to be forgotten")
    assert store.refusals() == {"went.example.com": went}


def test_hosts_are_forgotten_once_they_were_unwanted_for_long_enough(tmp_path: Path) -> None:
    store = CertificateFolder(tmp_path)
    kept, gone = given(HOST), given("gone.example.com")
    store.keep(HOST, kept)
    store.keep("gone.example.com", gone)
    store.ordered("begun.example.com", "an order")
    (tmp_path / "certificates" / "broken.json").write_text("{")
    late = NOW + WINDOW + timedelta(seconds=1)
    assert store.tidy({HOST}, NOW, WINDOW) == set()
    assert store.tidy({HOST}, NOW + WINDOW, WINDOW) == set()
    assert store.certificates() == {HOST: kept, "gone.example.com": gone}
    assert store.order("begun.example.com") == "an order"
    # What is wanted again begins anew, and so does what a clock from the future noted.
    assert store.tidy({HOST, "gone.example.com"}, late, WINDOW) == {"begun.example.com"}
    assert store.tidy({HOST}, late + WINDOW, WINDOW) == set()
    assert store.tidy({HOST}, late, WINDOW) == set()
    assert store.tidy({HOST}, late + WINDOW, WINDOW) == set()
    assert store.tidy({HOST}, late + WINDOW + HOUR, WINDOW) == {"gone.example.com"}
    assert {file.name for file in (tmp_path / "certificates").iterdir()} == {f"{HOST}.json", "broken.json"}
    assert store.certificates() == {HOST: kept}


async def test_hosts_that_went_are_forgotten_once_it_was_said_which_there_are(tmp_path: Path) -> None:
    store, now = CertificateFolder(tmp_path), SystemClock().now()
    for host in (HOST, "gone.example.com"):
        store.keep(host, given(host, begins=now))
    # Nobody wanted either for a long time; one is wanted now.
    store.tidy((), now - WINDOW - HOUR, WINDOW)
    issuer = Issuer(MemoryAuthority(), store, SystemClock())
    working = asyncio.ensure_future(issuer.run())
    try:
        # It comes to its wait, having heard of none.
        await asyncio.sleep(0)
        assert set(store.certificates()) == {HOST, "gone.example.com"}
        issuer.serves([HOST], ())
        await until(lambda: set(issuer.issued) == {HOST}, "what went to be forgotten")
        assert set(store.certificates()) == {HOST}
    finally:
        working.cancel()
        await asyncio.wait([working])
