"""Which nodes a cluster should have, and what to do about the difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from haneul.dkos.model import Cluster, NodePool, NodeStatus
from haneul.dkos.ports import ProvidedNode
from haneul.kernel.kube import Manifest


@dataclass(frozen=True)
class NodePlan:
    """``keep`` are the wanted nodes with their pools, ``drop`` the names of machines that no pool wants any more."""

    keep: Mapping[str, NodePool]
    drop: tuple[str, ...]


def plan_nodes(cluster: Cluster, provided: Sequence[ProvidedNode], registered: Sequence[str]) -> NodePlan:
    """Return the plan. ``registered`` are the names of the cluster's Node objects.

    A node is named after its pool and number or machine, so the same node comes back under the same name, and scaling
    down drops the highest numbers.
    """
    keep = {name: pool for pool in cluster.spec.node_pools for name in pool.node_names}
    known = {node.name for node in provided} | set(registered)
    return NodePlan(keep, tuple(sorted(known - keep.keys())))


def node_statuses(
    plan: NodePlan,
    provided: Sequence[ProvidedNode],
    nodes: Sequence[Manifest],
    barred: Mapping[str, str] | None = None,
) -> tuple[NodeStatus, ...]:
    """Return the status of every wanted node, from its machine, its Node object and what it is still barred from."""
    machines = {node.name: node for node in provided}
    objects = {node["metadata"]["name"]: node for node in nodes}
    return tuple(
        _status(name, pool, machines.get(name), objects.get(name), (barred or {}).get(name, ""))
        for name, pool in sorted(plan.keep.items())
    )


def _status(name: str, pool: NodePool, machine: ProvidedNode | None, node: Manifest | None, barred: str) -> NodeStatus:
    state, message = node_state(machine, node)
    address = machine.address if machine else ""
    ready = state is NodeState.READY
    if barred and machine is not None and machine.running:
        message = barred
    return NodeStatus(
        name=name,
        pool=pool.name,
        address=address,
        version=kubelet_version(node),
        ready=ready,
        message=message,
        barred=barred if address else "",
    )


def kubelet_version(node: Manifest | None) -> str:
    """Return the version that a node's kubelet last said to be; nothing before it ever joined."""
    said = (node or {}).get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
    return str(said).removeprefix("v")


class NodeState(Enum):
    """How far a machine is as a node. An ``EMPTY`` one has not joined since it was made, so no pod runs on it."""

    EMPTY = auto()
    NOT_READY = auto()
    READY = auto()


def what_matters(node: Manifest) -> tuple[object, ...]:
    """Return the part of a Node object on which decisions about it rest; the rest changes all the time."""
    ready = [entry["status"] for entry in node.get("status", {}).get("conditions", []) if entry["type"] == "Ready"]
    return (ready, node.get("spec", {}).get("unschedulable"), node["metadata"].get("annotations"))


def node_state(machine: ProvidedNode | None, node: Manifest | None) -> tuple[NodeState, str]:
    """Return a node's state, and in words what it waits for.

    A Node object outlives its machine: what it says counts only if its kubelet said so after this machine started.
    Both moments are whole seconds of the machine's own clock, and no machine joins within its first one.
    """
    if machine is None or not machine.running:
        return NodeState.EMPTY, machine.message if machine and machine.message else "its machine is being made"
    if node is None:
        return NodeState.EMPTY, "joining"
    conditions: list[dict[str, Any]] = node.get("status", {}).get("conditions", [])
    ready = next((entry for entry in conditions if entry["type"] == "Ready"), None)
    if ready is None:
        return NodeState.EMPTY, "its kubelet starts"
    said = ready.get("lastHeartbeatTime")
    if machine.started is not None and said and datetime.fromisoformat(said) <= machine.started:
        return NodeState.EMPTY, "joining again"
    if ready["status"] == "True":
        return NodeState.READY, ""
    return NodeState.NOT_READY, ready["message"]


def may_run_pods(machine: ProvidedNode | None, node: Manifest | None) -> bool:
    """Say whether a machine has joined, so that pods may run on it."""
    return node_state(machine, node)[0] is not NodeState.EMPTY
