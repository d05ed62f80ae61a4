"""Which clusters have an audit trail: what all have, and what one has all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.app.audit_switch import AuditSwitch, Switches
from haneul.kernel.errors import InvalidInputError


@pytest.fixture
def switch(tmp_path: Path) -> AuditSwitch:
    return AuditSwitch(tmp_path / "ingress" / "audit.json")


def test_none_has_one_until_somebody_says_so(switch: AuditSwitch) -> None:
    assert switch.read() == Switches()
    assert not switch.read().on("team/shop")


def test_a_cluster_has_its_own_or_what_others_have(switch: AuditSwitch) -> None:
    switch.turn("team/shop", on=True)
    assert (switch.read().on("team/shop"), switch.read().on("team/other")) == (True, False)
    switch.turn_usual(on=True)
    switch.turn("team/shop", on=False)
    assert (switch.read().on("team/shop"), switch.read().on("team/other")) == (False, True)
    switch.turn("team/shop", on=None)
    assert switch.read() == Switches(usual=True)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"all": 1, "clusters": {}}', '{"all": true, "clusters": {"a/b": 0}}']
)
def test_a_spoiled_file_is_said(switch: AuditSwitch, tmp_path: Path, text: str) -> None:
    switch.turn_usual(on=True)
    (tmp_path / "ingress" / "audit.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"audit\.json"):
        switch.read()
