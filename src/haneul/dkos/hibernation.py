"""Whether a cluster should sleep, and how it falls asleep step by step. Pure.

What happened last counts: a moment of a rule, or somebody's word, which stands in the spec with its time. So a cluster
that is woken in the night stays awake until the next moment of any rule. Before it was created nothing counts. A moment
that has come is written into the spec as the last word, so the spec says by itself what is wanted now.

A cluster falls asleep from the outside in, by what is seen to be left of it:

=========================  ==========================================================================================
what still runs            and so                                                                        level
=========================  ==========================================================================================
pods on nodes              controllers and scheduler end, so that nothing is made anew; pods are asked   ``NODES``
                           to end
nodes, controllers         nodes end                                                                     ``API``
the API server             it ends, while etcd still takes its last writes                               ``ETCD``
etcd                       it ends                                                                       ``NOTHING``
nothing                    the cluster sleeps                                                            ``NOTHING``
=========================  ==========================================================================================

Nothing is remembered but since when it falls asleep (in the status), so whoever comes after a killed operator goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim

from haneul.dkos.model import Cluster, ConditionType, Hibernation, NodeProviderName, Phase, SleepRule

#: How long pods may take to end, whatever time they asked for.
PODS_LIFE: Final = timedelta(seconds=120)
#: How long an API server that runs may be silent before the pods are given up on.
SILENCE_LIFE: Final = timedelta(seconds=20)
#: Whose machines Haneul ends and makes again, so that nothing runs meanwhile.
SLEEPING_PROVIDERS: Final = frozenset({NodeProviderName.SANDBOX})
_MINUTE: Final = timedelta(minutes=1)
_CORE: Final = frozenset({"etcd", "kube-apiserver", "node"})


class Level(IntEnum):
    """How much of a cluster runs; each level with all that is below it."""

    NOTHING = 0
    ETCD = 1
    API = 2
    NODES = 3
    ALL = 4


@dataclass(frozen=True)
class Standing:
    """Whether a cluster should sleep, since which moment, and until when that holds; None if for good."""

    asleep: bool
    since: datetime
    until: datetime | None

    def holds(self, now: datetime) -> bool:
        """Say whether it still is so. A clock that went back makes one think anew."""
        return self.since <= now and (self.until is None or now < self.until)


def standing(wanted: Hibernation, created: datetime, now: datetime) -> Standing:
    """Return what counts at ``now``, both moments aware. Of two rules' moments at once, the one that wakes counts."""
    asked = max(wanted.asked, created)
    # A word given by a clock that runs ahead counts at once.
    latest, asleep = asked, wanted.asleep
    for rule in wanted.schedule:
        for moment, sleeps in _moments(rule, now, before=True):
            if moment > latest or (moment == latest and moment > asked and not sleeps):
                latest, asleep = moment, sleeps
    coming = [moment for rule in wanted.schedule for moment, _ in _moments(rule, now, before=False)]
    return Standing(asleep, min(latest, now), min(coming, default=None))


def sleep_waits_for(cluster: Cluster) -> str:
    """Return, in words, what a cluster is in the middle of and ends before it falls asleep; nothing if it may."""
    status = cluster.status
    if cluster.is_restoring:
        return "it is being restored"
    if "ready" not in status.milestones:
        return "it is being made"
    for condition in status.conditions:
        if condition.type is ConditionType.AUTHORITIES_CURRENT and condition.status != "True":
            return f"its authorities are being replaced ({condition.message})"
    if status.phase is Phase.UPDATING:
        doing = next((entry.message for entry in status.conditions if entry.status != "True"), "")
        return f"it is being changed ({doing})" if doing else "it is being changed"
    return ""


def next_wake(wanted: Hibernation, now: datetime) -> datetime | None:
    """Return when a rule wakes the cluster next."""
    moments = [moment for rule in wanted.schedule for moment, sleeps in _moments(rule, now, before=False) if not sleeps]
    return min(moments, default=None)


def _moments(rule: SleepRule, now: datetime, *, before: bool) -> list[tuple[datetime, bool]]:
    """Return a rule's last moments up to ``now``, or its next ones; with each, whether the cluster sleeps from then."""
    found = []
    zone = ZoneInfo(rule.zone)
    # Looking back excludes where one begins; moments are whole minutes.
    begin = now.replace(second=0, microsecond=0) + _MINUTE if before else now
    for line, sleeps in ((rule.sleep, True), (rule.wake, False)):
        moment = next(CronSim(line, begin.astimezone(zone), reverse=before), None) if line else None
        if moment is not None:
            found.append((moment.astimezone(now.tzinfo), sleeps))
    return found


@dataclass(frozen=True)
class Remains:
    """What is left of a cluster that falls asleep: the roles of its pods on management hosts, and machines."""

    roles: frozenset[str] = frozenset()
    machines: bool = False

    @property
    def nodes(self) -> bool:
        """Say whether a node may still run."""
        return self.machines or "node" in self.roles

    @property
    def programs(self) -> bool:
        """Say whether there still is a program that could make pods anew."""
        return bool(self.roles - _CORE)

    @property
    def may_have_pods(self) -> bool:
        """Say whether pods may run, and somebody is there who can tell."""
        return self.nodes and "kube-apiserver" in self.roles


@dataclass(frozen=True)
class Step:
    """How much is to run now, and what is waited for: in one word for programs, in some for people."""

    level: Level
    reason: str
    message: str

    @property
    def asleep(self) -> bool:
        """Say whether all is done."""
        return self.reason == ASLEEP


ASLEEP: Final = "Asleep"


def next_step(remains: Remains, pods: int | None, *, since: datetime, now: datetime) -> Step:
    """Return the next step. ``pods`` of the tenant still end; None if the API server does not say."""
    life = SILENCE_LIFE if pods is None else PODS_LIFE
    if remains.may_have_pods and (remains.programs or pods != 0) and now < since + life:
        ending = "its controllers" if remains.programs else f"{pods} pods"
        waits_on = "its API server to tell of pods" if pods is None else f"{ending} to end"
        return Step(Level.NODES, "PodsEnding", f"waiting for {waits_on}")
    if remains.nodes or remains.programs:
        return Step(Level.API, "NodesEnding", "waiting for the nodes to end")
    if "kube-apiserver" in remains.roles:
        return Step(Level.ETCD, "ApiEnding", "waiting for the API server to end")
    if "etcd" in remains.roles:
        return Step(Level.NOTHING, "EtcdEnding", "waiting for etcd to end")
    return Step(Level.NOTHING, ASLEEP, "")


def falling_asleep_since(cluster: Cluster, now: datetime) -> datetime:
    """Return since when a cluster falls asleep; now, if it just begins."""
    for condition in cluster.status.conditions:
        if condition.type is ConditionType.HIBERNATED and condition.status != "True":
            return condition.last_transition_time
    return now
