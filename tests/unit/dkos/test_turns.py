"""Whose turn it is to start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.turns import LONGEST_TURN, Turns


def nothing() -> None:
    """Nobody is woken."""


def ask(turns: Turns, uid: str, now: float = 0.0, at_once: int = 2) -> int:
    return turns.ask(uid, at_once=at_once, now=now, wake=nothing)


def test_first_come_first_served() -> None:
    turns = Turns()
    assert [ask(turns, uid) for uid in "abcd"] == [0, 0, 2, 3]
    turns.done("a")
    # Who asks first does not matter now; who came first does.
    assert ask(turns, "d") == 2
    assert ask(turns, "c") == 0
    assert ask(turns, "d") == 2


def test_a_turn_is_kept_until_it_is_given_back() -> None:
    turns = Turns()
    assert ask(turns, "a", at_once=1) == 0
    assert ask(turns, "a", at_once=1) == 0
    assert ask(turns, "b", at_once=1) == 1
    turns.done("a")
    turns.done("a")
    assert ask(turns, "b", at_once=1) == 0


def test_who_does_not_come_up_keeps_nobody_for_ever() -> None:
    turns = Turns()
    assert ask(turns, "stuck", now=0, at_once=1) == 0
    assert ask(turns, "next", now=LONGEST_TURN - 1, at_once=1) == 1
    assert ask(turns, "next", now=LONGEST_TURN, at_once=1) == 0


def test_who_gives_up_waiting_leaves_the_queue() -> None:
    turns = Turns()
    assert [ask(turns, uid, at_once=1) for uid in "abc"] == [0, 1, 2]
    turns.done("b")
    assert ask(turns, "c", at_once=1) == 1


def test_those_who_wait_are_woken_when_a_turn_is_given_back() -> None:
    turns = Turns()
    woken: list[str] = []
    turns.ask("a", at_once=1, now=0, wake=lambda: woken.append("a"))
    turns.ask("b", at_once=1, now=0, wake=lambda: woken.append("b"))
    assert woken == []
    turns.done("a")
    assert woken == ["b"]


def test_who_wakes_waits_only_for_others_that_wake() -> None:
    turns = Turns()

    def wakes(uid: str) -> int:
        return turns.ask(uid, at_once=1, now=0, wake=nothing, from_sleep=True)

    assert [ask(turns, uid, at_once=1) for uid in "ab"] == [0, 1]
    assert [wakes(uid) for uid in "xyz"] == [0, 1, 2]
    # New ones wait for those too.
    assert ask(turns, "b", at_once=1) == 4
    turns.done("x")
    turns.done("a")
    assert [wakes("y"), wakes("z"), ask(turns, "b", at_once=1)] == [0, 1, 2]
    for uid in "yz":
        turns.done(uid)
    assert ask(turns, "b", at_once=1) == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.floats(0, 5)), max_size=60), st.integers(1, 3))
def test_never_more_start_at_once_than_may_and_nobody_waits_for_nobody(
    steps: list[tuple[str, bool, float]], at_once: int
) -> None:
    turns, now, started = Turns(), 0.0, dict[str, float]()
    for uid, asks, seconds in steps:
        now += seconds
        started = {other: since for other, since in started.items() if now - since < LONGEST_TURN}
        if asks:
            before = turns.ask(uid, at_once=at_once, now=now, wake=nothing)
            if before == 0:
                started.setdefault(uid, now)
            else:
                assert before >= at_once
        else:
            turns.done(uid)
            started.pop(uid, None)
        assert len(started) <= at_once
