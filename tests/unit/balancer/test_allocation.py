"""Which Service gets which address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haneul.balancer.allocation import NO_POOL, NONE_LEFT, OUTSIDE, TAKEN, Refusal, Request, allocate
from haneul.balancer.model import Part, Pool, Protocol, Slot, parse_range
from tests.unit.balancer.objects import POOL, SIX

HTTP, HTTPS, DNS = Slot(Protocol.TCP, 80), Slot(Protocol.TCP, 443), Slot(Protocol.UDP, 53)


def request(service: str, *slots: Slot, **more: object) -> Request:
    return Request(service, frozenset(slots or (HTTP,)), **more)  # type: ignore[arg-type]


def reason(found: str | Refusal) -> str:
    assert isinstance(found, Refusal)
    return found.reason


def test_the_oldest_get_the_lowest() -> None:
    found = allocate([request("a", created="2"), request("b", created="1")], [POOL], frozenset())
    assert found == {"b": "192.0.2.10", "a": "192.0.2.11"}


def test_what_is_served_is_kept_before_what_a_status_says_and_before_who_is_older() -> None:
    found = allocate(
        [
            request("forger", said="192.0.2.11", created="0"),
            request("served", served="192.0.2.11", said="192.0.2.12", created="9"),
            request("said", said="192.0.2.13", created="5"),
            request("asks", wanted="192.0.2.13", created="1"),
        ],
        [POOL],
        frozenset(),
    )
    assert found["served"] == "192.0.2.11"
    assert found["said"] == "192.0.2.13"
    assert found["forger"] == "192.0.2.10"
    assert reason(found["asks"]) == TAKEN


def test_a_status_that_names_an_address_of_no_pool_or_of_another_cluster_counts_for_nothing() -> None:
    found = allocate(
        [request("outside", said="10.0.0.1"), request("foreign", said="192.0.2.10")], [POOL], {"192.0.2.10"}
    )
    assert found == {"foreign": "192.0.2.11", "outside": "192.0.2.12"}


def test_a_service_moves_when_it_asks_to() -> None:
    assert allocate([request("a", served="192.0.2.10", wanted="192.0.2.12")], [POOL], frozenset()) == {
        "a": "192.0.2.12"
    }


def test_of_machines_that_share_addresses_each_follows_what_the_status_says() -> None:
    requests = [
        request("told", served="192.0.2.10", said="192.0.2.12"),
        request("moves", said="192.0.2.13", wanted="192.0.2.11"),
        request("untold", served="192.0.2.10"),
        request("new"),
    ]
    active = allocate(requests, [POOL], frozenset(), Part.ACTIVE)
    kept = {"told": "192.0.2.12", "untold": "192.0.2.10"}
    assert active == {**kept, "moves": "192.0.2.11", "new": "192.0.2.13"}
    # One on standby gives nothing and moves nobody: the active one has not said so yet.
    assert allocate(requests, [POOL], frozenset(), Part.STANDBY) == {**kept, "moves": "192.0.2.13"}


def test_addresses_that_cannot_be_given() -> None:
    found = allocate(
        [
            request("outside", wanted="198.51.100.1"),
            request("foreign", wanted="192.0.2.10"),
            request("nowhere", pool="other"),
            request("six", version=6),
        ],
        [POOL],
        {"192.0.2.10"},
    )
    assert {name: reason(one) for name, one in found.items()} == {
        "outside": OUTSIDE,
        "foreign": TAKEN,
        "nowhere": NO_POOL,
        "six": NONE_LEFT,
    }
    assert reason(allocate([request("a")], [], frozenset())["a"]) == NO_POOL


def test_when_none_is_left() -> None:
    found = allocate([request(str(number)) for number in range(5)], [POOL], frozenset())
    assert [reason(one) for one in found.values() if isinstance(one, Refusal)] == [NONE_LEFT]


def test_an_address_is_shared_by_those_who_say_the_same_word_and_have_other_ports() -> None:
    found = allocate(
        [
            request("a", HTTP, share="one"),
            request("b", HTTPS, share="one"),
            request("clash", HTTP, share="one", wanted="192.0.2.10"),
            request("other-word", DNS, share="two"),
            request("wants", DNS, wanted="192.0.2.10"),
        ],
        [POOL],
        frozenset(),
    )
    assert found["clash"] == "192.0.2.10"
    assert (found["a"], found["b"]) == ("192.0.2.11", "192.0.2.10")
    assert found["other-word"] == "192.0.2.12"
    assert reason(found["wants"]) == TAKEN


def test_pools_by_name_and_by_family() -> None:
    found = allocate([request("a", version=6), request("b", pool="six", version=6), request("c")], [POOL, SIX], set())
    assert found == {"a": "2001:db8::", "b": "2001:db8::1", "c": "192.0.2.10"}


_REQUESTS = st.lists(
    st.builds(
        Request,
        service=st.sampled_from([f"s{number}" for number in range(8)]),
        slots=st.frozensets(st.sampled_from([HTTP, HTTPS, DNS]), min_size=1),
        created=st.sampled_from(["1", "2"]),
        wanted=st.sampled_from(["", "", "192.0.2.10", "192.0.2.11", "198.51.100.1"]),
        share=st.sampled_from(["", "x", "y"]),
        served=st.sampled_from(["", "", "192.0.2.10", "192.0.2.12"]),
        said=st.sampled_from(["", "192.0.2.10", "192.0.2.13", "10.0.0.1"]),
    ),
    unique_by=lambda one: one.service,
)


@given(_REQUESTS, st.frozensets(st.sampled_from(["192.0.2.10", "192.0.2.11"])))
def test_nobody_has_what_is_anothers_and_deciding_again_changes_nothing(
    requests: list[Request], foreign: frozenset[str]
) -> None:
    found = allocate(requests, [POOL], foreign)
    by_name = {one.service: one for one in requests}
    assert set(found) == set(by_name)
    places: dict[str, list[Request]] = {}
    for name, address in found.items():
        if isinstance(address, str):
            assert address in POOL
            assert address not in foreign
            assert by_name[name].wanted in ("", address)
            places.setdefault(address, []).append(by_name[name])
    for sharers in places.values():
        slots = [slot for one in sharers for slot in one.slots]
        assert len(slots) == len(set(slots))
        assert len(sharers) == 1 or len({one.share for one in sharers}) == 1 != bool(not sharers[0].share)
    assert allocate(reversed(requests), [POOL], foreign) == found
    again = [
        Request(
            one.service,
            one.slots,
            created=one.created,
            wanted=one.wanted,
            share=one.share,
            served=address if isinstance(address := found[one.service], str) else "",
        )
        for one in requests
    ]
    kept = allocate(again, [POOL], foreign)
    assert all(kept[name] == address for name, address in found.items() if isinstance(address, str))


def test_a_pool_of_billions_costs_nothing() -> None:
    huge = Pool("huge", (parse_range("2001:db8::/32"),))
    assert allocate([request("a", version=6)], [huge], frozenset()) == {"a": "2001:db8::"}
