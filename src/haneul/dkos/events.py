"""What is told of a cluster's life, in words for people: the events that looks and actions amount to. Pure.

Conditions say how a cluster is now; events say what happened to it, and when. The reasons are for programs and stay
as they are; the messages are for people and may change. Messages hold no times and no counters, so that what happens
again is the same event once more and not another one. Neighbours: :mod:`haneul.dkos.event_recorder` counts and writes
what is told, :mod:`haneul.dkos.event_log` is where it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from haneul.dkos.model import Cluster, ClusterStatus, Condition, ConditionType, NodeStatus, Phase
from haneul.dkos.states import MasterState, waits_on

#: Bytes of a message; more is refused by Kubernetes ("Event", field ``note`` of events.k8s.io/v1).
LONGEST_MESSAGE: Final = 1024
#: After how long a cluster that still waits on something says so.
_PATIENCE: Final = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30))
#: What masters wait for while all is well.
_USUAL_WAITS: Final = frozenset({"", "starting", "its pod is being made"})
_OUT_OF_MEMORY: Final = "OOMKilled"


class EventType(StrEnum):
    """Whether somebody may have to do something; the two types that Kubernetes knows."""

    NORMAL = "Normal"
    WARNING = "Warning"


class Reason(StrEnum):
    """Why an event is told. Reasons are never renamed; each has its row in :data:`MEANINGS`."""

    SPEC_ACCEPTED = "SpecAccepted"
    SPEC_REFUSED = "SpecRefused"
    SPEC_CHANGED = "SpecChanged"
    MASTERS_READY = "MastersReady"
    MASTERS_NOT_READY = "MastersNotReady"
    MASTER_FAILING = "MasterFailing"
    MASTER_RESTARTED = "MasterRestarted"
    MASTER_OUT_OF_MEMORY = "MasterOutOfMemory"
    MEMBER_JOINED = "MemberJoined"
    MEMBER_LEFT = "MemberLeft"
    MEMBER_LOST = "MemberLost"
    API_ANSWERS = "ApiAnswers"
    API_SILENT = "ApiSilent"
    CREDENTIALS_RENEWED = "CredentialsRenewed"
    NODE_CERTIFICATE_SIGNED = "NodeCertificateSigned"
    NODE_CERTIFICATE_REFUSED = "NodeCertificateRefused"
    NODE_AWAITS_APPROVAL = "NodeAwaitsApproval"
    NODE_APPROVED = "NodeApproved"
    NODE_APPROVAL_ENDED = "NodeApprovalEnded"
    NODE_READY = "NodeReady"
    NODE_NOT_READY = "NodeNotReady"
    NODE_REPLACED = "NodeReplaced"
    NODE_DROPPED = "NodeDropped"
    UPGRADE_BEGUN = "UpgradeBegun"
    UPGRADE_REFUSED = "UpgradeRefused"
    UPGRADE_STOPPED = "UpgradeStopped"
    MASTERS_UPGRADED = "MastersUpgraded"
    NODE_UPGRADED = "NodeUpgraded"
    UPGRADED = "Upgraded"
    CLUSTER_READY = "ClusterReady"
    SCHEDULE_DUE = "ScheduleDue"
    SLEEP_WAITS = "SleepWaits"
    HIBERNATING = "Hibernating"
    ASLEEP = "Asleep"
    WAKE_REQUESTED = "WakeRequested"
    WAKE_REFUSED = "WakeRefused"
    WAKING = "Waking"
    RESTORING = "Restoring"
    RESTORED = "Restored"
    RESTORE_FAILED = "RestoreFailed"
    STILL_WAITING = "StillWaiting"
    DELETING = "Deleting"
    TEARDOWN_WAITS = "TeardownWaits"
    TEARDOWN_FAILED = "TeardownFailed"
    DELETED = "Deleted"


_N, _W = EventType.NORMAL, EventType.WARNING

#: Each reason's type, when it is told, and what a person does about it.
MEANINGS: Final[Mapping[Reason, tuple[EventType, str, str]]] = {
    Reason.SPEC_ACCEPTED: (_N, "the spec can be carried out, and its masters are being made", ""),
    Reason.SPEC_REFUSED: (_W, "the spec cannot be carried out", "delete the cluster and create it again"),
    Reason.SPEC_CHANGED: (_N, "somebody changed the spec", ""),
    Reason.MASTERS_READY: (_N, "every master's pod is ready", ""),
    Reason.MASTERS_NOT_READY: (_W, "masters that were ready are not", "wait a minute; then look at their pods"),
    Reason.MASTER_FAILING: (
        _W,
        "a master's pod cannot start: its image is not there, the host is full, or its program ends again and again",
        "look at the pod and its log",
    ),
    Reason.MASTER_RESTARTED: (_W, "a master's program ended and was started again", "often: look at its log"),
    Reason.MASTER_OUT_OF_MEMORY: (
        _W,
        "a master's program needed more memory than it may have, and was started again",
        "keep fewer objects in the cluster, or split it in two",
    ),
    Reason.MEMBER_JOINED: (
        _N,
        "an etcd member has all data and votes; it comes with more masters, or for a lost one",
        "",
    ),
    Reason.MEMBER_LEFT: (_N, "an etcd member is gone, with its copy of the data; the others have all of it", ""),
    Reason.MEMBER_LOST: (
        _W,
        "an etcd member's host is gone, or it has not worked for three minutes on a host that does; a new one is made "
        "in its place, from the others",
        "look after the host's disk if it happens again",
    ),
    Reason.API_ANSWERS: (_N, "the cluster's API server answers", ""),
    Reason.API_SILENT: (_W, "the API server answered and does so no more; nodes and pods go on", "look at the masters"),
    Reason.CREDENTIALS_RENEWED: (_N, "a master got new certificates and restarts with them", ""),
    Reason.NODE_CERTIFICATE_SIGNED: (_N, "a node got a certificate: its first one, or a renewal", ""),
    Reason.NODE_CERTIFICATE_REFUSED: (
        _W,
        "somebody asked for a node's certificate and did not get it",
        "the message names who asked; if nobody should have, take their rights, or the node, away",
    ),
    Reason.NODE_AWAITS_APPROVAL: (
        _W,
        "a node gets no certificate until a firewall approver lets it reach its pool's external resources",
        "[ask a firewall approver](../howto/approve-firewall-access.md)",
    ),
    Reason.NODE_APPROVED: (_N, "firewall approvers let a node reach all that its pool names, so it joins", ""),
    Reason.NODE_APPROVAL_ENDED: (
        _W,
        "a node that was let through may no longer reach an external resource, so it is emptied and taken out",
        "ask the firewall approver; a changed external resource needs new approvals",
    ),
    Reason.NODE_READY: (_N, "a node runs pods", ""),
    Reason.NODE_NOT_READY: (_W, "a node that ran pods does not", "wait a minute; then look at the node"),
    Reason.NODE_REPLACED: (_N, "a node has a new machine; what was on the old one's disk is gone", ""),
    Reason.NODE_DROPPED: (_N, "no pool wants the node any more, so it is taken out", ""),
    Reason.UPGRADE_BEGUN: (_N, "the cluster begins to come to another version of Kubernetes", ""),
    Reason.UPGRADE_REFUSED: (
        _W,
        "the spec asks for a version that Kubernetes does not let the cluster come to; everything stays as it is",
        "`haneul cluster upgrade` with a version that it may come to",
    ),
    Reason.UPGRADE_STOPPED: (
        _W,
        "an upgrade does not go on by itself: masters did not become ready in five minutes, a node's pods may not "
        "move, or a changed node does not become ready",
        "[upgrade clusters](../howto/upgrade-clusters.md#when-an-upgrade-stops); it goes on once that is mended",
    ),
    Reason.MASTERS_UPGRADED: (_N, "all masters run another version of Kubernetes", ""),
    Reason.NODE_UPGRADED: (_N, "a node runs another version of Kubernetes", ""),
    Reason.UPGRADED: (_N, "masters and nodes run what was asked for", ""),
    Reason.CLUSTER_READY: (_N, "everything is as it was asked for", ""),
    Reason.SCHEDULE_DUE: (_N, "a moment of the cluster's schedule came, and so it falls asleep or wakes", ""),
    Reason.SLEEP_WAITS: (
        _N,
        "a moment of the schedule came while the cluster is being made, changed or given new authorities; it falls "
        "asleep after that",
        "",
    ),
    Reason.HIBERNATING: (_N, "the cluster falls asleep: somebody asked for it, or a rule's moment came", ""),
    Reason.ASLEEP: (_N, "nothing of the cluster runs any more; what it keeps is there", ""),
    Reason.WAKE_REQUESTED: (
        _N,
        "somebody sent a request to the API of the sleeping cluster, which wakes it; `--no-wake-on-request` ends that",
        "",
    ),
    Reason.WAKE_REFUSED: (
        _W,
        "a request or the schedule would wake the cluster, but the project's quota has no room for it",
        "let another cluster sleep or make it smaller, or have the quota raised; then `haneul cluster wake`",
    ),
    Reason.WAKING: (_N, "the cluster wakes", ""),
    Reason.RESTORING: (_N, "somebody asked for a state of the cluster's backup, and its data is being made", ""),
    Reason.RESTORED: (
        _N,
        "the masters serve restored data, and what was replaced is deleted; nodes may come later",
        "",
    ),
    Reason.RESTORE_FAILED: (
        _W,
        "the backup cannot give what was asked for; nothing was changed",
        "[restore another moment](../howto/restore-a-cluster.md)",
    ),
    Reason.STILL_WAITING: (
        _W,
        "the cluster waits for the same for one, five or thirty minutes",
        "[why is my cluster not ready?](../howto/why-is-my-cluster-not-ready.md)",
    ),
    Reason.DELETING: (_N, "somebody asked for the cluster's end, and its teardown began", ""),
    Reason.TEARDOWN_WAITS: (_N, "the teardown waits for this step", ""),
    Reason.TEARDOWN_FAILED: (_W, "a step of the teardown did not end in time, or failed; it is tried again", ""),
    Reason.DELETED: (_N, "all that was made for the cluster is gone, its data included", ""),
}


@dataclass(frozen=True)
class Event:
    """One thing that happened to a cluster. Make them with :func:`event`, which keeps messages in bounds."""

    type: EventType
    reason: Reason
    message: str


def event(reason: Reason, message: str) -> Event:
    """Return an event; its message in one line, without control characters, and not longer than Kubernetes allows.

    Parts of messages come from tenants' clusters: names in certificate requests, words of kubelets.
    """
    line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(message.split()))
    whole = line.encode()
    if len(whole) > LONGEST_MESSAGE:
        line = whole[: LONGEST_MESSAGE - 3].decode(errors="ignore") + "…"
    return Event(MEANINGS[reason][0], reason, line)


@dataclass(frozen=True)
class Look:
    """What one look of the controller came to. ``machines`` maps nodes to the instances of their machines."""

    status: ClusterStatus = field(default_factory=ClusterStatus)
    masters: tuple[MasterState, ...] = ()
    machines: Mapping[str, str] = field(default_factory=dict)
    at: datetime | None = None


#: Takes note of what happened to a cluster; never waits, never fails.
Tell = Callable[[Cluster, Event], None]


def told(before: Look, after: Look) -> list[Event]:
    """Return what is to be told of the difference between two looks, in the order in which it comes about."""
    return [
        *_spec_events(before.status, after.status),
        *_master_events(before.masters, after.masters),
        *_sleep_events(before.status, after.status),
        *_condition_events(before.status, after.status),
        *_machine_events(before.machines, after.machines),
        *_node_events(before.status, after.status),
        *_upgrade_events(before.status, after.status),
        *_ready_events(before.status, after.status),
        *_patience_events(before, after),
    ]


def credentials_renewed(component: str) -> Event:
    """Return the event for a master that got fresh certificates in place of kept ones."""
    return event(Reason.CREDENTIALS_RENEWED, f"{component} got new certificates and restarts with them")


_NUMBERS: Final = ("first", "second", "third")


def member_joined(place: int, members: int) -> Event:
    """Return the event for an etcd member that votes from now on, as one of so many."""
    return event(Reason.MEMBER_JOINED, f"the {_NUMBERS[place]} etcd member joined; {members} vote now")


def member_left(place: int) -> Event:
    """Return the event for an etcd member that is gone with its data."""
    return event(Reason.MEMBER_LEFT, f"the {_NUMBERS[place]} etcd member left, and its copy of the data is deleted")


def member_lost(place: int, why: str) -> Event:
    """Return the event for an etcd member whose data is given up."""
    return event(Reason.MEMBER_LOST, f"the {_NUMBERS[place]} etcd member is replaced: {why}")


def certificate_signed(node: str, *, serving: bool) -> Event:
    """Return the event for a node's certificate."""
    kind = "to be reached with" if serving else "to join with"
    return event(Reason.NODE_CERTIFICATE_SIGNED, f"node {node} got a certificate {kind}")


