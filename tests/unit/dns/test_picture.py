"""What is known of a zone, found by name."""

from __future__ import annotations

from haneul.dns.model import Change, Key, Present, RecordSet
from haneul.dns.picture import Picture

WEB = RecordSet("web.zone.", "A", 5, ("10.0.0.1",))
SIX = RecordSet("web.zone.", "AAAA", 5, ("fd00::1",))
OLD = RecordSet("old.zone.", "A", 5, ("10.0.0.2",))


def test_it_has_what_it_was_given_and_what_was_done_since() -> None:
    picture = Picture({WEB.key: Present(WEB, "first"), OLD.key: Present(OLD, "second")})
    assert picture.at(["web.zone.", "nobody.zone."]) == {WEB.key: Present(WEB, "first")}
    moved = RecordSet("web.zone.", "A", 5, ("10.0.0.9",))
    picture.take("first", [Change(WEB, moved), Change(None, SIX), Change(OLD, None)])
    assert picture.sets() == {moved.key: Present(moved, "first"), SIX.key: Present(SIX, "first")}
    assert picture.get(OLD.key) is None
    assert picture.get(Key("web.zone.", "AAAA")) == Present(SIX, "first")
    picture.take("first", [Change(moved, None), Change(SIX, None)])
    assert picture.sets() == {}


def test_what_it_was_made_of_is_not_changed_with_it() -> None:
    sets = {WEB.key: Present(WEB, "first")}
    picture = Picture(sets)
    given = picture.at(["web.zone."])
    picture.take("first", [Change(WEB, None)])
    assert sets == given == {WEB.key: Present(WEB, "first")}
