"""What a cluster's observations mean: conditions, phase and milestones. Pure.

The conditions come true in a fixed order, and each says on what it waits, so that the first one that is not true is
what a person needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from haneul.dkos.etcd_plan import NO_MAJORITY
from haneul.dkos.hibernation import Step as SleepStep
from haneul.dkos.model import (
    SLEEP_PHASES,
    Cluster,
    ClusterStatus,
    Condition,
    ConditionType,
    MasterStatus,
    NodeStatus,
    Phase,
    RestoreState,
    RestoreStatus,
)
from haneul.dkos.rotation import Step, Verdict
from haneul.dkos.upgrade import Stage
from haneul.dkos.upgrade import Verdict as UpgradeVerdict

#: The reason of the condition AuthoritiesCurrent while nothing is left to do but to wait.
OLD_TRUSTED: Final = "OldAuthoritiesTrusted"

#: Reasons of the condition ControlPlaneReady: pods are not all ready; etcd's members cannot agree to anything.
MASTERS_STARTING: Final = "MastersStarting"
NO_ETCD_MAJORITY: Final = "NoEtcdMajority"

#: Reasons of the condition VersionCurrent while somebody has to look at it.
UPGRADE_STOPPED: Final = "UpgradeStopped"
UPGRADE_REFUSED: Final = "UpgradeRefused"
#: How long masters may take to come to another version before somebody should look at them.
MASTERS_LIFE: Final = timedelta(minutes=5)

#: The reason of the condition Followed.
OVER_BUDGET: Final = "OverBudget"

#: The reason of the condition of nodes while all that is missing is a firewall approver's decision.
WAITS_FOR_APPROVER: Final = "WaitsForApprover"


@dataclass(frozen=True)
class MasterState:
    """One master component as the management cluster sees it."""

    role: str
    ready: bool
    message: str = ""
    #: How often its programs were started again, and how they ended the last time.
    restarts: int = 0
    ended: str = ""
    #: Where a pod of it that is ready is reached.
    address: str = ""
    #: All its pods, and how many of them can be counted on.
    pods: tuple[MasterStatus, ...] = ()
    working: int = 0
    #: Why a pod of it is not ready that is to take over from another.
    coming: str = ""


@dataclass(frozen=True)
class Observation:
    """One immutable look at a cluster."""

    masters: tuple[MasterState, ...] = ()
    api_answers: bool = False
    api_message: str = ""
    nodes: tuple[NodeStatus, ...] = ()
    wanted_nodes: int = 0
    endpoint: str = ""
    problem: str = ""
    #: How many other clusters start before this one may.
    starting_before: int = 0
    #: How far the authorities' replacement is.
    rotation: Verdict = field(default_factory=lambda: Verdict(Step.STEADY))
    authorities_expire: datetime | None = None
    #: Which nodes are being changed or removed, in words; nothing if all are made from what they should be.
    change: str = ""
    #: Which masters join or leave, in words; nothing if there are as many as there should be.
    masters_change: str = ""
    #: What of that goes on only once somebody helps, in words that do not change all the time.
    stopped: str = ""
    #: How far the masters are on their way to the version that is asked for, and which one the nodes are to have.
    upgrade: UpgradeVerdict = field(default_factory=UpgradeVerdict)
    nodes_version: str = ""
    #: Why somebody outside the cluster follows it no longer, because it has too much; nothing if all do.
    trouble: str = ""


def status_of(cluster: Cluster, seen: Observation, now: datetime) -> ClusterStatus:
    """Return the status that ``seen`` amounts to; unchanged conditions keep their transition times."""
    before = {condition.type: condition for condition in cluster.status.conditions}
    verdicts = [*_verdicts(seen), _version_verdict(seen, before.get(ConditionType.VERSION_CURRENT), now)]
    conditions = tuple(
        _condition(before.get(kind), kind, true=true, reason=reason, message=message, now=now)
        for kind, true, reason, message in verdicts
    )
    phase = _phase(cluster, conditions, changing=bool(seen.change))
    if seen.trouble:
        kind = ConditionType.FOLLOWED
        told = _condition(before.get(kind), kind, true=False, reason=OVER_BUDGET, message=seen.trouble, now=now)
        conditions = (*conditions, told)
    return ClusterStatus(
        phase=phase,
        observed_generation=cluster.generation,
        look_answered=cluster.look_requested,
        endpoint=seen.endpoint or cluster.status.endpoint,
        version=_masters_version(cluster, seen),
        pods=cluster.spec.network.pods or "",
        services=cluster.spec.network.services or "",
        masters=tuple(pod for master in seen.masters for pod in master.pods),
        nodes=seen.nodes,
        conditions=conditions,
        authorities_expire=seen.authorities_expire or cluster.status.authorities_expire,
        backup=cluster.status.backup,
        restore=cluster.status.restore,
        milestones=_milestones(cluster, seen, now),
    )


def sleeping_status(cluster: Cluster, step: SleepStep, note: str, now: datetime) -> ClusterStatus:
    """Return the status of a cluster that sleeps, or falls asleep; ``note`` is what there is to say once it sleeps."""
    before = {condition.type: condition for condition in cluster.status.conditions}
    verdicts = [
        (ConditionType.ACCEPTED, True, "SpecAccepted", ""),
        (ConditionType.HIBERNATED, step.asleep, step.reason, note if step.asleep else step.message),
    ]
    conditions = tuple(
        _condition(before.get(kind), kind, true=true, reason=reason, message=message, now=now)
        for kind, true, reason, message in verdicts
    )
    resting = {"ready": False, "address": "", "message": "asleep" if step.asleep else "falling asleep"}
    return cluster.status.model_copy(
        update={
            "phase": Phase.ASLEEP if step.asleep else Phase.HIBERNATING,
            "observed_generation": cluster.generation,
            "look_answered": cluster.look_requested,
            "masters": (),
            "nodes": tuple(node.model_copy(update=resting) for node in cluster.status.nodes),
            "conditions": conditions,
        }
    )


def restoring_status(
    cluster: Cluster, restore: RestoreStatus, reason: str, message: str, now: datetime
) -> ClusterStatus:
    """Return the status of a cluster whose data is being restored; the phase lasts until it is ready on it."""
    before = {condition.type: condition for condition in cluster.status.conditions}
    verdicts = [
        (ConditionType.ACCEPTED, True, "SpecAccepted", ""),
        (ConditionType.RESTORED, False, reason, message),
    ]
    return cluster.status.model_copy(
        update={
            "phase": Phase.DELETING if cluster.deleting else Phase.RESTORING,
            "observed_generation": cluster.generation,
            "look_answered": cluster.look_requested,
            "conditions": tuple(
                _condition(before.get(kind), kind, true=true, reason=why, message=words, now=now)
                for kind, true, why, words in verdicts
            ),
            "restore": restore,
        }
    )


def serves(status: ClusterStatus) -> bool:
    """Say whether all masters are ready and the API answers, whatever the nodes do."""
    true = {condition.type for condition in status.conditions if condition.status == "True"}
    return {ConditionType.CONTROL_PLANE_READY, ConditionType.API_ANSWERS} <= true


def has_answered(status: ClusterStatus) -> bool:
    """Say whether the API has answered since the cluster was made; of one that slept, since it began to wake."""
    if status.phase in SLEEP_PHASES:
        return any(entry.type is ConditionType.API_ANSWERS and entry.status == "True" for entry in status.conditions)
    return "api" in status.milestones


def waits_on(status: ClusterStatus) -> str:
    """Return what a cluster waits on, in words for people; nothing when it is ready."""
    for condition in status.conditions:
        if condition.status != "True" and condition.type is not ConditionType.FOLLOWED:
            return condition.message or condition.reason
    return "" if status.conditions else "the operator to look at it"


def _verdicts(seen: Observation) -> list[tuple[ConditionType, bool, str, str]]:
    waiting = [master for master in seen.masters if not master.ready]
    masters = ", ".join(f"{master.role} ({master.message})" if master.message else master.role for master in waiting)
    absent = [node for node in seen.nodes if not node.ready]
    nodes = ", ".join(f"{node.name} ({node.message})" if node.message else node.name for node in absent)
    ready_nodes = len(seen.nodes) - len(absent)
    joining = f"{ready_nodes} of {seen.wanted_nodes} nodes ready; waiting for {nodes or 'the others to be made'}"
    masters_ready = bool(seen.masters) and not waiting and not seen.masters_change
    all_nodes = not absent and len(seen.nodes) == seen.wanted_nodes and not seen.change
    network = all_nodes or ready_nodes > 0
    return [
        (
            ConditionType.ACCEPTED,
            not seen.problem,
            "SpecRefused" if seen.problem else "SpecAccepted",
            seen.problem,
        ),
        (
            ConditionType.CONTROL_PLANE_READY,
            masters_ready,
            "MastersReady" if masters_ready else _masters_reason(seen),
            ""
            if masters_ready
            else seen.masters_change or f"waiting for {masters or _turn(seen) or 'the masters to be made'}",
        ),
        (
            ConditionType.API_ANSWERS,
            seen.api_answers,
            "ApiAnswers" if seen.api_answers else "ApiSilent",
            "" if seen.api_answers else f"waiting for the API server to answer {seen.api_message}".rstrip(),
        ),
        (
            ConditionType.NETWORK_READY,
            network,
            "NetworkReady" if network else "NoNodeReady",
            "" if network else "waiting for the network of the first node",
        ),
        (
            ConditionType.NODES_READY,
            all_nodes,
            _nodes_reason(absent, all_nodes=all_nodes, changing=bool(seen.change)),
            seen.change or ("" if all_nodes else joining),
        ),
        (ConditionType.AUTHORITIES_CURRENT, *_authorities_verdict(seen.rotation)),
    ]


#: What each step of a replacement does: in one word for programs, in a few for people.
_ROTATION_STEPS: Final[Mapping[Step, tuple[str, str]]] = {
    Step.SPREAD: ("SpreadingTrust", "the masters and pods get to know the new authorities"),
    Step.SIGN: ("SigningAnew", "the new authorities begin to sign"),
    Step.NODES: ("ReplacingNodes", "nodes are made anew from the new authorities"),
    Step.ISSUE: ("IssuingAnew", "the masters' certificates and secrets at rest are made anew"),
    Step.WITHDRAW: ("WithdrawingTrust", "the old authorities are taken out"),
}


def _authorities_verdict(rotation: Verdict) -> tuple[bool, str, str]:
    if rotation.step is Step.STEADY:
        return True, "AuthoritiesCurrent", ""
    if rotation.until is not None:
        # All that is left is to wait: nothing more changes for anybody but those who still hold something old.
        return True, OLD_TRUSTED, f"the old authorities are trusted until {rotation.until:%Y-%m-%d %H:%M:%S} UTC"
    reason, doing = _ROTATION_STEPS[rotation.step]
    waiting = f"; waiting for {rotation.waits_on}" if rotation.waits_on else ""
    return False, reason, f"{doing}{waiting}"


def _masters_reason(seen: Observation) -> str:
    if seen.masters_change == NO_MAJORITY:
        return NO_ETCD_MAJORITY
    return "MastersChanging" if seen.masters_change else MASTERS_STARTING


def _masters_version(cluster: Cluster, seen: Observation) -> str:
    """Return the version that all masters run; while they come to another one, the one before."""
    if seen.upgrade.stage is Stage.DONE and seen.upgrade.asked:
        return seen.upgrade.asked
    return cluster.status.version or cluster.spec.version


#: What each stage of an upgrade does, in words, and for whom it waits.
_UPGRADE_STAGES: Final[Mapping[Stage, tuple[str, tuple[str, ...]]]] = {
    Stage.API: ("the masters come from Kubernetes {before} to {asked}, first the API server", ("kube-apiserver",)),
    Stage.CONTROLLERS: (
        "the masters come from Kubernetes {before} to {asked}, now controller manager and scheduler",
        ("kube-controller-manager", "kube-scheduler"),
    ),
    Stage.STARTING: (
        "all masters become Kubernetes {asked}, the nodes come after them",
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    ),
}


def _version_verdict(
    seen: Observation, before: Condition | None, now: datetime
) -> tuple[ConditionType, bool, str, str]:
    kind, upgrade = ConditionType.VERSION_CURRENT, seen.upgrade
    if upgrade.stage is Stage.REFUSED:
        return kind, False, UPGRADE_REFUSED, upgrade.why
    if upgrade.stage is not Stage.DONE:
        words, roles = _UPGRADE_STAGES[upgrade.stage]
        doing = words.format(before=upgrade.before, asked=upgrade.asked)
        trouble = ", ".join(
            f"{master.role} ({said})"
            for master in seen.masters
            if master.role in roles
            if (said := _trouble_of(master))
        )
        begun = before.last_transition_time if before is not None and before.status != "True" else now
        overdue = now - begun >= MASTERS_LIFE
        waits = f"; waiting for {trouble or 'its pods'}" if trouble or overdue else ""
        return kind, False, UPGRADE_STOPPED if overdue else "UpgradingMasters", f"{doing}{waits}"
    behind = [node.name for node in seen.nodes if node.version not in ("", seen.nodes_version)]
    if not behind or not seen.nodes_version:
        return kind, True, "VersionCurrent", ""
    if seen.stopped:
        return kind, False, UPGRADE_STOPPED, f"nodes come to Kubernetes {seen.nodes_version}: {seen.stopped}"
    done = len(seen.nodes) - len(behind)
    message = f"nodes come to Kubernetes {seen.nodes_version}: {done} of {len(seen.nodes)} done"
    return kind, False, "UpgradingNodes", message


def _trouble_of(master: MasterState) -> str:
    return master.coming or ("" if master.ready else master.message)


def _turn(seen: Observation) -> str:
    others = "another cluster starts" if seen.starting_before == 1 else f"{seen.starting_before} other clusters start"
    return f"its turn: {others} before it" if seen.starting_before else ""


def _nodes_reason(absent: Sequence[NodeStatus], *, all_nodes: bool, changing: bool) -> str:
    if all_nodes or changing:
        return "NodesReady" if all_nodes else "NodesChanging"
    return WAITS_FOR_APPROVER if absent and all(node.barred for node in absent) else "NodesJoining"


def _condition(
    before: Condition | None, kind: ConditionType, *, true: bool, reason: str, message: str, now: datetime
) -> Condition:
    status = "True" if true else "False"
    since = before.last_transition_time if before is not None and before.status == status else now
    return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=since)


def _phase(cluster: Cluster, conditions: Sequence[Condition], *, changing: bool) -> Phase:
    if cluster.deleting:
        return Phase.DELETING
    if all(condition.status == "True" for condition in conditions):
        return Phase.READY
    restores = cluster.status.phase is Phase.RESTORING and cluster.status.restore.state is RestoreState.PLACED
    if restores or cluster.status.phase in SLEEP_PHASES:
        return Phase.RESTORING if restores else Phase.WAKING
    if "ready" not in cluster.status.milestones:
        return Phase.CREATING
    steps = (ConditionType.AUTHORITIES_CURRENT, ConditionType.VERSION_CURRENT)
    if any(c.type in steps and c.status != "True" for c in conditions):
        return Phase.UPDATING
    changing = (
        changing or cluster.status.observed_generation != cluster.generation or cluster.status.phase is Phase.UPDATING
    )
    return Phase.UPDATING if changing else Phase.DEGRADED


def _milestones(cluster: Cluster, seen: Observation, now: datetime) -> dict[str, float]:
    elapsed = round((now - cluster.created).total_seconds(), 3)
    reached = {
        "api": seen.api_answers,
        "node": any(node.ready for node in seen.nodes),
        "ready": seen.api_answers
        and not seen.masters_change
        and all(master.ready for master in seen.masters)
        and len(seen.nodes) == seen.wanted_nodes
        and all(node.ready for node in seen.nodes),
    }
    new = {name: elapsed for name, is_reached in reached.items() if is_reached}
    return {**new, **cluster.status.milestones}
