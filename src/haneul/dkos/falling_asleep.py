"""Ending what runs of a cluster that falls asleep: sees what is left, asks :mod:`hibernation` what is next, does it.

Called at every look; each call does one small step and waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL
from haneul.dkos.hibernation import PODS_LIFE, Remains
from haneul.dkos.model import Cluster, NodeProviderName
from haneul.dkos.ports import NodeProvider
from haneul.kernel.kube import PODS, KubeApiError, KubeClient, Manifest

_log = structlog.get_logger(__name__)
_AT_ONCE: Final = 8
_ENDED: Final = ("Succeeded", "Failed")


async def remains_of(
    management: KubeClient, providers: Mapping[NodeProviderName, NodeProvider], cluster: Cluster
) -> Remains:
    """Return what is left of a cluster."""
    pods = await management.list(PODS, labels=f"{CLUSTER_LABEL}={cluster.uid}")
    machines = [machine for provider in providers.values() for machine in await provider.observe(cluster)]
    return Remains(frozenset(pod["metadata"]["labels"].get(ROLE_LABEL, "") for pod in pods), bool(machines))


async def end_machines(providers: Mapping[NodeProviderName, NodeProvider], cluster: Cluster) -> None:
    """Ask for the end of the cluster's machines, which hold nothing that is to be kept."""
    async with asyncio.TaskGroup() as group:
        for provider in providers.values():
            for machine in await provider.observe(cluster):
                group.create_task(provider.remove(cluster, machine.name))


async def end_pods(tenant: KubeClient, *, ask: bool) -> int:
    """Ask the pods on nodes to end, each with its own time but within bounds; return how many have not ended.

    Only pods are ended that their controllers make anew when the cluster wakes. Others stay as objects, and their
    node's kubelet starts them again; so do pods of DaemonSets and of nodes, as far as they are not asked here.
    Nothing that could make a pod anew runs any more, so nothing has to be closed to new pods, and disruption budgets,
    which keep some pods while others move, have no meaning.
    """
    pods = [pod for pod in await tenant.list(PODS) if _ends(pod)]
    if ask:
        slots = asyncio.Semaphore(_AT_ONCE)
        asked = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        await asyncio.gather(*(_end(tenant, pod, slots) for pod in asked))
    return len(pods)


def _ends(pod: Manifest) -> bool:
    owners: Sequence[Manifest] = pod["metadata"].get("ownerReferences") or []
    return (
        any(owner.get("controller") and owner["kind"] != "Node" for owner in owners)
        and bool(pod.get("spec", {}).get("nodeName"))
        and pod.get("status", {}).get("phase") not in _ENDED
    )


async def _end(tenant: KubeClient, pod: Manifest, slots: asyncio.Semaphore) -> None:
    metadata = pod["metadata"]
    own = pod["spec"].get("terminationGracePeriodSeconds", 30)
    grace = min(int(own), int(PODS_LIFE.total_seconds()))
    async with slots:
        try:
            await tenant.delete(PODS, metadata["name"], metadata["namespace"], grace=grace)
        except KubeApiError as error:
            # Refused by somebody's webhook, perhaps; it ends with its node.
            _log.info("pod not asked to end", pod=f"{metadata['namespace']}/{metadata['name']}", reason=str(error))
