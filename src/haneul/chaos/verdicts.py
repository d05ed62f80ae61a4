"""Whether what was measured keeps what was promised. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from haneul.chaos.faults import Asked
from haneul.chaos.ledger import Tally
from haneul.chaos.plan import Round
from haneul.chaos.writing import Written


@dataclass(frozen=True)
class RoundResult:
    """One round: what was asked and answered from its first moment until all was whole again.

    ``recovered`` is how many seconds after the end of the faults all was as before; None if it never was.
    """

    round: Round
    recovered: float | None
    tallies: Mapping[Asked, Tally]
    trouble: str = ""


def broken_promises(result: RoundResult) -> list[str]:
    """Return what did not hold in a round, in words for people; nothing if every promise was kept."""
    broken = []
    for asked, tally in result.tallies.items():
        limit = result.round.allowed.get(asked, 0.0)
        if tally.asked == 0:
            broken.append(f"{asked} was not asked")
        elif limit == 0 and tally.failed:
            broken.append(f"{asked}: {tally.failed} of {tally.asked} failed, none may")
        elif tally.longest_gap > limit:
            broken.append(f"{asked}: silent for {tally.longest_gap:.1f} s, at most {limit:g} s may be")
    if result.recovered is None:
        broken.append(f"not as before: {result.trouble}")
    elif result.recovered > result.round.recovery:
        broken.append(f"as before only after {result.recovered:.1f} s, not {result.round.recovery:g} s")
    return broken


def broken_in_all(results: list[RoundResult], written: Mapping[str, Written], left: list[str]) -> list[str]:
    """Return what did not hold in a whole run."""
    broken = [f"{result.round.name}: {words}" for result in results for words in broken_promises(result)]
    for cluster, one in written.items():
        if one.lost:
            broken.append(f"{cluster}: {len(one.lost)} acknowledged writes are lost")
        if one.acknowledged == 0:
            broken.append(f"{cluster}: nothing could be written")
    return broken + [f"left over: {thing}" for thing in left]
