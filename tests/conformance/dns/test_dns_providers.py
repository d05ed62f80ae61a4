"""What every DNS server does: the behaviour suite of the port DnsProvider, with real servers and the one in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from haneul.dns.adapters.memory import MemoryDns
from haneul.dns.model import Change, Key, Present, RecordSet, RecordsRefusedError, ZoneChangedError
from haneul.dns.ports import DnsProvider
from haneul.kernel.errors import ForbiddenError, NotFoundError, UnavailableError
from tests.dns_servers import NEGATIVE_TTL, REVERSE, SERVERS, WRONG, ZONE, ZONES, Bind, Server, running

OURS, OTHERS = "first/0c5e7a0e", "second/9b8f3c52"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", *SERVERS])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server | None]:
    if request.param == "memory":
        yield None
        return
    folder: Path = tmp_path_factory.mktemp(request.param)
    async with running(request.param, folder) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(server: Server | None) -> AsyncIterator[DnsProvider]:
    made = server.provider() if server else MemoryDns(*ZONES)
    yield made
    await made.close()


_NUMBERS = itertools.count()


class Domain:
    """A part of the zone that is one test's own."""

    def __init__(self, provider: DnsProvider, server: Server | None) -> None:
        self.provider, self.server = provider, server
        self.name = f"d{next(_NUMBERS)}.{ZONE}"

    def a(self, name: str = "web", *values: str, ttl: int = 5) -> RecordSet:
        return RecordSet(f"{name}.{self.name}", "A", ttl, values or ("10.0.0.1",))

    def alias(self, name: str = "web", target: str = "www.example.com.") -> RecordSet:
        return RecordSet(f"{name}.{self.name}", "CNAME", 5, (target,))

    async def create(self, *sets: RecordSet, owner: str = OURS) -> None:
        await self.change(*[Change(None, records) for records in sets], owner=owner)

    async def change(self, *changes: Change, owner: str = OURS) -> int:
        word = await self.provider.apply(ZONE, owner, changes)
        assert (word.zone, word.server) == (ZONE, self.provider.server)
        return word.serial

    async def there(self) -> dict[Key, Present]:
        sets = (await self.provider.read(ZONE)).sets
        return {key: one for key, one in sets.items() if key.name.endswith(f".{self.name}")}

    async def holds(self, *sets: RecordSet, owner: str = OURS) -> None:
        """Assert that exactly these sets are there, and that the server answers so."""
        assert await self.there() == {one.key: Present(one, owner) for one in sets}
        for records in sets if self.server else ():
            assert self.server
            assert (await self.server.ask(records.key)).values == records.values

    async def by_hand(self, records: RecordSet, *, gone: bool = False) -> None:
        if self.server:
            await self.server.by_hand(records, gone=gone)
            return
        assert isinstance(self.provider, MemoryDns)
        if gone:
            await self.provider.apply(ZONE, OURS, [Change(records, None)])
        else:
            self.provider.put(ZONE, records)


@pytest.fixture
def domain(provider: DnsProvider, server: Server | None) -> Domain:
    return Domain(provider, server)


async def test_it_says_its_zones_and_what_resolvers_are_told(provider: DnsProvider) -> None:
    assert sorted(provider.zones) == sorted(ZONES)
    state = await provider.read(ZONE)
    assert (state.zone, state.negative_ttl) == (ZONE, NEGATIVE_TTL)
    assert provider.server


async def test_what_is_created_is_there_and_answered(domain: Domain) -> None:
    sets = [
        domain.a("web", "10.0.0.1", "10.0.0.2"),
        RecordSet(f"web.{domain.name}", "AAAA", 7, ("fd00::1",)),
        RecordSet(f"_http._tcp.web.{domain.name}", "SRV", 5, (f"0 100 80 web.{domain.name}",)),
        RecordSet(f"dns-version.{domain.name}", "TXT", 5, ('"1.1.0"',)),
        domain.alias("www"),
    ]
    await domain.create(*sets)
    await domain.holds(*sets)