def certificate_refused(asker: str, why: str) -> Event:
    """Return the event for a node certificate that ``asker``, a user of the tenant's cluster, did not get."""
    return event(Reason.NODE_CERTIFICATE_REFUSED, f"{asker or 'somebody'} got no certificate of a node: {why}")


def wake_requested() -> Event:
    """Return the event for a request to a sleeping cluster's API."""
    return event(Reason.WAKE_REQUESTED, "somebody sent a request to the cluster's API, which wakes it")


def schedule_due(*, asleep: bool) -> Event:
    """Return the event for a moment of the schedule that is followed."""
    return event(Reason.SCHEDULE_DUE, f"by its schedule the cluster {'falls asleep' if asleep else 'wakes'}")


def sleep_waits(what: str) -> Event:
    """Return the event for a moment of the schedule that cannot be followed yet."""
    return event(Reason.SLEEP_WAITS, f"by its schedule the cluster would sleep, which waits for this: {what}")


def wake_refused(why: str) -> Event:
    """Return the event for a cluster that may not wake."""
    return event(Reason.WAKE_REFUSED, f"the cluster stays asleep: {why}")


def restore_began() -> Event:
    """Return the event of a restore that was asked for."""
    return event(Reason.RESTORING, "the data is being made from the backup, beside what runs")


