"""Names of files that come first are names of files."""

from __future__ import annotations

from tests.functional.conftest import LONGEST, TESTS


def test_the_files_that_come_first_are_there_and_named_once() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)
