"""What a run leaves: tables, every raw figure, drawings; and the catalogue for the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.chart import BarChart, Series, draw_bars
from haneul.bench.report import Report, Table
from haneul.chaos.faults import CATALOGUE, Asked, Fault
from haneul.chaos.ledger import Tally
from haneul.chaos.outcome import Outcome
from haneul.chaos.verdicts import RoundResult, broken_in_all, broken_promises

NAME: Final = "chaos"
_COLUMNS: Final = ("what is broken", "back after", "who noticed: failed questions, longest gap", "promise", "verdict")
_DRAWN: Final = 12


def report(outcome: Outcome, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run."""
    tables = [_rounds_table(outcome.results), _whole_table(outcome), _written_table(outcome)]
    measured = {
        "complete": outcome.complete,
        "rounds": [_as_json(result) for result in outcome.results],
        "wholeRun": {asked.value: asdict(tally) for asked, tally in outcome.whole_time.items()},
        "missedQuestions": outcome.missed,
        "written": {name: asdict(one) for name, one in outcome.written.items()},
        "clearedAtStart": outcome.cleared,
        "leftOver": outcome.left,
        "broken": broken_in_all(outcome.results, outcome.written, outcome.left),
    }
    return Report(NAME, at, machine, tuple(tables), measured)


def drawings(outcome: Outcome) -> dict[str, str]:
    """Return SVG documents by name: the longest recoveries, and the longest outage that anybody saw in them."""
    recovered = [(one, one.recovered) for one in outcome.results if one.recovered is not None]
    longest = sorted(recovered, key=lambda pair: -pair[1])[:_DRAWN]
    if not longest:
        return {}
    series = (
        Series("all as before", tuple(seconds for _, seconds in longest)),
        Series("longest gap of anybody", tuple(_longest_gap(result) for result, _ in longest)),
    )
    groups = tuple(str(number) for number in range(1, len(longest) + 1))
    names = {group: result.round.name for group, (result, _) in zip(groups, longest, strict=True)}
    title = "The slowest recoveries: " + ", ".join(f"{group} {name}" for group, name in list(names.items())[:3])
    return {"chaos-recovery": draw_bars(BarChart(title, "seconds", groups, series))}


def catalogue_markdown() -> str:
    """Return the table of all faults and promises, as the page shows it."""
    head = [
        "| fault | what happens | lasts | who may notice, at most | all as before within |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(_catalogue_row(fault) for fault in CATALOGUE)]) + "\n"


def _catalogue_row(fault: Fault) -> str:
    lasts = f"{fault.hold:g} s" if fault.hold else "-"
    may = "; ".join(f"{asked} {seconds:g} s" for asked, seconds in fault.allowed.items()) or "nobody"
    return f"| `{fault.name}` | {fault.title} | {lasts} | {may} | {fault.recovery:g} s |"


def _rounds_table(results: list[RoundResult]) -> Table:
    rows = tuple(
        (
            result.round.name,
            "never" if result.recovered is None else f"{result.recovered:.1f} s",
            _noticed(result.tallies),
            f"< {result.round.recovery:g} s",
            "kept" if not broken_promises(result) else "NOT kept",
        )
        for result in results
    )
    note = (
        "Back after: from the moment of the fault, or from its end if it is one that lasts, until everything answered "
        "again without a gap and every part said that it is as it should be. Addresses that are not named answered "
        "every question."
    )
    return Table("Faults", _COLUMNS, rows, note, ("chaos-recovery",) if rows else ())


def _noticed(tallies: Mapping[Asked, Tally]) -> str:
    words = [
        f"{asked} {tally.failed} of {tally.asked}, {tally.longest_gap:.2f} s"
        for asked, tally in tallies.items()
        if tally.failed
    ]
    return "; ".join(words) or "nobody"


def _whole_table(outcome: Outcome) -> Table:
    rows = tuple(
        (
            asked.value,
            str(tally.asked),
            str(tally.failed),
            str(tally.outages),
            f"{tally.longest_gap:.2f} s",
            f"{tally.slowest:.2f} s",
        )
        for asked, tally in outcome.whole_time.items()
    )
    columns = ("asked twenty times a second", "questions", "failed", "outages", "longest gap", "slowest good answer")
    note = (
        f"Over the whole run. {outcome.missed} questions were not asked, because whoever asks had no processor when "
        "they were due."
    )
    return Table("The outage ledger", columns, rows, note)


def _written_table(outcome: Outcome) -> Table:
    rows = tuple(
        (name, str(one.tried), str(one.acknowledged), str(len(one.lost))) for name, one in outcome.written.items()
    )
    note = f"Left over after the run: {', '.join(outcome.left) or 'nothing'}."
    return Table("Nothing acknowledged is lost", ("cluster", "tried", "acknowledged", "lost"), rows, note)


def _longest_gap(result: RoundResult) -> float:
    return max((tally.longest_gap for tally in result.tallies.values()), default=0.0)


def _as_json(result: RoundResult) -> dict[str, object]:
    return {
        "faults": [fault.name for fault in result.round.faults],
        "heldSeconds": result.round.hold,
        "backAfterSeconds": result.recovered,
        "promisedSeconds": result.round.recovery,
        "allowedGaps": {asked.value: seconds for asked, seconds in result.round.allowed.items()},
        "asked": {asked.value: asdict(tally) for asked, tally in result.tallies.items()},
        "broken": broken_promises(result),
    }
