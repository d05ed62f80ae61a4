"""Reports as text, Markdown and JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from haneul.bench.report import Report, Table, as_json, as_markdown, as_text, replace_section

TABLE = Table(
    "Speed",
    ("step", "median", "p90"),
    (("API answers", "4.10 s", "4.90 s"), ("a|b", "12.00 s", "13.00 s")),
    "How to read it.",
    ("speed",),
)
REPORT = Report("dkos", datetime(2026, 11, 1, 12, 30, tzinfo=UTC), {"cores": "2"}, (TABLE,), {"creations": [1.5]})


def test_text_lines_its_columns_up() -> None:
    assert as_text(REPORT) == (
        "dkos, 2026-11-01 12:30 UTC\n\n"
        "  cores  2\n\n"
        "Speed\n"
        "  step          median      p90\n"
        "  API answers   4.10 s   4.90 s\n"
        "  a|b          12.00 s  13.00 s\n"
        "  How to read it.\n"
    )


def test_markdown_shows_figures_and_escapes_bars() -> None:
    assert as_markdown(REPORT, figures="figures") == (
        "Measured on 2026-11-01 at 12:30 UTC. cores: 2.\n\n"
        "### Speed\n\n"
        "![Speed](figures/speed.svg)\n\n"
        "| step | median | p90 |\n"
        "| --- | ---: | ---: |\n"
        "| API answers | 4.10 s | 4.90 s |\n"
        "| a\\|b | 12.00 s | 13.00 s |\n\n"
        "How to read it.\n"
    )


def test_json_has_machine_tables_and_raw_figures() -> None:
    document = json.loads(as_json(REPORT))
    assert document["bench"] == "dkos"
    assert document["at"] == "2026-11-01T12:30:00+00:00"
    assert document["machine"] == {"cores": "2"}
    assert document["measured"] == {"creations": [1.5]}
    assert document["tables"][0]["rows"][0] == ["API answers", "4.10 s", "4.90 s"]


def test_runs_of_one_day_have_different_files() -> None:
    assert REPORT.stem == "dkos-2026-11-01-123000"


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Table("Speed", ("step", "median"), (("one",),))


def test_only_the_part_between_the_marks_is_replaced() -> None:
    page = "# Title\n<!-- dkos: begin -->\nold\n<!-- dkos: end -->\nmore\n"
    once = replace_section(page, "dkos", "new\n")
    assert once == "# Title\n<!-- dkos: begin -->\n\nnew\n\n<!-- dkos: end -->\nmore\n"
    assert replace_section(once, "dkos", "new\n") == once


@pytest.mark.parametrize("page", ["", "<!-- dkos: begin -->", "<!-- other: begin --><!-- other: end -->"])
def test_a_page_without_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="has no part"):
        replace_section(page, "dkos", "new")
