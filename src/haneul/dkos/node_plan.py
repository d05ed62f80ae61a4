"""Which nodes a cluster should have, and what to do about the difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    plan: NodePlan, provided: Sequence[ProvidedNode], nodes: Sequence[Manifest]
) -> tuple[NodeStatus, ...]:
    """Return the status of every wanted node, from its machine and its Node object."""
    machines = {node.name: node for node in provided}
    objects = {node["metadata"]["name"]: node for node in nodes}
    return tuple(_status(name, pool, machines.get(name), objects.get(name)) for name, pool in sorted(plan.keep.items()))


def _status(name: str, pool: NodePool, machine: ProvidedNode | None, node: Manifest | None) -> NodeStatus:
    address = machine.address if machine else ""
    if machine is None or not machine.running:
        message = machine.message if machine and machine.message else "its machine is being made"
        return NodeStatus(name=name, pool=pool.name, address=address, message=message)
    if node is None:
        return NodeStatus(name=name, pool=pool.name, address=address, message="joining")
    ready = next((entry for entry in node.get("status", {}).get("conditions", []) if entry["type"] == "Ready"), None)
    if ready is not None and ready["status"] == "True":
        return NodeStatus(name=name, pool=pool.name, address=address, ready=True)
    message = ready["message"] if ready else "its kubelet starts"
    return NodeStatus(name=name, pool=pool.name, address=address, message=message)