def restored(revision: int) -> Event:
    """Return the event of a restore that is done."""
    return event(Reason.RESTORED, f"the cluster has the state of revision {revision} of its backup")


def restore_failed(why: str) -> Event:
    """Return the event of a restore that was given up."""
    return event(Reason.RESTORE_FAILED, f"nothing was restored: {why}")


def teardown_waits(what: str) -> Event:
    """Return the event for a step of the teardown that is waited for."""
    return event(Reason.TEARDOWN_WAITS, f"waiting for {what}")


def teardown_failed(why: str) -> Event:
    """Return the event for a teardown that goes on later."""
    return event(Reason.TEARDOWN_FAILED, f"{why}; it is tried again")


def _spec_events(before: ClusterStatus, after: ClusterStatus) -> Iterator[Event]:
    old, new = _condition(before, ConditionType.ACCEPTED), _condition(after, ConditionType.ACCEPTED)
    if new is None:
        return
    if not _true(new):
        if old is None or (old.status, old.message) != (new.status, new.message):
            yield event(Reason.SPEC_REFUSED, f"the spec cannot be carried out: {new.message}")
    elif not _true(old):
        yield event(Reason.SPEC_ACCEPTED, "the spec can be carried out; the masters are being made")
    elif before.observed_generation and before.observed_generation != after.observed_generation:
        yield event(Reason.SPEC_CHANGED, "the spec was changed; the cluster is brought to what is asked for now")


