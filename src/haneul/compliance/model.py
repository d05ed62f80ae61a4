"""What a check against the benchmark says: items, verdicts, findings, reports. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.compliance.snapshot import Kind, Snapshot

#: The release of the benchmark whose numbers are used; they differ between releases.
BENCHMARK: Final = "CIS Kubernetes Benchmark v1.11"


class Result(StrEnum):
    """How an item came out."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    #: A program cannot tell; a person must look at what the verdict names.
    WARN = "warn"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Verdict:
    """How one item came out on one snapshot, and what was seen."""

    result: Result
    seen: str


@dataclass(frozen=True)
class Probe:
    """How an item is checked, in words and as a pure function."""

    how: str
    judge: Callable[[Snapshot], Verdict]


@dataclass(frozen=True)
class Item:
    """One item of the benchmark, in our own words. A text instead of a probe says why it does not apply."""

    id: str
    title: str
    mend: str
    probes: dict[Kind, Probe | str] = field(hash=False)


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Outcome(_Model):
    """An item's result as it is kept: what the table knows by itself is left out."""

    id: str
    result: Result
    seen: str


class Look(_Model):
    """All outcomes of one examination; ``asked`` is the request that it answers."""

    asked: str
    examined: AwareDatetime
    outcomes: tuple[Outcome, ...]


class Finding(_Model):
    """One item with its result."""

    id: str = Field(description="The item's number.")
    title: str = Field(description="What it asks for.")
    result: Result = Field(description="`pass`, `fail`, `warn` or `not applicable`.")
    seen: str = Field(description="What was seen; of an item that does not apply, why.")
    how: str = Field(description="How it was checked.")
    mend: str = Field(description="What to do if it does not pass.")
    reason: str = Field(default="", description="Why it is known not to be mended, if it fails; nothing otherwise.")


class Report(_Model):
    """What was found of one cluster."""

    benchmark: str = BENCHMARK
    subject: str = Field(description="The cluster.")
    asked: str = Field(default="", description="The request that this answers.")
    examined: AwareDatetime = Field(description="When it was looked at.")
    items: tuple[Finding, ...]
