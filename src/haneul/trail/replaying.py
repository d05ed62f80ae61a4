"""Recorded requests sent once more, with and without a proposed exclusion, and what it would have let through. Pure.

Both runs send the same masked requests to the same rules, so that what differs is the exclusion's. What a mask hides,
neither run sees: rules that matched then and match in neither run are counted, as they cannot be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haneul.trail.model import Record
from haneul.trail.ports import Firewall, Verdict
from haneul.trail.rules import REFUSING


@dataclass(frozen=True)
class Silenced:
    """A rule that no longer matches: in how many requests, of how many in which it matches without the exclusion."""

    rule: str
    message: str
    silenced: int
    matching: int


@dataclass(frozen=True)
class Replay:
    """What came of it; ``let_through`` are requests that would be refused without the exclusion, and not with it."""

    replayed: int
    unanswered: int
    silenced: tuple[Silenced, ...]
    let_through: tuple[Record, ...]
    #: Rules that matched when the request came and match now in neither run, with how many requests.
    hidden: tuple[tuple[str, int], ...]


async def replay(firewall: Firewall, records: Sequence[Record], before: str, proposed: str) -> Replay:
    """Return what rules proposed in place of those of before would change. Raises what the firewall raises."""
    return compared(records, await firewall.verdicts(records, before), await firewall.verdicts(records, proposed))


def compared(records: Sequence[Record], before: Sequence[Verdict | None], after: Sequence[Verdict | None]) -> Replay:
    """Return what two runs over the same records differ in."""
    matching: dict[str, int] = {}
    silenced: dict[str, int] = {}
    hidden: dict[str, int] = {}
    messages: dict[str, str] = {}
    let_through = []
    unanswered = 0
    for record, first, second in zip(records, before, after, strict=True):
        if first is None or second is None:
            unanswered += 1
            continue
        messages |= first.messages
        for rule in first.rules:
            matching[rule] = matching.get(rule, 0) + 1
        for rule in first.rules - second.rules:
            silenced[rule] = silenced.get(rule, 0) + 1
        for rule in set(record.rules) - first.rules - second.rules:
            hidden[rule] = hidden.get(rule, 0) + 1
        if REFUSING in first.rules and REFUSING not in second.rules:
            let_through.append(record)
    rows = tuple(
        Silenced(rule, messages.get(rule, ""), count, matching[rule]) for rule, count in sorted(silenced.items())
    )
    return Replay(len(records) - unanswered, unanswered, rows, tuple(let_through), tuple(sorted(hidden.items())))
