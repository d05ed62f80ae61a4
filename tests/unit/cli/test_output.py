"""What a terminal is shown of what others wrote."""

from __future__ import annotations

import json

import pytest

from haneul.cli.output import Column, Format, say_error, show
from haneul.kernel.errors import UnavailableError

COLUMNS = (Column("NAME", lambda row: row["name"]), Column("MESSAGE", lambda row: row["message"]))
ROW = {"name": "web", "message": "ü\x1b[2J\rno\x9b"}


@pytest.mark.parametrize("form", [Format.TABLE, Format.WIDE])
def test_a_table_tells_the_terminal_nothing(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW, {"name": "longer", "message": "yes"}], COLUMNS, form)
    shown = capsys.readouterr().out
    assert shown == "NAME    MESSAGE\nweb     ü\\u001b[2J\\rno\\u009b\nlonger  yes\n"


def test_data_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW], COLUMNS, Format.JSON)
    assert json.loads(capsys.readouterr().out) == [ROW]


def test_an_error_tells_the_terminal_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(UnavailableError("first\nthe issuer says \x1b[2J"))
    assert "  first\n  the issuer says \\u001b[2J\n" in capsys.readouterr().err
