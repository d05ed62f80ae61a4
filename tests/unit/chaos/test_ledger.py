"""The arithmetic of questions and answers."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.chaos.ledger import INTERVAL, Answer, Ledger, outages


def ledger(*answers: tuple[float, bool]) -> Ledger:
    made = Ledger("one")
    for asked, good in answers:
        made.note(asked, good=good)
    return made


def test_a_gap_lasts_from_the_first_failure_to_the_next_good_answer() -> None:
    tally = ledger((0, True), (1, False), (2, False), (5, True), (6, False), (7, True)).tally()
    assert (tally.asked, tally.failed, tally.outages, tally.longest_gap) == (6, 3, 2, 4)


def test_a_gap_without_an_end_lasts_to_the_last_question() -> None:
    assert ledger((0, True), (1, False), (3, False)).tally().longest_gap == 2 + INTERVAL


def test_one_failure_alone_is_a_gap_of_one_question() -> None:
    assert ledger((0, True), (INTERVAL, False), (2 * INTERVAL, True)).tally().longest_gap == pytest.approx(INTERVAL)


def test_answers_count_when_they_were_asked_for_not_when_they_came() -> None:
    """A question that waits for its deadline is known to have failed after later ones were answered."""
    made = Ledger("one")
    made.note(0.0, good=True, seconds=0.01)
    made.note(0.1, good=True, seconds=0.01)
    made.note(0.05, good=False, seconds=2)
    tally = made.tally()
    assert tally.longest_gap == pytest.approx(0.05)
    assert tally.slowest == 0.01
    assert made.unbroken_since() == 0.1


def test_a_tally_is_of_its_stretch_of_time_only() -> None:
    made = ledger((0, False), (1, True), (2, False), (3, True))
    assert made.tally(1, 2).failed == 0
    assert made.tally(2).failed == 1
    assert made.tally(5).asked == 0
    assert made.tally(5).longest_gap == 0


def test_nothing_is_unbroken_before_the_first_answer_and_after_a_failure() -> None:
    assert Ledger("one").unbroken_since() == inf
    assert ledger((0, True), (1, True)).unbroken_since() == 0
    assert ledger((0, True), (1, False)).unbroken_since() == inf
    assert ledger((0, True), (1, False), (2, True), (3, True)).unbroken_since() == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.floats(0, 2)), max_size=60))
def test_whatever_the_order_of_arrival_the_tally_is_the_same(questions: list[tuple[float, bool, float]]) -> None:
    in_order, as_they_came = Ledger("one"), Ledger("one")
    for asked, good, seconds in sorted(questions):
        in_order.note(asked, good=good, seconds=seconds)
    for asked, good, seconds in sorted(questions, key=lambda one: one[0] + one[2]):
        as_they_came.note(asked, good=good, seconds=seconds)
    assert in_order.tally() == as_they_came.tally()
    tally = in_order.tally()
    assert tally.failed <= tally.asked
    assert (
        (tally.longest_gap > 0) == (tally.outages > 0)
        or tally.failed == 0
        or len({q[0] for q in questions}) < len(questions)
    )


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_gaps_never_add_up_to_more_than_the_time(good: list[bool]) -> None:
    answers = [Answer(index * INTERVAL, one, 0.0) for index, one in enumerate(good)]
    assert sum(outages(answers)) <= len(good) * INTERVAL + 1e-9


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=60))
def test_unbroken_since_is_the_first_question_after_the_last_failure(answers: list[tuple[bool, float]]) -> None:
    made = Ledger("one")
    questions = [(index * INTERVAL, good, seconds) for index, (good, seconds) in enumerate(answers)]
    for asked, good, seconds in sorted(questions, key=lambda one: one[0] + one[2]):
        made.note(asked, good=good, seconds=seconds)
    last = max((asked for asked, good, _ in questions if not good), default=-inf)
    assert made.unbroken_since() == min((asked for asked, _, _ in questions if asked > last), default=inf)
