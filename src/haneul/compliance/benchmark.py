"""All items, and what they say of a snapshot. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from haneul.compliance import configuration, control_plane, etcd, policies, workers
from haneul.compliance.accepted import ACCEPTED
from haneul.compliance.model import Finding, Item, Outcome, Result, Verdict
from haneul.compliance.snapshot import Kind, NotSeenError, Snapshot

ITEMS: Final[tuple[Item, ...]] = (
    *control_plane.ITEMS,
    *etcd.ITEMS,
    *configuration.ITEMS,
    *workers.ITEMS,
    *policies.ITEMS,
)
#: What the sections are about, and how many items each has.
SECTIONS: Final = {
    "1.1": ("Files of the masters' hosts", 21),
    "1.2": ("API server", 30),
    "1.3": ("Controller manager", 7),
    "1.4": ("Scheduler", 2),
    "2": ("etcd", 7),
    "3.1": ("Authentication", 3),
    "3.2": ("Audit log", 2),
    "4.1": ("Files of nodes", 10),
    "4.2": ("Kubelet", 15),
    "4.3": ("kube-proxy", 1),
    "5.1": ("Rights and service accounts", 13),
    "5.2": ("Pod security", 13),
    "5.3": ("Network policies", 2),
    "5.4": ("Secrets", 2),
    "5.5": ("Admission of images", 1),
    "5.6": ("Policies in general", 4),
}
#: Characters of what was seen that are kept of one item.
_LONGEST: Final = 400


def evaluate(snapshot: Snapshot) -> tuple[Outcome, ...]:
    """Return how each item came out; what a check needs and nobody could gather is for a person to look at."""
    return tuple(_outcome(item, snapshot) for item in ITEMS)


def findings(kind: Kind, outcomes: Iterable[Outcome]) -> tuple[Finding, ...]:
    """Return outcomes with what the table knows of their items; an item that has none was not looked at."""
    by_id = {outcome.id: outcome for outcome in outcomes}
    return tuple(_finding(kind, item, by_id.get(item.id)) for item in ITEMS)


def unexplained(found: Iterable[Finding]) -> list[Finding]:
    """Return the items that fail without a known reason."""
    return [finding for finding in found if finding.result is Result.FAIL and not finding.reason]


def section_of(number: str) -> str:
    """Return the section of an item."""
    parts: Sequence[str] = number.split(".")
    return parts[0] if parts[0] == "2" else ".".join(parts[:2])


def _outcome(item: Item, snapshot: Snapshot) -> Outcome:
    probe = item.probes[snapshot.kind]
    if isinstance(probe, str):
        return Outcome(id=item.id, result=Result.NOT_APPLICABLE, seen=probe)
    try:
        verdict = probe.judge(snapshot)
    except NotSeenError as error:
        verdict = Verdict(Result.WARN, str(error))
    seen = verdict.seen if len(verdict.seen) <= _LONGEST else verdict.seen[: _LONGEST - 1] + "…"
    return Outcome(id=item.id, result=verdict.result, seen=seen)


def _finding(kind: Kind, item: Item, outcome: Outcome | None) -> Finding:
    probe = item.probes[kind]
    result = outcome.result if outcome else Result.WARN
    reason = ACCEPTED.get((kind, item.id), "") if result is Result.FAIL else ""
    return Finding(
        id=item.id,
        title=item.title,
        result=result,
        seen=outcome.seen if outcome else "it was not looked at; check again",
        how="" if isinstance(probe, str) else probe.how,
        mend=item.mend,
        reason=reason,
    )