def _master_events(before: Iterable[MasterState], after: Iterable[MasterState]) -> Iterator[Event]:
    known = {master.role: master for master in before}
    for master in after:
        old = known.get(master.role)
        if old is not None and master.restarts > old.restarts:
            if master.ended == _OUT_OF_MEMORY:
                yield event(Reason.MASTER_OUT_OF_MEMORY, f"{master.role} ran out of memory and was started again")
            else:
                how = f" ({master.ended})" if master.ended else ""
                yield event(Reason.MASTER_RESTARTED, f"{master.role} ended{how} and was started again")
        if not master.ready and _trouble(master) and (old is None or _trouble(old) != _trouble(master)):
            yield event(Reason.MASTER_FAILING, f"{master.role} cannot start: {master.message}")


def _trouble(master: MasterState) -> str:
    """Return the first words of what keeps a master from starting; what follows them may change at every look."""
    return "" if master.message in _USUAL_WAITS else master.message.partition(":")[0]


_ASLEEP: Final = frozenset({Phase.HIBERNATING, Phase.ASLEEP})


def _sleep_events(before: ClusterStatus, after: ClusterStatus) -> Iterator[Event]:
    if before.phase is after.phase:
        return
    if after.phase is Phase.HIBERNATING:
        yield event(Reason.HIBERNATING, "the cluster falls asleep: its pods, its nodes, then its masters end")
    elif after.phase is Phase.ASLEEP:
        yield event(Reason.ASLEEP, "the cluster sleeps: nothing of it runs, and all that it keeps is there")
    elif after.phase is Phase.WAKING:
        yield event(Reason.WAKING, "the cluster wakes: its masters, then its nodes are started")


def _condition_events(before: ClusterStatus, after: ClusterStatus) -> Iterator[Event]:
    if not _true(_condition(after, ConditionType.ACCEPTED)):
        return
    for kind, good, words, bad in (
        (ConditionType.CONTROL_PLANE_READY, Reason.MASTERS_READY, "all masters are ready", Reason.MASTERS_NOT_READY),
        (ConditionType.API_ANSWERS, Reason.API_ANSWERS, "the API server answers", Reason.API_SILENT),
    ):
        old, new = _condition(before, kind), _condition(after, kind)
        if new is not None and _true(new) and not _true(old):
            yield event(good, words)
        elif new is not None and not _true(new) and _true(old):
            yield event(bad, new.message)


def _machine_events(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Event]:
    for name, instance in sorted(after.items()):
        if instance and before.get(name) and before[name] != instance:
            yield event(Reason.NODE_REPLACED, f"node {name} has a new machine; what was on the old one's disk is gone")


