"""One cluster's nodes before the join gate: who is gated, what bars them now, and at the moment of a signature.

Neighbours: the controller announces what is barred to :mod:`haneul.dkos.signing`, and lets
:mod:`haneul.dkos.changing` take barred nodes out. A node that leaves keeps its ways until its pods have moved, but no
longer than they are given for that: whatever a tenant does to its Node objects holds no way open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from haneul.dkos.model import Cluster
from haneul.dkos.node_plan import NodePlan, may_run_pods, plan_nodes
from haneul.dkos.ports import GatedNode, JoinGate, ProvidedNode
from haneul.kernel.clock import Clock
from haneul.kernel.kube import Manifest

_UNKNOWN_ADDRESS = "its address is not known yet"


class GateKeeping:
    """Asks the gate about the nodes of one cluster."""

    def __init__(
        self,
        gate: JoinGate,
        *,
        read: Callable[[Cluster], Awaitable[Cluster | None]],
        observe: Callable[[Cluster], Awaitable[Sequence[ProvidedNode]]],
        clock: Clock,
    ) -> None:
        """``read`` returns a cluster as it is asked for now, ``observe`` its machines as they are now."""
        self._gate = gate
        self._read = read
        self._observe = observe
        self._clock = clock
        #: Since when machines that may run pods are on their way out, by name and instance.
        self._leaving: dict[tuple[str, str], float] = {}
        self._cluster: Cluster | None = None
        #: Whether the firewall may know something of the cluster; whoever was here before may have told it.
        self._told = True

    async def look(
        self, cluster: Cluster, plan: NodePlan, provided: Sequence[ProvidedNode], nodes: Sequence[Manifest] | None
    ) -> Mapping[str, str]:
        """Return what bars each gated node; the names of those that may join are not in it.

        ``nodes`` are the cluster's Node objects; None if its API server does not say.
        """
        self._cluster = cluster
        gated = [name for name, pool in sorted(plan.keep.items()) if pool.external_resources]
        if not gated and not self._told:
            return {}
        self._told = True
        machines = {machine.name: machine for machine in provided}
        joined = _joined(machines, nodes)
        now = self._clock.monotonic()
        given = cluster.spec.settings.drain_seconds
        overdue = {name for (name, _), since in self._leaving.items() if now - since >= given}
        leaving = [name for name in machines if name not in plan.keep]
        seen = [
            GatedNode(
                name,
                plan.keep.get(name),
                machines[name].address if name in machines else "",
                name in joined and name not in overdue,
            )
            for name in [*gated, *leaving]
        ]
        waits = await self._gate.look(cluster, seen)
        self._told = bool(seen)
        # What the gate does not speak of is barred: silence is no approval.
        found = {name: waits.get(name, _UNKNOWN_ADDRESS) for name in gated}
        barred = {name: why for name, why in found.items() if why}
        going = [(name, machines[name].instance) for name in (*barred, *leaving) if name in joined]
        self._leaving = {one: self._leaving.get(one, now) for one in going}
        return barred

    async def close(self, cluster: Cluster) -> None:
        """Close the ways of a cluster that nobody can read any more: nobody approved what it is now."""
        if self._told:
            await self._gate.leave(cluster)
            self._told = False

    async def bars(self, name: str) -> str:
        """Return what bars a node from a certificate now; its pool and its machine are looked at again for it."""
        cluster = None if self._cluster is None else await self._read(self._cluster)
        if cluster is None or cluster.spec_problem or cluster.deleting:
            return "what its cluster is asked to be is not known"
        pool = plan_nodes(cluster, (), ()).keep.get(name)
        if pool is None:
            return "no pool wants it"
        if not pool.external_resources:
            return ""
        address = next((one.address for one in await self._observe(cluster) if one.name == name), "")
        return await self._gate.bars(cluster, GatedNode(name, pool, address))


def _joined(machines: Mapping[str, ProvidedNode], nodes: Sequence[Manifest] | None) -> frozenset[str]:
    """Return the machines on which pods may run; all that run while nobody says which have joined."""
    if nodes is None:
        return frozenset(name for name, machine in machines.items() if machine.running)
    objects = {node["metadata"]["name"]: node for node in nodes}
    return frozenset(name for name, machine in machines.items() if may_run_pods(machine, objects.get(name)))
