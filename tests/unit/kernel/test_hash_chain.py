"""Chains of records: whatever is changed, left out, put in, moved or cut off is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.kernel.hash_chain import GENESIS, Anchor, Verdict, canonical, chained, record_hash, verify

VALUES = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.none(), st.integers(0, 2**53))
RECORDS = st.dictionaries(st.sampled_from(["who", "what", "zone", "Moment", "a"]), VALUES)


def chain(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    last = Anchor(0, GENESIS)
    for entry in entries:
        made.append(chained(entry, last))
        last = Anchor(made[-1]["id"], made[-1]["hash"])
    return made


def test_canonical_json_is_that_of_rfc_8785() -> None:
    record = {"literal": '€$\u000f\nA\'B"\\\\"/', "b": True, "a": None, "n": 10}
    assert canonical(record) == '{"a":null,"b":true,"literal":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/","n":10}'.encode()


def test_the_hash_is_one_that_other_tools_compute() -> None:
    [record] = chain([{"who": "alice"}])
    text = json.dumps({"id": 1, "previous": "0" * 64, "who": "alice"}, separators=(",", ":"))
    assert record["hash"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("value", [1.5, [], {}, b""])
def test_what_has_no_one_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical({"a": value})


@given(st.lists(RECORDS))
def test_a_chain_as_it_was_made_is_good(entries: list[dict[str, Any]]) -> None:
    made = chain(entries)
    anchors = [Anchor(record["id"], record["hash"]) for record in made]
    last = anchors[-1] if anchors else Anchor(0, GENESIS)
    assert verify(made, anchors=anchors) == Verdict(last)


@given(st.lists(RECORDS, min_size=1), st.data())
def test_the_first_bad_record_is_named(entries: list[dict[str, Any]], data: st.DataObject) -> None:
    made = chain(entries)
    index = data.draw(st.integers(0, len(made) - 1))
    name = data.draw(st.sampled_from([*made[index], "new"]))
    value = data.draw(VALUES.filter(lambda value: name not in made[index] or not same(made[index][name], value)))
    changed = [*made[:index], {**made[index], name: value}, *made[index + 1 :]]
    verdict = verify(changed)
    assert verdict.last.id == index and str(index + 1) in verdict.fault


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@given(st.lists(RECORDS, min_size=2), st.data())
def test_what_was_left_out_or_moved_is_noticed(entries: list[dict[str, Any]], data: st.DataObject) -> None:
    made = chain(entries)
    index = data.draw(st.integers(0, len(made) - 2))
    without = [*made[:index], *made[index + 1 :]]
    moved = [*made[:index], made[index + 1], made[index], *made[index + 2 :]]
    assert verify(without).last.id == verify(moved).last.id == index
    assert verify(without).fault and verify(moved).fault


def test_a_replaced_record_breaks_its_successor() -> None:
    made = chain([{"who": "alice"}, {"who": "bob"}, {"who": "eve"}])
    made[1] = {**made[1], "who": "nobody"}
    made[1]["hash"] = record_hash(made[1])
    verdict = verify(made)
    assert verdict.last.id == 2 and "record 3 does not follow" in verdict.fault


def test_an_anchor_shows_what_the_chain_alone_cannot() -> None:
    made = chain([{"who": name} for name in ("alice", "bob", "eve")])
    anchor = Anchor(3, made[2]["hash"])
    assert verify(made[:2]).fault == ""
    assert "after 2 are missing" in verify(made[:2], anchors=[anchor]).fault
    anew = chain([{"who": name} for name in ("alice", "bob", "mallory")])
    assert verify(anew).fault == ""
    assert "written anew" in verify(anew, anchors=[anchor]).fault