async def test_pointers_are_in_the_zone_of_addresses(provider: DnsProvider, domain: Domain) -> None:
    pointer = RecordSet(f"{next(_NUMBERS)}.0.0.{REVERSE}", "PTR", 5, (f"a.{domain.name}", f"b.{domain.name}"))
    await provider.apply(REVERSE, OURS, [Change(None, pointer)])
    assert (await provider.read(REVERSE)).sets[pointer.key] == Present(pointer, OURS)


async def test_changes_and_removals(domain: Domain) -> None:
    await domain.create(domain.a("web"), domain.a("old"), domain.a("stays"))
    changed = domain.a("web", "10.0.0.9", ttl=60)
    await domain.change(Change(domain.a("web"), changed), Change(domain.a("old"), None))
    await domain.holds(changed, domain.a("stays"))


async def test_the_serial_of_the_word_is_the_zones_and_grows(domain: Domain) -> None:
    before = (await domain.provider.read(ZONE)).serial
    first = await domain.change(Change(None, domain.a()))
    second = await domain.change(Change(domain.a(), None))
    assert before < first < second == (await domain.provider.read(ZONE)).serial


async def test_an_address_becomes_an_alias_and_an_address_again(domain: Domain) -> None:
    await domain.create(domain.a())
    await domain.change(Change(domain.a(), None), Change(None, domain.alias()))
    await domain.holds(domain.alias())
    await domain.change(Change(domain.alias(), None), Change(None, domain.a()))
    await domain.holds(domain.a())


async def test_a_batch_is_done_whole_or_not_at_all(domain: Domain) -> None:
    await domain.create(domain.a("one"), domain.a("two"))
    wrong = Change(domain.a("two", "10.9.9.9"), domain.a("two", "10.0.0.3"))
    with pytest.raises(ZoneChangedError):
        await domain.change(Change(domain.a("one"), None), Change(None, domain.a("three")), wrong)
    await domain.holds(domain.a("one"), domain.a("two"))


async def test_nothing_is_written_over_what_is_there_already(domain: Domain) -> None:
    await domain.create(domain.a(), owner=OTHERS)
    await domain.by_hand(domain.a("by-hand"))
    for name in ("web", "by-hand"):
        with pytest.raises(ZoneChangedError):
            await domain.create(domain.a(name, "10.0.0.7"))
    found = await domain.there()
    assert found == {
        domain.a().key: Present(domain.a(), OTHERS),
        domain.a("by-hand").key: Present(domain.a("by-hand"), ""),
    }


async def test_what_another_or_nobody_owns_is_neither_changed_nor_taken_away(domain: Domain) -> None:
    await domain.create(domain.a(), owner=OTHERS)
    await domain.by_hand(domain.a("by-hand"))
    for records in (domain.a(), domain.a("by-hand")):
        for after in (None, RecordSet(records.name, "A", 5, ("10.0.0.7",))):
            with pytest.raises(ZoneChangedError):
                await domain.change(Change(records, after))
    assert {one.owner for one in (await domain.there()).values()} == {OTHERS, ""}


async def test_an_alias_is_never_put_beside_what_is_there(domain: Domain) -> None:
    await domain.by_hand(domain.a("one"))
    await domain.by_hand(domain.alias("two"))
    with pytest.raises(ZoneChangedError):
        await domain.create(domain.alias("one"))
    with pytest.raises(ZoneChangedError):
        await domain.create(domain.a("two"))
    assert len(await domain.there()) == 2


async def test_owners_have_sets_beside_each_other(domain: Domain) -> None:
    six = RecordSet(f"web.{domain.name}", "AAAA", 5, ("fd00::1",))
    await domain.create(domain.a())
    await domain.create(six, owner=OTHERS)
    assert await domain.there() == {domain.a().key: Present(domain.a(), OURS), six.key: Present(six, OTHERS)}
    await domain.change(Change(six, None), owner=OTHERS)
    await domain.holds(domain.a())


