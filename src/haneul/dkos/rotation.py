"""When a cluster's authorities are replaced, and what is trusted and used for signing at each step. Pure.

Old and new live side by side for a while, so that whoever is one step behind or ahead is still understood. Two rules
make it so: something new is trusted everywhere before it signs anything, and something old is distrusted only after
nothing that it signed is in use. :data:`USES` is the whole plan; tests hold every pair of neighbouring rows against
the two rules. What was reached is kept with the authorities themselves, so that any process can go on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final

#: Authorities that end sooner than this are replaced: a year to get it done, whatever is broken meanwhile.
ROTATE_BEFORE: Final = timedelta(days=365)


class Step(StrEnum):
    """How far a replacement has come, in this order; after the last step comes the first again."""

    STEADY = "steady"
    SPREAD = "spread"
    SIGN = "sign"
    NODES = "nodes"
    ISSUE = "issue"
    WITHDRAW = "withdraw"


class Age(Enum):
    """One of the two sets of authorities and keys that exist during a replacement."""

    OLD = "old"
    NEW = "new"


@dataclass(frozen=True)
class Use:
    """What which set is used for at one step. Of several service account keys or encryption keys the first writes."""

    #: Whose certificates masters, nodes' files and people's kubeconfigs trust.
    trusted: tuple[Age, ...]
    #: Who signs the masters' certificates.
    masters: Age
    #: Who signs what is asked for: certificates of nodes and people, the operator's own.
    requests: Age
    #: The set from which machines are made; a machine of another set is replaced.
    machines: Age
    #: Keys that sign and verify service account tokens.
    tokens: tuple[Age, ...]
    #: Keys that encrypt and decrypt secrets at rest.
    secrets: tuple[Age, ...]


_OLD, _NEW = (Age.OLD,), (Age.NEW,)
_OLD_FIRST, _NEW_FIRST = (Age.OLD, Age.NEW), (Age.NEW, Age.OLD)

USES: Final[Mapping[Step, Use]] = MappingProxyType(
    {
        Step.STEADY: Use(_OLD, Age.OLD, Age.OLD, Age.OLD, _OLD, _OLD),
        # Masters and pods get to know the new ones; everything is still signed by the old ones.
        Step.SPREAD: Use(_OLD_FIRST, Age.OLD, Age.OLD, Age.OLD, _OLD_FIRST, _OLD_FIRST),
        # What is asked for from now on comes from the new ones.
        Step.SIGN: Use(_OLD_FIRST, Age.OLD, Age.NEW, Age.OLD, _NEW_FIRST, _NEW_FIRST),
        # Every node is made anew: it then trusts both, and its certificates and its pods' tokens are new.
        Step.NODES: Use(_OLD_FIRST, Age.OLD, Age.NEW, Age.NEW, _NEW_FIRST, _NEW_FIRST),
        # Nobody is left who would not know them, so masters present new certificates; secrets are written anew.
        Step.ISSUE: Use(_OLD_FIRST, Age.NEW, Age.NEW, Age.NEW, _NEW_FIRST, _NEW_FIRST),
        # Nothing in use comes from the old ones: they are trusted no more.
        Step.WITHDRAW: Use(_NEW, Age.NEW, Age.NEW, Age.NEW, _NEW, _NEW),
    }
)
_AFTER: Final = dict(zip(Step, [*list(Step)[1:], Step.STEADY], strict=True))


@dataclass(frozen=True)
class Record:
    """What is kept of replacements beside the authorities.

    ``era`` counts finished ones: it names the old set, ``era + 1`` the new one. ``revision`` is the request that was
    taken up last (``spec.authorities.revision``), ``since`` when ``step`` began.
    """

    step: Step = Step.STEADY
    era: int = 0
    revision: int = 0
    since: datetime | None = None

    def era_of(self, age: Age) -> int:
        """Return the number of a set."""
        return self.era if age is Age.OLD else self.era + 1


@dataclass(frozen=True)
class Verdict:
    """What to do: go to ``step`` (or stay), and what is waited for, in words. ``until``: the old ones are trusted."""

    step: Step
    waits_on: str = ""
    until: datetime | None = None


def decide(
    record: Record, *, requested: int, expires: datetime, waits_on: str, grace: timedelta, now: datetime
) -> Verdict:
    """Return the next step of a replacement, or the same one.

    ``requested`` is the revision that the spec asks for, ``expires`` the end of the first authority in use,
    ``waits_on`` what the present step is not done with, empty when it is, ``grace`` how long what the old ones signed
    for people stays good after the new ones took over.
    """
    if record.step is Step.STEADY:
        due = requested > record.revision or expires - now < ROTATE_BEFORE
        return Verdict(Step.SPREAD if due else Step.STEADY)
    if waits_on:
        return Verdict(record.step, waits_on)
    until = (record.since or now) + grace
    if record.step is Step.ISSUE and now < until:
        return Verdict(record.step, until=until)
    return Verdict(_AFTER[record.step])


def advanced(record: Record, step: Step, *, requested: int, now: datetime) -> Record:
    """Return the record once ``step`` is begun."""
    if step is Step.STEADY:
        return Record(step, record.era + 1, record.revision, now)
    revision = max(requested, record.revision) if step is Step.SPREAD else record.revision
    return Record(step, record.era, revision, now)