def _node_events(before: ClusterStatus, after: ClusterStatus) -> Iterator[Event]:
    known = {node.name: node for node in before.nodes}
    for node in after.nodes:
        was_ready = node.name in known and known[node.name].ready
        yield from _approval_events(known.get(node.name, NodeStatus(name=node.name, pool=node.pool)), node)
        if node.ready and not was_ready:
            yield event(Reason.NODE_READY, f"node {node.name} is ready")
        elif was_ready and not node.ready and after.phase not in _ASLEEP:
            yield event(Reason.NODE_NOT_READY, f"node {node.name} is not ready: {_why(node)}")
    if after.phase in _ASLEEP or not _true(_condition(after, ConditionType.ACCEPTED)):
        # A spec that is refused names no nodes, but takes none away either.
        return
    for name in sorted(known.keys() - {node.name for node in after.nodes}):
        yield event(Reason.NODE_DROPPED, f"node {name} is taken out: no pool wants it any more")


def _approval_events(before: NodeStatus, after: NodeStatus) -> Iterator[Event]:
    place = f"node {after.name} at {after.address}"
    if after.barred and not before.barred and after.address == before.address:
        yield event(Reason.NODE_APPROVAL_ENDED, f"{place} is taken out, for it {after.barred}")
    elif after.barred and not after.ready and (after.barred, after.address) != (before.barred, before.address):
        yield event(Reason.NODE_AWAITS_APPROVAL, f"{place} {after.barred}")
    elif before.barred and not after.barred and after.address:
        yield event(Reason.NODE_APPROVED, f"{place} may reach all that its pool names")


def _upgrade_events(before: ClusterStatus, after: ClusterStatus) -> Iterator[Event]:
    old, new = _condition(before, ConditionType.VERSION_CURRENT), _condition(after, ConditionType.VERSION_CURRENT)
    if new is None:
        return
    if old is not None and _true(old) and not _true(new) and new.reason != Reason.UPGRADE_REFUSED:
        yield event(Reason.UPGRADE_BEGUN, new.message.partition(":")[0])
    if before.version and after.version != before.version:
        yield event(
            Reason.MASTERS_UPGRADED, f"the masters run Kubernetes {after.version}, before it was {before.version}"
        )
    known = {node.name: node.version for node in before.nodes}
    for node in after.nodes:
        if known.get(node.name) and node.version and node.version != known[node.name]:
            yield event(Reason.NODE_UPGRADED, f"node {node.name} runs Kubernetes {node.version}")
    for reason in (Reason.UPGRADE_STOPPED, Reason.UPGRADE_REFUSED):
        again = old is not None and (old.reason, old.message) == (new.reason, new.message)
        if new.reason == reason and not again:
            yield event(reason, new.message)
    if old is not None and not _true(old) and _true(new) and old.reason != Reason.UPGRADE_REFUSED:
        yield event(
            Reason.UPGRADED, f"masters and nodes run what was asked for, the masters Kubernetes {after.version}"
        )


def _why(node: NodeStatus) -> str:
    return node.message or "nothing more is known"


def _ready_events(before: ClusterStatus, after: ClusterStatus) -> Iterator[Event]:
    if after.phase in _ASLEEP:
        return
    if not waits_on(after) and (waits_on(before) or before.observed_generation != after.observed_generation):
        first = "ready" not in before.milestones
        yield event(
            Reason.CLUSTER_READY,
            "the cluster is ready for the first time" if first else "the cluster is again all that is asked for",
        )


def _patience_events(before: Look, after: Look) -> Iterator[Event]:
    """Tell of the first condition that is not true once it has been so for another of the times of patience."""
    conditions = (entry for entry in after.status.conditions if entry.type is not ConditionType.FOLLOWED)
    waiting = next((condition for condition in conditions if not _true(condition)), None)
    if waiting is None or after.at is None or waiting.type is ConditionType.ACCEPTED:
        return
    ends = [(waiting.last_transition_time + patience, patience) for patience in _PATIENCE]
    over = [patience for end, patience in ends if end <= after.at and (before.at is None or before.at < end)]
    if over:
        minutes = int(over[-1].total_seconds() // 60)
        span = "a minute" if minutes == 1 else f"{minutes} minutes"
        yield event(Reason.STILL_WAITING, f"for more than {span}: {waits_on(after.status)}")


def _condition(status: ClusterStatus, kind: ConditionType) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type is kind), None)


def _true(condition: Condition | None) -> bool:
    return condition is not None and condition.status == "True"
