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
        self._machines: dict[tuple[str, str], tuple[str, ProvidedNode]] = {}
        self._numbers = itertools.count(1)

    async def ensure(self, cluster: Cluster, node: NodeAnnouncement) -> None:
        """Keep the machine, or make a new one if its files or its era changed."""
        made_from = hashlib.sha256(repr((sorted(node.files.items()), node.era)).encode()).hexdigest()
        kept = self._machines.get((cluster.uid, node.name))
        if kept is None or kept[0] != made_from:
            number = next(self._numbers)
            machine = ProvidedNode(
                node.name,
                f"instance-{number}",
                f"192.0.2.{number}",
                running=True,
                started=self._clock.now(),
                era=node.era,
            )
            self._machines[(cluster.uid, node.name)] = (made_from, machine)

    async def observe(self, cluster: Cluster) -> list[ProvidedNode]:
        """Return the cluster's machines."""
        return [machine for (uid, _), (_, machine) in sorted(self._machines.items()) if uid == cluster.uid]

    async def remove(self, cluster: Cluster, name: str) -> None:
        """Forget the machine."""
        self._machines.pop((cluster.uid, name), None)
