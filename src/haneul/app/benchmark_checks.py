"""Checks of clusters against the benchmark, put together: the ports of DKOS and of compliance on each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog
from fastapi import Request

from haneul.compliance.benchmark import evaluate, findings
from haneul.compliance.gather import TenantPlace, gather_tenant
from haneul.compliance.model import Look, Report
from haneul.compliance.ports import LookStore
from haneul.dkos.control_plane import labels
from haneul.dkos.model import Cluster
from haneul.dkos.ports import NodeAnnouncement
from haneul.dkos.service import ClusterService
from haneul.identity.gate import Gate
from haneul.identity.model import Role
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeClient

_log = structlog.get_logger(__name__)
_EXAMINATION_SECONDS: Final = 30.0


class ClusterExaminer:
    """DKOS's port for examinations: the operator looks, and keeps the outcomes where the platform's API reads them."""

    def __init__(self, management: KubeClient, looks: LookStore, *, clock: Clock) -> None:
        self._management = management
        self._looks = looks
        self._clock = clock

    async def examine(self, cluster: Cluster, nodes: Mapping[str, NodeAnnouncement], tenant: KubeClient | None) -> None:
        """Examine a cluster; who waits for what could not be kept waits until their deadline."""
        place = TenantPlace(
            masters=cluster.masters_namespace,
            nodes=cluster.nodes_namespace,
            network=cluster.spec.network.plugin.value,
            node_files={name: node.files for name, node in nodes.items()},
        )
        try:
            async with asyncio.timeout(_EXAMINATION_SECONDS):
                snapshot = await gather_tenant(self._management, tenant, place)
                look = Look(asked=cluster.look_requested, examined=self._clock.now(), outcomes=evaluate(snapshot))
                await self._looks.write(cluster.masters_namespace, labels(cluster), look)
        except (HaneulError, TimeoutError) as error:
            _log.warning("cluster not examined", cluster=cluster.uid, error=str(error) or "it took too long")


class ExaminationsOfClusters:
    """Compliance's port for examinations, on DKOS."""

    def __init__(self, service: ClusterService, looks: LookStore, clock: Clock) -> None:
        self._service = service
        self._looks = looks
        self._clock = clock

    async def ask(self, project: str, name: str) -> str:
        """Ask the operator."""
        return await self._service.request_examination(project, name, now=self._clock.now())

    async def report(self, project: str, name: str) -> Report | None:
        """Return what the operator found last."""
        cluster = await self._service.get(project, name)
        look = await self._looks.read(cluster.masters_namespace)
        if look is None:
            return None
        items = findings("tenant", look.outcomes)
        return Report(subject=f"{project}/{name}", asked=look.asked, examined=look.examined, items=items)


class MembersMayExamine:
    """Compliance's port for rights, on identity: whoever sees a project may check its clusters."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def look(self, request: Request, project: str) -> None:
        """Let viewers through."""
        await self._gate.require(await self._gate.caller(request), project, Role.VIEWER)
