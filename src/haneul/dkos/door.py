"""Pointing a sleeping cluster's API to the waker, and telling the waker of it.

A sleeping cluster's Service has no pod. It gets an EndpointSlice of ours beside the one that Kubernetes keeps, so that
what comes to the cluster's address and node port goes to the waker: to the port of the same number as the node port,
by which the waker knows the cluster. A ConfigMap in the waker's namespace, one for each sleeping cluster, is what the
waker knows of it and where it notes that the cluster is asked for. Neighbour: :mod:`haneul.dkos.waker`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from haneul.dkos.control_plane import labels
from haneul.dkos.model import Cluster
from haneul.kernel.kube import CONFIG_MAPS, ENDPOINT_SLICES, PODS, KubeClient, Manifest, is_ready

WAKER_NAMESPACE: Final = "haneul-waker"
WAKER_NAME: Final = "haneul-waker"
_SLEEPER_ROLE: Final = "sleeper"
SLEEPER_LABELS: Final = f"dkos.haneul.dev/role={_SLEEPER_ROLE}"
#: What node ports are: :mod:`haneul.management` sets the same range for the management cluster.
NODE_PORTS: Final = (30000, 39999)
_SLICE: Final = "kube-apiserver-waker"
_API_PORT: Final = 6443


@dataclass(frozen=True)
class Sleeper:
    """A sleeping cluster as the waker knows it. ``target`` is its API server's pod once that is ready."""

    uid: str
    project: str
    port: int
    target: str = ""
    requested: bool = False


def record_name(uid: str) -> str:
    """Return the name of the ConfigMap of one sleeping cluster."""
    return f"asleep-{uid}"


def record_of(cluster: Cluster, sleeper: Sleeper) -> Manifest:
    """Return the ConfigMap of a sleeping cluster."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(cluster.uid),
            "namespace": WAKER_NAMESPACE,
            "labels": labels(cluster, _SLEEPER_ROLE),
        },
        "data": {
            "uid": sleeper.uid,
            "project": sleeper.project,
            "port": str(sleeper.port),
            "target": sleeper.target,
        },
    }


def sleeper_of(record: Manifest) -> Sleeper | None:
    """Read a ConfigMap; None if it is no record of a sleeping cluster."""
    data: dict[str, Any] = record.get("data") or {}
    try:
        port = int(data["port"])
        found = Sleeper(data["uid"], data["project"], port, data.get("target", ""), bool(data.get("requested")))
    except (KeyError, ValueError):
        return None
    return found if NODE_PORTS[0] <= port <= NODE_PORTS[1] else None


def request_patch(moment: str | None) -> Manifest:
    """Return what the waker changes of a record when its cluster is asked for; None takes that back."""
    return {"data": {"requested": moment}}


def endpoint_slice(cluster: Cluster, port: int, wakers: tuple[str, ...]) -> Manifest:
    """Return the slice that brings the API's connections to the waker (Kubernetes documentation "EndpointSlices")."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": _SLICE,
            "namespace": cluster.masters_namespace,
            "labels": {
                **labels(cluster),
                "kubernetes.io/service-name": "kube-apiserver",
                "endpointslice.kubernetes.io/managed-by": "dkos.haneul.dev",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in wakers],
    }


class Wakers:
    """Where wakers are; kept by :meth:`run`."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self._pods: dict[str, str] = {}

    async def run(self, client: KubeClient, changed: Callable[[], None]) -> None:
        """Keep the addresses, and call ``changed`` whenever they are others; until cancelled."""
        async for event in client.watch(PODS, WAKER_NAMESPACE, labels=f"app.kubernetes.io/name={WAKER_NAME}"):
            pod = event.object
            address = "" if event.type == "DELETED" else _ready_address(pod)
            self._pods[pod["metadata"]["name"]] = address
            if not address:
                del self._pods[pod["metadata"]["name"]]
            addresses = tuple(sorted(self._pods.values()))
            if addresses != self.addresses:
                self.addresses = addresses
                changed()


def _ready_address(pod: Mapping[str, Any]) -> str:
    if not is_ready(pod) or "deletionTimestamp" in pod["metadata"]:
        return ""
    return str(pod["status"].get("podIP", ""))


class Door:
    """The door of one cluster's API. Every method may be repeated; what was done last by this process is not again."""

    def __init__(self, client: KubeClient, wakers: Wakers) -> None:
        self._client = client
        self._wakers = wakers
        self._done: tuple[object, ...] = ()

    def stands(self, cluster: Cluster) -> bool:
        """Say whether the waker stands there as this process put it, and there is no other waker since."""
        return self._done == ("closed", cluster.uid, self._wakers.addresses, cluster.spec.hibernation.wake_on_request)

    def forget(self) -> None:
        """Do everything again, in case somebody else changed it."""
        self._done = ()

    async def close(self, cluster: Cluster, port: int) -> None:
        """Put the waker before a sleeping cluster; nobody, if requests shall not wake it."""
        addresses = self._wakers.addresses
        if not cluster.spec.hibernation.wake_on_request:
            await self.clear(cluster)
        elif not self.stands(cluster):
            await self._client.apply(CONFIG_MAPS, record_of(cluster, Sleeper(cluster.uid, cluster.project, port)))
            await self._client.apply(ENDPOINT_SLICES, endpoint_slice(cluster, port, addresses))
        self._done = ("closed", cluster.uid, addresses, cluster.spec.hibernation.wake_on_request)

    async def open(self, cluster: Cluster, port: int, address: str) -> None:
        """Let connections go to the API server, ready at ``address``, and have the waker pass on what it holds."""
        if not cluster.spec.hibernation.wake_on_request:
            await self.clear(cluster)
            return
        if self._done == ("open", address):
            return
        sleeper = replace(Sleeper(cluster.uid, cluster.project, port), target=f"{address}:{_API_PORT}")
        await asyncio.gather(
            self._client.apply(CONFIG_MAPS, record_of(cluster, sleeper)),
            self._client.delete(ENDPOINT_SLICES, _SLICE, cluster.masters_namespace),
        )
        self._done = ("open", address)

    async def is_asked_for(self, cluster: Cluster) -> bool:
        """Say whether the waker has noted that the sleeping cluster is asked for."""
        record = await self._client.get(CONFIG_MAPS, record_name(cluster.uid), WAKER_NAMESPACE)
        sleeper = sleeper_of(record) if record else None
        return sleeper is not None and sleeper.requested

    async def dismiss(self, cluster: Cluster) -> None:
        """Forget that the sleeping cluster is asked for; who still waits for it has it noted again."""
        await self._client.patch(CONFIG_MAPS, record_name(cluster.uid), request_patch(None), WAKER_NAMESPACE)

    async def clear(self, cluster: Cluster) -> None:
        """Leave nothing before the API, and nothing with the waker."""
        if self._done == ("clear",):
            return
        await self._client.delete(ENDPOINT_SLICES, _SLICE, cluster.masters_namespace)
        await self._client.delete(CONFIG_MAPS, record_name(cluster.uid), WAKER_NAMESPACE)
        self._done = ("clear",)


async def watch_requests(client: KubeClient, noted: Callable[[str, bool], None]) -> None:
    """Call ``noted`` with the uid of each sleeping cluster, and whether it is asked for; until cancelled."""
    async for event in client.watch(CONFIG_MAPS, WAKER_NAMESPACE, labels=SLEEPER_LABELS):
        if sleeper := sleeper_of(event.object):
            noted(sleeper.uid, event.type != "DELETED" and sleeper.requested)
