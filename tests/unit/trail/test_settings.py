"""The file of the trail is read whole or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.kernel.errors import InvalidInputError
from haneul.trail.policy import parse_policy
from haneul.trail.settings import read_trail_settings


def test_little_has_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text("store: records\nbytesPerDay: 4194304\n")
    told = read_trail_settings(tmp_path / "audit.yaml")
    assert told.store == tmp_path / "records"
    assert told.reserved == 1 << 20
    assert told.policy == parse_policy(told.keep)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keep: all", "store"),
        ("store: a\nbucket: b", "store"),
        ("store: a\nkeep: everything", "errors"),
        ("store: a\nbytesPerDay: 2000000\nreservedBytes: 3000000", "reservedBytes"),
        ("store: a\nmask: {expressions: ['(']}", "regular expression"),
        ("store: a\nnovelty: 1", "novelty"),
        ("[]", "mapping"),
        ("a: b: c", "YAML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "audit.yaml").write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        read_trail_settings(tmp_path / "audit.yaml")
    assert said in caught.value.detail


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        read_trail_settings(tmp_path / "audit.yaml")
