"""The volumes of a cluster's etcd members: made on well chosen hosts, and what is written down on them.

Neighbours: :mod:`haneul.dkos.etcd_slots` says what is written, :mod:`haneul.dkos.control_plane` renders volumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from haneul.dkos import control_plane
from haneul.dkos.control_plane import CLUSTER_LABEL, Placement
from haneul.dkos.etcd_slots import Slot, SlotState, claim_name, slot_of, volume_name, written
from haneul.dkos.model import Cluster
from haneul.kernel.kube import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    KubeClient,
    Manifest,
)


class EtcdVolumes:
    """The volumes of one cluster. What was read or made is kept until :meth:`forget`."""

    def __init__(self, client: KubeClient, data: str) -> None:
        self._client = client
        self._data = data
        self._slots: tuple[Slot, ...] | None = None
        self._kept = False

    def forget(self) -> None:
        """Read everything again."""
        self._slots, self._kept = None, False

    async def look(self, cluster: Cluster) -> tuple[Slot, ...]:
        """Return the places that have a volume, by index; of a cluster that has none yet, its founder's to be."""
        if self._slots is None:
            found = await self._client.list(PERSISTENT_VOLUMES, labels=f"{CLUSTER_LABEL}={cluster.uid}")
            slots = [slot_of(volume, control_plane.hosts_of(volume)[0]) for volume in found]
            self._slots = tuple(sorted(slots, key=lambda slot: slot.index)) or (Slot(0),)
        return self._slots

    async def keep(self, cluster: Cluster) -> None:
        """Make the founder's volume if there is none, and the claims of all; once."""
        slots = await self.look(cluster)
        if self._kept:
            return
        if slots == (Slot(0),):
            slots = (Slot(0, await self._host(cluster)),)
            # One after the other: a claim is bound at once only if its volume is there.
            await self._make(cluster, slots[0])
        else:
            # A volume's place never changes, but its claim may be missing: the process that made both ended between.
            staying = [slot for slot in slots if slot.state is not SlotState.LEAVING]
            await asyncio.gather(*(self._claim(cluster, slot) for slot in staying))
        self._slots, self._kept = slots, True

    async def prepare(self, cluster: Cluster, index: int) -> None:
        """Make the volume of a place that has none, on a host without another one of the cluster if there is one."""
        slot = Slot(index, await self._host(cluster), SlotState.EMPTY, "")
        await self._make(cluster, slot)
        self.forget()

    async def write(self, cluster: Cluster, index: int, state: SlotState, member: str) -> None:
        """Write down how far a place's member has come."""
        patch = {"metadata": {"annotations": written(state, member)}}
        await self._client.patch(PERSISTENT_VOLUMES, volume_name(cluster.uid, index), patch)
        self.forget()

    async def release(self, cluster: Cluster, index: int) -> None:
        """Delete a place's claim and volume, whose data is gone; the volume last, by which the place is known."""
        await self._client.delete(PERSISTENT_VOLUME_CLAIMS, claim_name(index), cluster.masters_namespace)
        await self._client.delete(PERSISTENT_VOLUMES, volume_name(cluster.uid, index))
        self.forget()

    async def _make(self, cluster: Cluster, slot: Slot) -> None:
        volume, claim = control_plane.volume(cluster, Placement(slot.host, self._data), slot.index)
        if slot.state is not SlotState.FOUNDER:
            volume["metadata"]["annotations"] = written(slot.state, slot.member)
        await self._client.apply(PERSISTENT_VOLUMES, volume)
        await self._client.apply(PERSISTENT_VOLUME_CLAIMS, claim)

    async def _claim(self, cluster: Cluster, slot: Slot) -> None:
        _, claim = control_plane.volume(cluster, Placement(slot.host, self._data), slot.index)
        await self._client.apply(PERSISTENT_VOLUME_CLAIMS, claim)

    async def _host(self, cluster: Cluster) -> str:
        volumes, nodes = await asyncio.gather(
            self._client.list(PERSISTENT_VOLUMES, labels="app.kubernetes.io/managed-by=haneul"),
            self._client.list(NODES),
        )
        own = [volume for volume in volumes if volume["metadata"]["labels"].get(CLUSTER_LABEL) == cluster.uid]
        taken = {host for volume in own for host in control_plane.hosts_of(volume)}
        return choose_host([node["metadata"]["name"] for node in nodes], volumes, avoid=taken)


def choose_host(hosts: Sequence[str], volumes: Sequence[Manifest], *, avoid: Collection[str] = ()) -> str:
    """Return the host that carries the fewest of the given volumes, the first by name among equals.

    One of ``avoid`` is chosen only if there is no other.
    """
    carried = dict.fromkeys(sorted(hosts), 0)
    for volume in volumes:
        for host in control_plane.hosts_of(volume):
            if host in carried:
                carried[host] += 1
    return min(carried, key=lambda host: (host in avoid, carried[host]))