async def test_what_somebody_took_away_by_hand_can_be_created_again(domain: Domain) -> None:
    await domain.create(domain.a())
    await domain.by_hand(domain.a(), gone=True)
    assert await domain.there() == {}
    await domain.create(domain.a("web", "10.0.0.2"))
    await domain.holds(domain.a("web", "10.0.0.2"))


async def test_what_somebody_changed_by_hand_is_seen_and_not_overwritten_unseen(domain: Domain) -> None:
    await domain.create(domain.a())
    other = domain.a("web", "10.0.0.3")
    await domain.by_hand(other)
    with pytest.raises(ZoneChangedError):
        await domain.change(Change(domain.a(), None))
    assert (await domain.there())[other.key].records == other


async def test_of_two_who_create_the_same_name_one_does(domain: Domain) -> None:
    done = await asyncio.gather(
        domain.create(domain.a("web", "10.0.0.1")),
        domain.create(domain.a("web", "10.0.0.2"), owner=OTHERS),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in done) == ["NoneType", "ZoneChangedError"]
    winner = OURS if done[0] is None else OTHERS
    assert [one.owner for one in (await domain.there()).values()] == [winner]


async def test_hundreds_of_records_at_once(domain: Domain) -> None:
    many = [domain.a(f"n{number}", f"10.0.{number // 250}.{number % 250}") for number in range(300)]
    await domain.create(*many)
    assert await domain.there() == {one.key: Present(one, OURS) for one in many}
    large = domain.a("large", *sorted(f"10.1.0.{number}" for number in range(100)))
    await domain.change(*[Change(one, None) for one in many], Change(None, large))
    assert await domain.there() == {large.key: Present(large, OURS)}


async def test_names_outside_the_zone_are_refused_for_good(domain: Domain) -> None:
    outside = RecordSet("web.elsewhere.example.", "A", 5, ("10.0.0.1",))
    with pytest.raises(RecordsRefusedError):
        await domain.create(domain.a(), outside)
    assert await domain.there() == {}


async def test_a_set_that_is_too_large_for_a_server_is_refused_for_good(domain: Domain) -> None:
    if not isinstance(domain.server, Bind):
        pytest.skip("the others take sets of any size")
    large = domain.a("large", *sorted(f"10.1.0.{number}" for number in range(101)))
    with pytest.raises(RecordsRefusedError):
        await domain.create(domain.a(), large)
    assert await domain.there() == {}


async def test_a_zone_that_is_not_there(provider: DnsProvider) -> None:
    with pytest.raises(NotFoundError):
        await provider.read("nowhere.example.")


async def test_a_wrong_key_is_told_from_a_server_that_is_away(server: Server | None) -> None:
    if server is None:
        pytest.skip("memory has no key and is never away")
    stranger = server.provider(secret=WRONG)
    records = RecordSet(f"stranger.{ZONE}", "A", 5, ("10.0.0.1",))
    try:
        with pytest.raises(ForbiddenError):
            await stranger.read(ZONE)
        with pytest.raises(ForbiddenError):
            await stranger.apply(ZONE, OURS, [Change(None, records)])
    finally:
        await stranger.close()


async def test_a_server_that_is_away_and_comes_back_has_everything(
    provider: DnsProvider, server: Server | None, domain: Domain
) -> None:
    if server is None:
        pytest.skip("memory is never away")
    await domain.create(domain.a())
    await server.end()
    with pytest.raises(UnavailableError):
        await provider.read(ZONE)
    with pytest.raises(UnavailableError):
        await domain.change(Change(domain.a(), None))
    await server.start()
    await domain.holds(domain.a())
    await domain.change(Change(domain.a(), None))
    assert await domain.there() == {}
