"""Nodes that exist on paper: the embedded provider for dry runs and for the behaviour suite."""

from __future__ import annotations

import hashlib
import itertools

from haneul.dkos.model import Cluster
from haneul.dkos.ports import NodeAnnouncement, ProvidedNode
from haneul.kernel.clock import Clock


class MemoryNodes:
    """Keeps machines in a dictionary; a machine runs as soon as it is asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._machines: dict[tuple[str, str], ProvidedNode] = {}
        self._numbers = itertools.count(1)

    def revision(self, cluster: Cluster, node: NodeAnnouncement) -> str:
        """Return a digest of the machine's size, files, era and version."""
        made_from = (node.pool.cpu, node.pool.memory_mib, sorted(node.files.items()), node.era, node.version)
        return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]

    async def ensure(self, cluster: Cluster, node: NodeAnnouncement) -> None:
        """Keep the machine, or make a new one if its size, files, era or version changed."""
        revision = self.revision(cluster, node)
        kept = self._machines.get((cluster.uid, node.name))
        if kept is None or kept.revision != revision:
            number = next(self._numbers)
            machine = ProvidedNode(
                node.name,
                f"instance-{number}",
                f"192.0.2.{number}",
                running=True,
                started=self._clock.now(),
                era=node.era,
                revision=revision,
            )
            self._machines[(cluster.uid, node.name)] = machine

    async def observe(self, cluster: Cluster) -> list[ProvidedNode]:
        """Return the cluster's machines."""
        return [
            machine
            for (uid, _), machine in sorted(self._machines.items(), key=lambda entry: entry[0])
            if uid == cluster.uid
        ]

    async def remove(self, cluster: Cluster, name: str) -> None:
        """Forget the machine."""
        self._machines.pop((cluster.uid, name), None)
