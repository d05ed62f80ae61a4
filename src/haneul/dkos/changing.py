"""Changing and removing a cluster's nodes: sees how they stand, asks :mod:`node_changes` what is next, and does it.

Called at every look that reaches the cluster's own API; each call does one small step and waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from haneul.dkos.draining import Drainer, mark, mark_replaced, marked_since, pods_left, release
from haneul.dkos.model import Cluster, NodeProviderName
from haneul.dkos.node_changes import Change, NodeView, Step, next_changes, progress, stopped
from haneul.dkos.node_plan import kubelet_version, may_run_pods, node_state
from haneul.dkos.ports import NodeAnnouncement, NodeProvider, ProvidedNode
from haneul.kernel.clock import Clock
from haneul.kernel.kube import NODES, KubeClient, Manifest

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Changing:
    """What there is to say of a cluster's nodes: what is under way, and what only goes on once somebody helps."""

    progress: str = ""
    stopped: str = ""


class NodeChanger:
    """Changes the nodes of one cluster, one after the other."""

    def __init__(self, providers: Mapping[NodeProviderName, NodeProvider], clock: Clock) -> None:
        self._providers = providers
        self._clock = clock
        self._drainer = Drainer(clock)

    def outdated(self, cluster: Cluster, node: NodeAnnouncement, machine: ProvidedNode | None) -> bool:
        """Say whether a node has a machine that was made from something else than it is announced with now."""
        provider = self._providers[node.pool.provider]
        return machine is not None and machine.revision != provider.revision(cluster, node)

    async def look(
        self,
        tenant: KubeClient,
        cluster: Cluster,
        announced: Mapping[str, NodeAnnouncement],
        provided: Sequence[ProvidedNode],
        nodes: Sequence[Manifest],
        barred: Mapping[str, str] | None = None,
    ) -> Changing:
        """Bring the nodes one step closer to what is announced; return in words what is under way.

        A ``barred`` node that runs pods leaves like one that no pool wants; its machine is made anew after that.
        """
        machines = {machine.name: machine for machine in provided}
        objects = {node["metadata"]["name"]: node for node in nodes}
        leave = {name for name in barred or () if may_run_pods(machines.get(name), objects.get(name))}
        announced = {name: node for name, node in announced.items() if name not in leave}
        views = {
            name: replace(
                self._view(cluster, name, announced.get(name), machines.get(name), objects.get(name)),
                barred=name in (barred or ()) and name not in leave,
            )
            for name in sorted({*announced, *machines, *objects})
        }
        now = self._clock.now()
        changes = next_changes(tuple(views.values()), now)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._do(tenant, cluster, change, objects.get(change.node), announced.get(change.node))
                )
                for change in changes
            ]
        for change, task in zip(changes, tasks, strict=True):
            if said := task.result():
                views[change.node] = replace(views[change.node], message=said, held=self._drainer.held(change.node))
        seen = tuple(views.values())
        return Changing(progress(seen), stopped(seen, now))

    def _view(
        self,
        cluster: Cluster,
        name: str,
        announced: NodeAnnouncement | None,
        machine: ProvidedNode | None,
        node: Manifest | None,
    ) -> NodeView:
        state, message = node_state(machine, node)
        return NodeView(
            name,
            announced.pool.name if announced else "",
            state,
            made=machine is not None,
            joined=node is not None,
            current=announced is None or not self.outdated(cluster, announced, machine),
            marked=marked_since(node, self._clock.now()),
            patient=announced is not None and kubelet_version(node) not in ("", announced.version),
            drain_life=timedelta(seconds=cluster.spec.settings.drain_seconds),
            started=machine.started if machine is not None else None,
            message="; ".join(filter(None, (pods_left(node), message))),
        )

    async def _do(
        self,
        tenant: KubeClient,
        cluster: Cluster,
        change: Change,
        node: Manifest | None,
        announced: NodeAnnouncement | None,
    ) -> str:
        """Do one step; return what there is to say of it while it goes on."""
        step = change.step
        if node is not None:
            match step:
                case Step.MARK:
                    await mark(tenant, node, self._clock.now())
                    return "it takes no new pods"
                case Step.RELEASE:
                    await release(tenant, node)
                    return ""
                case Step.DRAIN:
                    together = announced is not None and kubelet_version(node) not in ("", announced.version)
                    if left := await self._drainer.drain(tenant, change.node, together=together):
                        return f"{len(left)} pods are still to move"
                case Step.REPLACE | Step.REMOVE if marked_since(node, self._clock.now()) is not None:
                    await self._drainer.note_left(tenant, node)
        _log.info("node is changed" if announced else "node is removed", cluster=cluster.uid, node=change.node)
        if announced is not None:
            await self._providers[announced.pool.provider].ensure(cluster, announced)
            if node is not None and marked_since(node, self._clock.now()) is not None:
                await mark_replaced(tenant, node, self._clock.now())
            return "its machine is being made anew"
        for provider in self._providers.values():
            await provider.remove(cluster, change.node)
        await tenant.delete(NODES, change.node)
        return ""
