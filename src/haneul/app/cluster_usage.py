"""What quotas and usage need of other products: the ports of each on the services of the others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from fastapi import Request

from haneul import usage as usage_package
from haneul.dkos.cluster_store import ClusterStore
from haneul.dkos.model import Cluster
from haneul.dkos.quota import counts_for
from haneul.identity.gate import Gate
from haneul.identity.service import Identity
from haneul.usage.model import Shape, Sighting

USAGE_MIGRATIONS: Final = Path(usage_package.__file__).parent / "migrations"


class ClusterSightings:
    """Usage's port for clusters, on DKOS: what a cluster has is what its quota counts."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    async def look(self) -> list[Sighting]:
        """Return every cluster."""
        return [_sighting(cluster) for cluster in await self._store.list()]


def _sighting(cluster: Cluster) -> Sighting:
    amounts = counts_for(cluster)
    return Sighting(
        uid=cluster.uid,
        project=cluster.project,
        cluster=cluster.name,
        created=cluster.created,
        generation=cluster.generation,
        shape=Shape(amounts.nodes, amounts.millicores, amounts.memory_mib),
    )


class ProjectUsageAccess:
    """Usage's port for rights, on identity: everyone sees their projects, administrators all that ever were."""

    def __init__(self, gate: Gate, identity: Identity) -> None:
        self._gate = gate
        self._identity = identity

    async def visible(self, request: Request) -> Mapping[str, datetime] | None:
        """Return the caller's projects; of a name that was used before, only what came after counts as theirs."""
        caller = await self._gate.caller(request)
        if caller.admin:
            return None
        return {project.name: project.created for project in await self._identity.list_projects(caller)}
