"""Removing all that was made for a cluster, and only that; may be repeated from any state."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from haneul.dkos.control_plane import CLUSTER_LABEL, hosts_of, labels
from haneul.dkos.door import WAKER_NAMESPACE, record_name
from haneul.dkos.etcd_slots import member_name
from haneul.dkos.events import Event, Reason, event, teardown_waits
from haneul.dkos.model import Cluster
from haneul.dkos.restore_jobs import end_jobs
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    CONFIG_MAPS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    KubeClient,
    Manifest,
    is_true,
)
from haneul.kernel.waiting import wait_for

_NAMESPACE_SECONDS, _WIPE_SECONDS = 180.0, 60.0
_GRACE_SECONDS = 1


async def tear_down(
    client: KubeClient, cluster: Cluster, *, toolbox: str, data: str, clock: Clock, tell: Callable[[Event], None]
) -> None:
    """Remove the cluster's namespaces, volumes and data, in the order in which nothing is made again.

    ``data`` is the folder on every management host that holds the clusters' data; ``tell`` takes note of what is
    being waited for, and never waits itself. Raises DeadlineExceededError when
    something does not go away in time; calling it again goes on.
    """
    tell(event(Reason.DELETING, "the cluster is being deleted: its nodes, its masters, then its data"))
    for namespace, what in ((cluster.nodes_namespace, "nodes"), (cluster.masters_namespace, "masters")):
        if await client.delete(NAMESPACES, namespace):
            tell(teardown_waits(f"the {what} to end (namespace {namespace})"))
    if not await end_jobs(client, cluster):
        tell(teardown_waits("the jobs of its restore to end"))
    await client.delete(CONFIG_MAPS, record_name(cluster.uid), WAKER_NAMESPACE)
    await _end_content(client, cluster)
    for namespace in (cluster.nodes_namespace, cluster.masters_namespace):

        async def gone(name: str = namespace) -> bool:
            return await client.get(NAMESPACES, name) is None

        await wait_for(gone, what=f"the namespace {namespace} to end", timeout=_NAMESPACE_SECONDS, clock=clock)

    async def jobs_gone() -> bool:
        return await end_jobs(client, cluster)

    # One that still wrote would bring the data back after it was deleted.
    await wait_for(jobs_gone, what="the jobs of its restore to end", timeout=_NAMESPACE_SECONDS, clock=clock)
    volumes = await client.list(PERSISTENT_VOLUMES, labels=f"{CLUSTER_LABEL}={cluster.uid}")
    for host in sorted({host for volume in volumes for host in hosts_of(volume)}):
        if await client.get(NODES, host) is None:
            tell(event(Reason.DELETING, f"what lies on {host} stays there: the platform has no such host any more"))
            continue
        tell(teardown_waits(f"the data on {host} to be deleted"))
        await _wipe(client, cluster, host, toolbox=toolbox, data=data, clock=clock)
    # The volumes go last: as long as one is there, a repeated call knows where data may be left.
    for volume in volumes:
        await client.delete(PERSISTENT_VOLUMES, volume["metadata"]["name"])
    tell(event(Reason.DELETED, "all that was made for the cluster is gone"))


async def _end_content(client: KubeClient, cluster: Cluster) -> None:
    """Ask the pods and claims of the ended namespaces to go now.

    Kubernetes looks at what is in an ended namespace only after five seconds, and again and again as long as pods are
    there with the time that they asked for; nobody needs what these pods would still do. In an ended namespace nothing
    is made anew.
    """
    async with asyncio.TaskGroup() as group:
        for namespace in (cluster.nodes_namespace, cluster.masters_namespace):
            for resource in (PODS, PERSISTENT_VOLUME_CLAIMS):
                for found in await client.list(resource, namespace):
                    grace = _GRACE_SECONDS if resource == PODS else None
                    group.create_task(client.delete(resource, found["metadata"]["name"], namespace, grace=grace))


async def _wipe(client: KubeClient, cluster: Cluster, host: str, *, toolbox: str, data: str, clock: Clock) -> None:
    job = wipe_job(cluster, host, toolbox=toolbox, data=data)
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    await client.apply(JOBS, job)

    async def done() -> bool:
        found = await client.get(JOBS, name, namespace) or {}
        if is_true(found, "Failed"):
            await client.delete(JOBS, name, namespace)
            raise UnavailableError(f"the data on {host} could not be deleted", hint="it is tried again")
        return bool(found.get("status", {}).get("succeeded"))

    await wait_for(done, what=f"the data on {host} to be deleted", timeout=_WIPE_SECONDS, clock=clock)
    await client.delete(JOBS, name, namespace)


def wipe_job(cluster: Cluster, host: str, *, toolbox: str, data: str, place: int | None = None) -> Manifest:
    """Return the job that deletes the cluster's folder on one host, and can reach no other cluster's files by name.

    With a ``place``, only that etcd member's part of it.
    """
    part = "" if place is None else f"/{member_name(place)}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            # Hosts' names are too long to stand in a job's name and may differ at their ends only.
            "name": f"wipe-{cluster.uid}-{hashlib.sha256(f'{host}{part}'.encode()).hexdigest()[:8]}",
            "namespace": "haneul-system",
            "labels": labels(cluster),
        },
        "spec": {
            "backoffLimit": 5,
            "ttlSecondsAfterFinished": 600,
            "template": {
                "metadata": {"labels": labels(cluster, "wipe")},
                "spec": {
                    "restartPolicy": "OnFailure",
                    "nodeSelector": {"kubernetes.io/hostname": host},
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "wipe",
                            "image": toolbox,
                            "imagePullPolicy": "IfNotPresent",
                            "args": ["rm", "-rf", f"/clusters/{cluster.uid}{part}"],
                            "volumeMounts": [{"name": "clusters", "mountPath": "/clusters"}],
                            "securityContext": {
                                "readOnlyRootFilesystem": True,
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "FOWNER"]},
                            },
                            "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "64Mi"}},
                        }
                    ],
                    "volumes": [{"name": "clusters", "hostPath": {"path": data, "type": "DirectoryOrCreate"}}],
                },
            },
        },
    }
