"""Showing results: data on standard output in the form that was asked for, talk on standard error."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from yaml.representer import SafeRepresenter

from haneul.kernel.documents import Dumper
from haneul.kernel.errors import HaneulError
from haneul.kernel.plain_text import plain


class Format(StrEnum):
    """How to show results."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    CSV = "csv"


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, what stands in it, and whether only wide tables have it."""

    heading: str
    value: Callable[[Any], str]
    wide: bool = False


class _Dumper(Dumper):
    """Writes mappings of whatever class: answers of the platform are of their own."""


_Dumper.add_multi_representer(dict, SafeRepresenter.represent_dict)


def show(
    items: Sequence[Any], columns: Sequence[Column], form: Format, *, single: bool = False, headings: bool = True
) -> None:
    """Print items; ``single`` prints one item by itself in JSON and YAML. The first column is the name.

    CSV has every column, the wide ones too (RFC 4180, with lines that end as they do here). Without ``headings``, a
    table or CSV goes on where an earlier one ended.
    """
    match form:
        case Format.JSON:
            print(json.dumps(items[0] if single else list(items), indent=2))  # noqa: T201 - data goes to standard output
        case Format.YAML:
            text = yaml.dump(items[0] if single else list(items), Dumper=_Dumper, sort_keys=False)
            print(text, end="")  # noqa: T201 - as above
        case Format.NAME:
            for item in items:
                print(columns[0].value(item))  # noqa: T201 - as above
        case Format.CSV:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            if headings:
                writer.writerow([column.heading for column in columns])
            writer.writerows([column.value(item) for column in columns] for item in items)
        case _:
            _table(items, [column for column in columns if form is Format.WIDE or not column.wide], headings)


def _table(items: Sequence[Any], columns: Sequence[Column], headed: bool) -> None:
    # What tenants and issuers wrote must not tell the terminal what to do.
    rows = [[plain(column.value(item)) for column in columns] for item in items]
    headings = [column.heading for column in columns]
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(columns))]
    for row in [headings, *rows] if headed else rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())  # noqa: T201 - data goes to standard output


def say(text: str) -> None:
    """Tell the person something that is not the result."""
    print(text, file=sys.stderr)  # noqa: T201 - talk goes to standard error


def say_error(error: HaneulError) -> None:
    """Tell what went wrong: code and title, what happened, and the next step."""
    say(f"error[{error.code}]: {error.title}")
    for line in error.detail.splitlines():
        say(f"  {plain(line)}")
    if error.hint:
        say(f"  hint: {error.hint}")


def in_utc(moment: str) -> str:
    """Return an ISO 8601 moment to the second, in UTC."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def age(moment: str, now: datetime | None = None) -> str:
    """Return how long ago an ISO 8601 moment was, in one or two units."""
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * 2:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"
