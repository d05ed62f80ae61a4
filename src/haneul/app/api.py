"""The platform's REST API, composed: identity, DKOS, the firewall gate and usage behind one application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul import identity as identity_package
from haneul.app.cluster_usage import USAGE_MIGRATIONS, ClusterSightings, NoAddresses, ProjectUsageAccess
from haneul.app.firewall_access import (
    FIREWALL_MIGRATIONS,
    AskersOnRecord,
    AuditedByIdentity,
    NodesOfClusters,
    PeopleAtTheGate,
)
from haneul.dkos.admission import TakenRange
from haneul.dkos.cluster_store import ClusterStore, QuotaStore
from haneul.dkos.event_log import EventLog
from haneul.dkos.http import clusters_router
from haneul.dkos.ports import Caller as AnyCaller
from haneul.dkos.quota import QuotaLimits
from haneul.dkos.quota_http import quotas_router
from haneul.dkos.service import ClientAuthorities, ClusterService
from haneul.firewall.http import firewall_router
from haneul.firewall.ports import ApprovalBoard
from haneul.firewall.record import FirewallRecord
from haneul.firewall.service import FirewallService
from haneul.identity.http import Gate, identity_router
from haneul.identity.model import Caller, Role
from haneul.identity.platform_roles import PlatformRoles
from haneul.identity.platform_roles_http import platform_roles_router
from haneul.identity.secrets import SecretHasher
from haneul.identity.service import Identity
from haneul.kernel.clock import Clock
from haneul.kernel.database import migrate
from haneul.kernel.errors import ForbiddenError
from haneul.kernel.http import PROBLEM_RESPONSES, install
from haneul.usage.http import usage_router
from haneul.usage.record import UsageRecord
from haneul.usage.recorder import UsageRecorder

MIGRATIONS = Path(identity_package.__file__).parent / "migrations"


class ProjectAccess:
    """DKOS's port for rights, on identity: who looks is a viewer at least, who changes a developer."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def caller(self, request: Request) -> Caller:
        """Return who is behind the request."""
        return await self._gate.caller(request)

    async def look(self, caller: AnyCaller, project: str) -> str:
        """Let viewers through."""
        return await self._gate.require(_known(caller), project, Role.VIEWER)

    async def change(self, caller: AnyCaller, project: str) -> str:
        """Let developers through."""
        return await self._gate.require(_known(caller), project, Role.DEVELOPER)

    def administer(self, caller: AnyCaller) -> None:
        """Let administrators of the platform through."""
        if not _known(caller).admin:
            raise ForbiddenError("this is for platform administrators", hint="ask one of them")

    async def record(self, request: Request, caller: AnyCaller, action: str, target: str, project: str) -> None:
        """Record a change."""
        await self._gate.record(request, _known(caller), action, target, project)

    def now(self) -> datetime:
        """Return the moment."""
        return self._gate.now()


def _known(caller: AnyCaller) -> Caller:
    if not isinstance(caller, Caller):
        raise TypeError("callers come from this gate")
    return caller


class ClustersInProject:
    """Identity's port for what a project holds, on DKOS.

    A deleted project's namespace stays: it is empty, costs nothing, and keeps its events for who asks later.
    """

    def __init__(self, store: ClusterStore, quotas: QuotaStore) -> None:
        self._store = store
        self._quotas = quotas

    @asynccontextmanager
    async def closed(self, project: str) -> AsyncIterator[list[str]]:
        """Let no cluster be created meanwhile; yield the project's clusters in words.

        With the project, its quota ends.
        """
        async with self._store.closed(project) as clusters:
            yield [f"cluster {cluster.name}" for cluster in clusters]
            await self._quotas.set_quota(project, QuotaLimits())


def create_api(
    *,
    engine: AsyncEngine,
    store: ClusterStore,
    quotas: QuotaStore,
    authorities: ClientAuthorities,
    events: EventLog,
    board: ApprovalBoard,
    reserved: list[TakenRange],
    clock: Clock,
    version: str,
    heartbeat_seconds: float = 15.0,
) -> FastAPI:
    """Return the application. The database's schema is brought up to date when it starts.

    ``app.state.drain`` ends the streams, which would otherwise last as long as their clients; whoever serves the
    application calls it before it waits for open requests.
    """
    identity = Identity(engine, hasher=SecretHasher(clock), clock=clock)
    record = UsageRecord(engine, clock=clock)
    recorder = UsageRecorder(record, ClusterSightings(store))
    ways = FirewallRecord(engine, changes=AuditedByIdentity(identity), clock=clock)
    firewall = FirewallService(ways, board=board, wanted=NodesOfClusters(store))
    service = ClusterService(store, authorities=authorities, events=events, reserved=reserved, changed=recorder.changed)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await migrate(engine, MIGRATIONS)
            await migrate(engine, USAGE_MIGRATIONS)
            await migrate(engine, FIREWALL_MIGRATIONS)
            beside = [asyncio.create_task(recorder.run()), asyncio.create_task(firewall.run())]
            try:
                yield
            finally:
                for task in beside:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        finally:
            await service.close()
            await engine.dispose()

    app = FastAPI(
        title="Haneul",
        version=version,
        description="The platform's API: identity, clusters, the firewall gate, quotas and usage.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
    )
    install(app)
    app.state.drain = service.close
    gate, roles = Gate(identity, clock), PlatformRoles(engine, identity)
    access = ProjectAccess(gate)
    # The gate decides; this only says in the description of the API that a token is needed.
    token = [Depends(HTTPBearer(auto_error=False, scheme_name="token"))]
    for router in (
        identity_router(identity, gate, contents=ClustersInProject(store, quotas)),
        platform_roles_router(roles, gate),
        clusters_router(service, access, AskersOnRecord(ways, identity), heartbeat_seconds=heartbeat_seconds),
        firewall_router(firewall, PeopleAtTheGate(gate, identity, roles)),
        quotas_router(quotas, store, NoAddresses(), access),
        usage_router(record, ProjectUsageAccess(gate, identity), clock),
    ):
        app.include_router(router, prefix="/api/v1", dependencies=token)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> dict[str, str]:
        await identity.ready()
        await store.list()
        return {"status": "ready"}

    @app.get("/api/v1/version")
    async def show_version() -> dict[str, Any]:
        return {"version": version}

    return app
