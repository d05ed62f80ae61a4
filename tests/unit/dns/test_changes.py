"""What has to change, by the table of cases, and what holds whatever is there."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from haneul.dns.adapters.memory import MemoryDns
from haneul.dns.changes import Plan, batches, plan
from haneul.dns.model import Change, Key, Present, RecordSet

OURS, OTHERS = "first/1", "second/2"


def a(name: str = "web.", value: str = "10.0.0.1", ttl: int = 5) -> RecordSet:
    return RecordSet(name, "A", ttl, (value,))


def alias(name: str = "web.", target: str = "www.example.com.") -> RecordSet:
    return RecordSet(name, "CNAME", 5, (target,))


def decided(wanted: list[RecordSet], present: list[Present]) -> Plan:
    return plan({one.key: one for one in wanted}, {one.records.key: one for one in present}, OURS)


def test_what_is_ours_and_not_wanted_goes() -> None:
    assert decided([], [Present(a(), OURS)]).changes == (Change(a(), None),)


def test_what_is_not_ours_stays() -> None:
    assert decided([], [Present(a(), OTHERS), Present(a("by-hand."))]) == Plan()


def test_what_is_not_there_comes() -> None:
    assert decided([a()], []).changes == (Change(None, a()),)


def test_what_is_as_wanted_costs_nothing() -> None:
    assert decided([a()], [Present(a(), OURS)]) == Plan()


def test_what_differs_is_replaced() -> None:
    for there in (a(value="10.0.0.2"), a(ttl=60)):
        assert decided([a()], [Present(there, OURS)]).changes == (Change(there, a()),)


def test_what_another_has_is_a_conflict_that_says_whose() -> None:
    found = decided([a()], [Present(a(value="10.0.0.9"), OTHERS)])
    assert found.changes == ()
    assert [(one.key, one.owner) for one in found.conflicts] == [(a().key, OTHERS)]
    assert OTHERS in str(found.conflicts[0])


def test_what_nobody_marked_is_a_conflict_even_if_it_says_the_same() -> None:
    found = decided([a()], [Present(a())])
    assert (found.changes, [one.owner for one in found.conflicts]) == ((), [""])


def test_other_types_at_the_name_are_no_conflict() -> None:
    assert decided([a()], [Present(RecordSet("web.", "MX", 5, ("10 mail.",)))]).changes == (Change(None, a()),)


def test_an_alias_is_alone_at_its_name() -> None:
    assert len(decided([alias()], [Present(RecordSet("web.", "MX", 5, ("10 mail.",)))]).conflicts) == 1
    assert len(decided([a()], [Present(alias(), OTHERS)]).conflicts) == 1


def test_ours_that_makes_room_goes_first() -> None:
    assert decided([alias()], [Present(a(), OURS)]).changes == (Change(a(), None), Change(None, alias()))
    assert decided([a()], [Present(alias(), OURS)]).changes == (Change(alias(), None), Change(None, a()))


def test_batches_hold_names_together_and_are_bounded() -> None:
    changes = [Change(None, a(f"n{number}.")) for number in range(10)]
    changes[4:5] = [Change(a("n4."), None), Change(None, alias("n4."))]
    found = batches(changes, 3)
    assert [change for batch in found for change in batch] == changes
    assert all(sum(change.size for change in batch) <= 3 for batch in found)
    assert sum(any(change.key.name == "n4." for change in batch) for batch in found) == 1


def test_a_name_that_is_larger_than_a_batch_goes_alone() -> None:
    large = RecordSet("n1.", "A", 5, tuple(f"10.0.0.{number}" for number in range(9)))
    assert batches([Change(None, a("n0.")), Change(None, large), Change(None, a("n2."))], 3) == [
        [Change(None, a("n0."))],
        [Change(None, large)],
        [Change(None, a("n2."))],
    ]


NAMES = st.sampled_from([f"{name}.zone." for name in ("a", "b", "c", "d")])
SETS = st.builds(
    lambda name, kind, values, ttl: RecordSet(name, kind, ttl, tuple(sorted(values))),
    NAMES,
    st.sampled_from(["A", "AAAA", "CNAME", "TXT"]),
    st.sets(st.sampled_from(["1", "2", "3"]), min_size=1),
    st.sampled_from([5, 60]),
)


def alone(sets: list[RecordSet]) -> dict[Key, RecordSet]:
    """Return sets of which no alias has company."""
    found = {one.key: one for one in sets}
    crowded = {name for name, kind in ((key.name, key.type) for key in found) if kind == "CNAME"}
    return {key: one for key, one in found.items() if key.type == "CNAME" or key.name not in crowded}


@given(st.lists(SETS), st.lists(SETS), st.lists(st.sampled_from([OURS, OTHERS, ""]), min_size=30, max_size=30))
def test_a_plan_can_be_done_touches_only_ours_and_leaves_nothing_to_do(
    wanted: list[RecordSet], there: list[RecordSet], owners: list[str]
) -> None:
    asyncio.run(_holds(alone(wanted), alone(there), owners))


async def _holds(wanted: dict[Key, RecordSet], there: dict[Key, RecordSet], owners: list[str]) -> None:
    server = MemoryDns("zone")
    for number, records in enumerate(there.values()):
        owner = owners[number % len(owners)]
        if owner:
            await server.apply("zone.", owner, [Change(None, records)])
        else:
            server.put("zone.", records)
    before = (await server.read("zone.")).sets
    first = plan(wanted, before, OURS)
    for batch in batches(first.changes, 2):
        await server.apply("zone.", OURS, batch)
    after = (await server.read("zone.")).sets
    assert {key: one for key, one in after.items() if one.owner != OURS} == {
        key: one for key, one in before.items() if one.owner != OURS
    }
    refused = {conflict.key for conflict in first.conflicts}
    ours = {key: one.records for key, one in after.items() if one.owner == OURS}
    assert {key: one for key, one in wanted.items() if key not in refused}.items() <= ours.items()
    # Ours that a conflict keeps from becoming another stays as it was; everything else is exactly what is wanted.
    assert ours.keys() <= wanted.keys()
    again = plan(wanted, after, OURS)
    assert again.changes == ()
    assert again.conflicts == first.conflicts
