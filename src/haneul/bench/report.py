"""What a benchmark leaves: tables for people, in a terminal and in Markdown, and JSON for programs. Pure.

Every report carries the machine that it was measured on: a figure without its machine says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table. Each row has as many cells as there are columns; ``note`` says below it how to read it.

    ``figures`` name the drawings that show the same, without folder and ending.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    figures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"the row {row} of {self.title!r} does not fit the columns {self.columns}")


@dataclass(frozen=True)
class Report:
    """One run of one benchmark. ``measured`` is every raw figure, made of what JSON knows."""

    name: str
    at: datetime
    machine: Mapping[str, str]
    tables: tuple[Table, ...]
    measured: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """Return the name of the report's files without ending."""
        return f"{self.name}-{self.at:%Y-%m-%d-%H%M%S}"


def as_text(report: Report) -> str:
    """Return the report for a terminal."""
    parts = [f"{report.name}, {report.at:%Y-%m-%d %H:%M} UTC", _facts_as_text(report.machine)]
    parts += [_table_as_text(table) for table in report.tables]
    return "\n\n".join(parts) + "\n"


def as_json(report: Report) -> str:
    """Return the report for programs: the machine, the tables as they were shown, and every raw figure."""
    tables = [
        {"title": table.title, "columns": table.columns, "rows": table.rows, "note": table.note}
        for table in report.tables
    ]
    document = {
        "bench": report.name,
        "at": report.at.isoformat(timespec="seconds"),
        "machine": dict(report.machine),
        "tables": tables,
        "measured": dict(report.measured),
    }
    return json.dumps(document, indent=2) + "\n"


def as_markdown(report: Report, *, figures: str) -> str:
    """Return the report as sections of a page; ``figures`` is the folder of the drawings, relative to the page."""
    facts = " · ".join(f"{name}: {value}" for name, value in report.machine.items())
    parts = [f"Measured on {report.at:%Y-%m-%d} at {report.at:%H:%M} UTC. {facts}."]
    for table in report.tables:
        parts.append(f"### {table.title}")
        parts += [f"![{table.title}]({figures}/{figure}.svg)" for figure in table.figures]
        parts.append("\n".join(_markdown_rows(table)))
        if table.note:
            parts.append(table.note)
    return "\n\n".join(parts) + "\n"


def replace_section(page: str, name: str, section: str) -> str:
    """Return ``page`` with what stands between the marks of ``name`` replaced by ``section``.

    The marks are comments, ``<!-- name: begin -->`` and ``<!-- name: end -->``. Raises ValueError without them.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no part between {begin!r} and {end!r}")
    return f"{before}{begin}\n\n{section}\n{end}{after}"


def _facts_as_text(machine: Mapping[str, str]) -> str:
    width = max((len(name) for name in machine), default=0)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in machine.items())


def _table_as_text(table: Table) -> str:
    widths = [max(len(row[index]) for row in (table.columns, *table.rows)) for index in range(len(table.columns))]
    lines = [table.title]
    for row in (table.columns, *table.rows):
        # The first column names things; all others are mostly figures, which stand better at the right.
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    if table.note:
        lines.append(f"  {table.note}")
    return "\n".join(lines)


def _markdown_rows(table: Table) -> list[str]:
    head = [_markdown_row(table.columns), "| --- |" + " ---: |" * (len(table.columns) - 1)]
    return head + [_markdown_row(row) for row in table.rows]


def _markdown_row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
