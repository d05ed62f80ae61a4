"""How many addresses and listeners a project's Services get, and what nobody loses."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from haneul.balancer.allocation import TAKEN, Refusal, Request, allocate
from haneul.balancer.decisions import View, decide
from haneul.balancer.model import Frontend, Listener, Part, Pool, Present, Protocol, Slot, parse_range
from haneul.balancer.room import QUOTA, Limits, Room, Use, Wish, use_by_project, use_of_others, without_room
from haneul.kernel.kube import SERVICES
from haneul.kernel.kube_objects import Place
from tests.unit.balancer.objects import POOL, port, service, site

HTTP, HTTPS = Slot(Protocol.TCP, 80), Slot(Protocol.TCP, 443)
OWNER, SIBLING, STRANGER = "shop/web/u1/k1", "shop/api/u2/k2", "team/web/u3/k3"


def request(name: str, *slots: Slot, **more: str) -> Request:
    return Request(name, frozenset(slots or (HTTP,)), **more)  # type: ignore[arg-type]


def given_out(found: dict[str, str | Refusal]) -> dict[str, str]:
    return {name: one if isinstance(one, str) else one.reason for name, one in found.items()}


def served(address: str, number: int = 80, *, name: str = "web", owner: str = OWNER) -> dict[Listener, Present]:
    listener = Listener(address, Protocol.TCP, number)
    return {listener: Present(Frontend(listener, f"shop/{name}"), owner)}


def test_what_is_beyond_the_limit_waits_and_the_oldest_come_first() -> None:
    waiting = [request("c", created="3"), request("b", created="2"), request("a", created="1")]
    found = allocate(waiting, [POOL], frozenset(), room=Room("shop", 3, 1))
    assert given_out(found) == {"a": "192.0.2.10", "b": "192.0.2.11", "c": QUOTA}
    refusal = found["c"]
    assert isinstance(refusal, Refusal)
    assert refusal.message.startswith("shop has 3 of the 3 addresses that it may have; it goes on by itself")
    assert "'haneul project quota set shop --addresses 4'" in refusal.message


def test_a_shared_address_counts_once() -> None:
    sharing = [request("a", HTTP, share="x"), request("b", HTTPS, share="x"), request("c", HTTP, share="y")]
    found = allocate(sharing, [POOL], frozenset(), room=Room("shop", 1, 0))
    assert given_out(found) == {"a": "192.0.2.10", "b": "192.0.2.10", "c": QUOTA}


def test_a_lowered_limit_takes_nothing_back_and_lets_nothing_more_come() -> None:
    requests = [request(name, served=f"192.0.2.{10 + n}", created="9") for n, name in enumerate("abc")]
    found = allocate([*requests, request("older", created="1")], [POOL], frozenset(), room=Room("shop", 1, 5))
    assert given_out(found) == {"a": "192.0.2.10", "b": "192.0.2.11", "c": "192.0.2.12", "older": QUOTA}


def test_who_moves_brings_its_room_along_but_a_status_brings_none() -> None:
    requests = [
        request("moves", served="192.0.2.10", wanted="192.0.2.12", created="9"),
        request("forger", said="192.0.2.11", created="1"),
        request("asks", wanted="192.0.2.13", created="1"),
    ]
    for most in (0, 1):
        found = allocate(requests, [POOL], frozenset(), room=Room("shop", most, 0))
        assert given_out(found) == {"moves": "192.0.2.12", "forger": QUOTA, "asks": QUOTA}


def test_who_shares_and_has_no_room_to_move_stays_and_is_told() -> None:
    beside = request("a", HTTPS, share="x", served="192.0.2.10", created="1")
    for moves in (
        request("b", share="x", served="192.0.2.10", wanted="192.0.2.12", created="2"),
        request("b", share="y", served="192.0.2.10", created="2"),
        request("b", served="192.0.2.10", created="2"),
    ):
        found = allocate([beside, moves], [POOL], frozenset(), room=Room("shop", 1, 0))
        refusal = found["b"]
        assert isinstance(refusal, Refusal) and (refusal.reason, refusal.keeps) == (QUOTA, "192.0.2.10")
        assert "--addresses 2" in refusal.message
        assert found["a"] == "192.0.2.10"
        # With room it moves.
        assert isinstance(allocate([beside, moves], [POOL], frozenset(), room=Room("shop", 2, 0))["b"], str)
    # Also where the older one is who shares no longer.
    older = request("b", share="y", served="192.0.2.10", created="0")
    found = allocate([beside, older], [POOL], frozenset(), room=Room("shop", 1, 0))
    kept = {name: one.keeps if isinstance(one, Refusal) else one for name, one in found.items()}
    assert kept == {"a": "192.0.2.10", "b": "192.0.2.10"}


def test_who_has_no_room_to_move_keeps_its_place_from_those_who_ask_for_it() -> None:
    requests = [
        request("c", served="192.0.2.12", wanted="192.0.2.10", created="1"),
        request("d", HTTP, share="x", served="192.0.2.11", wanted="192.0.2.13", created="2"),
        request("e", HTTPS, share="x", served="192.0.2.11", created="3"),
        request("b", served="192.0.2.10", wanted="192.0.2.14", created="4"),
    ]
    found = allocate(requests, [_BIG], frozenset(), room=Room("shop", 3, 0))
    there = {name: one.keeps if isinstance(one, Refusal) else one for name, one in found.items()}
    assert (there["b"], there["d"], there["e"]) == ("192.0.2.10", "192.0.2.13", "192.0.2.11")


def test_a_status_leads_nobody_to_where_another_is_served() -> None:
    requests = [
        request("forger", served="192.0.2.12", said="192.0.2.10", wanted="192.0.2.10", created="1"),
        request("b", served="192.0.2.10", created="2"),
    ]
    assert given_out(allocate(requests, [POOL], frozenset())) == {"forger": TAKEN, "b": "192.0.2.10"}


def test_who_is_on_standby_does_as_was_told() -> None:
    found = allocate([request("a", said="192.0.2.10")], [POOL], frozenset(), Part.STANDBY, Room("shop", 0, 0))
    assert found == {"a": "192.0.2.10"}


_NAMES = "abcdef"
_BIG = Pool("big", (parse_range("192.0.2.0/26"),))
_PLACES = st.one_of(st.just(""), st.sampled_from([f"192.0.2.{n}" for n in range(8)]))


@given(
    st.lists(st.tuples(_PLACES, _PLACES, _PLACES, st.sampled_from(["", "x", "y"])), max_size=6),
    st.integers(0, 8),
    st.integers(0, 4),
)
def test_there_is_never_more_than_the_limit_or_what_there_was(
    wishes: list[tuple[str, str, str, str]], most: int, others: int
) -> None:
    # Several may be at one address, each with a port of its own, whatever they say now of whom they share with.
    requests = [
        request(name, Slot(Protocol.TCP, 80 + number), served=there, said=said, wanted=wanted, share=share)
        for number, (name, (there, said, wanted, share)) in enumerate(zip(_NAMES, wishes, strict=False))
    ]
    found = allocate(requests, [_BIG], frozenset(), room=Room("shop", most, others))
    there = {name: one.keeps if isinstance(one, Refusal) else one for name, one in found.items()}
    before = {one.served for one in requests if one.served}
    after = {address for address in there.values() if address}
    assert others + len(after) <= max(most, others + len(before))
    for one in requests:
        told = found[one.service]
        if isinstance(told, Refusal):
            # No limit takes away what a Service has, and nothing else is kept.
            assert told.keeps == (one.served if told.reason == QUOTA else "")
        elif one.served and one.wanted in ("", one.served):
            # Nor does anything else, but for one who shared and says now that it does so no longer, or otherwise.
            assert told == one.served or [two.served for two in requests].count(one.served) > 1


def test_of_listeners_nobody_loses_one_and_the_first_get_what_is_left() -> None:
    wishes = [
        Wish("old", frozenset({HTTP, HTTPS}), frozenset({HTTPS})),
        Wish("new", frozenset({HTTP, HTTPS}), frozenset()),
    ]
    assert without_room(wishes, Room("shop", 5, 2))[0] == {"new": {HTTPS}}
    assert without_room(wishes, Room("shop", 0, 9))[0] == {"old": {HTTP}, "new": {HTTP, HTTPS}}
    assert without_room(wishes, None) == ({}, "")


def test_use_is_counted_by_project() -> None:
    present = {
        **served("192.0.2.10"),
        **served("192.0.2.10", 443),
        **served("192.0.2.11", owner=SIBLING),
        **served("192.0.2.12", owner=STRANGER),
    }
    assert use_by_project(present) == {"shop": Use(2, 3), "team": Use(1, 1)}
    assert use_of_others(present, OWNER) == Use(1, 1)


def test_a_service_beyond_the_quota_is_told_what_why_and_what_to_do() -> None:
    ground = replace(site(), limits=Limits("shop", 2, 10))
    present = {**served("192.0.2.10"), **served("192.0.2.11", owner=SIBLING), **served("192.0.2.12", owner=STRANGER)}
    view = View([service("web"), service("more")])
    decision = decide(view, present, OWNER, ground)
    assert {frontend.service for frontend in decision.frontends.values()} == {"shop/web"}
    told = decision.verdicts[Place(SERVICES.kind, "shop", "more")]
    assert (told.balanced, told.reason, told.address) == (False, QUOTA, "")
    assert "shop has 2 of the 2 addresses" in told.message and "--addresses 3" in told.message
    # A place is given back, in another cluster: it goes on with nobody's help.
    given_back = {listener: one for listener, one in present.items() if one.owner != SIBLING}
    assert decide(view, given_back, OWNER, ground).verdicts[Place(SERVICES.kind, "shop", "more")].address


def test_a_service_that_has_no_room_to_move_is_served_where_it_is_and_told() -> None:
    ground = replace(site(), limits=Limits("shop", 1, 10))
    present = {**served("192.0.2.10", name="a"), **served("192.0.2.10", 443, name="b")}
    share = {"share": "x"}
    beside = service("a", annotations=share)
    moves = service("b", ports=[port(443)], annotations={**share, "address": "192.0.2.12"})
    decision = decide(View([beside, moves]), present, OWNER, ground)
    assert set(decision.frontends) == set(present)
    told = decision.verdicts[Place(SERVICES.kind, "shop", "b")]
    assert (told.balanced, told.reason, told.address) == (False, QUOTA, "192.0.2.10")
    assert "192.0.2.10 is served as before" in told.message and "--addresses 2" in told.message


def test_ports_beyond_the_quota_are_named_and_the_others_are_served() -> None:
    ground = replace(site(), limits=Limits("shop", 9, 3))
    present = served("192.0.2.10", 9000)
    ports = [port(number, name=f"p{number}") for number in (80, 443, 9000, 9443)]
    decision = decide(View([service("web", ports=ports), service("more")]), present, OWNER, ground)
    assert sorted(listener.port for listener in decision.frontends) == [80, 443, 9000]
    told = decision.verdicts[Place(SERVICES.kind, "shop", "web")]
    assert (told.balanced, told.reason, told.address) == (False, QUOTA, "192.0.2.10")
    assert told.errors == ((Slot("TCP", 9443), QUOTA),)
    assert "not port 9443/TCP" in told.message and "--listeners 4" in told.message
    none = decision.verdicts[Place(SERVICES.kind, "shop", "more")]
    assert (none.reason, none.address) == (QUOTA, "")
