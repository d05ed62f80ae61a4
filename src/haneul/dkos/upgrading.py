"""Whether a cluster may be asked to come to another version of Kubernetes: refusals come before anything changes. Pure.

The rules between versions are in :mod:`haneul.dkos.releases`. What is added here is where the cluster stands: one that
is being made, sleeps, or is still on its way to another version is not sent to a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from haneul.dkos.model import SLEEP_PHASES, Cluster, ClusterSpec, ConditionType
from haneul.dkos.releases import RELEASES, VERSIONS, is_newer, parse, way_of_masters, way_of_nodes
from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError


class Outcome(StrEnum):
    """What asking for a version comes to."""

    UPGRADE = "upgrade"
    #: It is what was asked for already.
    CURRENT = "current"
    #: It was asked for that, and is not there yet.
    UNDER_WAY = "under-way"
    REFUSED = "refused"


@dataclass(frozen=True)
class Proposal:
    """What asking one cluster for a version would come to; ``why`` it is refused, or how far it is."""

    project: str
    name: str
    version: str
    node_version: str
    asked: str
    outcome: Outcome
    nodes: int
    why: str = ""
    hint: str = ""


def check_version(version: str) -> None:
    """Raise InvalidInputError for a version that is not offered."""
    if version not in VERSIONS:
        raise InvalidInputError(f"Kubernetes {version} is not built here", hint=f"choose one of {', '.join(VERSIONS)}")


def asked_spec(cluster: Cluster, version: str | None, node_version: str | None) -> ClusterSpec:
    """Return the spec with other versions. Without one for the nodes, they go where the masters go."""
    masters = version or cluster.spec.version
    nodes = node_version or ""
    return cluster.spec.model_copy(update={"version": masters, "node_version": "" if nodes == masters else nodes})


def check_upgrade(cluster: Cluster, after: ClusterSpec) -> None:
    """Raise InvalidInputError or ConflictError if a cluster cannot be asked to have the versions of ``after``."""
    before = cluster.spec
    if (before.version, before.node_version) == (after.version, after.node_version):
        return
    nodes_before, nodes_after = before.nodes_version, after.nodes_version
    _check_possible(before.version, after.version)
    if nodes_after not in {after.version, nodes_before, *(node.version for node in cluster.status.nodes)}:
        check_version(nodes_after)
    if why := way_of_nodes(after.version, nodes_after):
        raise InvalidInputError(why, hint="leave the nodes' version out: they go where the masters go")
    if after.version != before.version:
        _check_moment(cluster)
        _check_old_nodes(cluster, after.version)


def _check_possible(before: str, after: str) -> None:
    if after == before:
        return
    check_version(after)
    if why := way_of_masters(before, after):
        raise InvalidInputError(why, hint=_way_out(before, after))


def _way_out(before: str, after: str) -> str:
    """Return what may be done instead."""
    if not is_newer(after, before):
        return f"nodes can go back: 'haneul cluster upgrade NAME --nodes {after}'"
    first = parse(before) or (0, 0, 0)
    between = next((one for one in VERSIONS if (parse(one) or first)[:2] == (first[0], first[1] + 1)), "")
    return f"first 'haneul cluster upgrade NAME --to {between}'" if between else "make another cluster and move there"


def _check_moment(cluster: Cluster) -> None:
    """Masters go to another version from where they stand, and one way at a time."""
    name, status = cluster.name, cluster.status
    if status.phase in SLEEP_PHASES or cluster.spec.hibernation.asleep:
        raise ConflictError(f"{name} sleeps", hint=f"'haneul cluster wake {name}', then ask again")
    if cluster.is_restoring:
        raise ConflictError(f"{name} is being restored", hint=f"'haneul cluster get {name} --wait' waits for it")
    if "ready" not in status.milestones:
        raise ConflictError(f"{name} was never ready", hint=f"'haneul cluster get {name} --wait' waits for it")
    if status.version not in ("", cluster.spec.version):
        raise ConflictError(
            f"the masters of {name} are on their way from {status.version} to {cluster.spec.version}",
            hint=f"'haneul cluster get {name} --wait' waits for it",
        )


def _check_old_nodes(cluster: Cluster, version: str) -> None:
    """No kubelet may be left too far behind, whatever is asked for it."""
    for node in cluster.status.nodes:
        if node.version and (why := way_of_nodes(version, node.version)):
            raise ConflictError(
                f"node {node.name}: {why}",
                hint=f"'haneul cluster upgrade {cluster.name}' brings the nodes to the masters' version first",
            )


def propose(cluster: Cluster, version: str) -> Proposal:
    """Return what asking a cluster for a version would come to; raises nothing."""
    spec = cluster.spec
    outcome, why, hint = Outcome.UPGRADE, "", ""
    after = asked_spec(cluster, version, None)
    if cluster.deleting or cluster.spec_problem:
        outcome = Outcome.REFUSED
        why = (
            "it is being deleted" if cluster.deleting else f"what is stored of it is not valid: {cluster.spec_problem}"
        )
    elif (after.version, after.node_version) == (spec.version, spec.node_version):
        why = _under_way(cluster)
        outcome = Outcome.UNDER_WAY if why else Outcome.CURRENT
    else:
        try:
            check_upgrade(cluster, after)
        except HaneulError as error:
            outcome, why, hint = Outcome.REFUSED, error.detail, error.hint
    return Proposal(
        cluster.project,
        cluster.name,
        cluster.status.version or spec.version,
        spec.nodes_version,
        version,
        outcome,
        spec.node_count,
        why,
        hint,
    )


def _under_way(cluster: Cluster) -> str:
    """Return how far a cluster is that comes to another version; nothing if it does not."""
    status = cluster.status
    for condition in status.conditions:
        if condition.type is ConditionType.VERSION_CURRENT and condition.status != "True":
            return condition.message
    unseen = status.version not in ("", cluster.spec.version) and status.phase not in SLEEP_PHASES
    return "the operator has not taken it up yet" if unseen else ""


def state_of(version: str) -> str:
    """Return what a version is here: ``default``, ``offered``, ``deprecated``, or ``not offered``."""
    for number, release in enumerate(RELEASES):
        if release.version == version:
            return "default" if number == 0 else "deprecated" if release.deprecated else "offered"
    return "not offered"
