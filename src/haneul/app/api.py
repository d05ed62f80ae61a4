"""The platform's REST API, composed: identity and DKOS behind one application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul import identity as identity_package
from haneul.dkos.admission import TakenRange
from haneul.dkos.cluster_store import ClusterStore
from haneul.dkos.http import clusters_router
from haneul.dkos.machine_http import machines_router
from haneul.dkos.machine_service import MachineService
from haneul.dkos.machine_store import MachineStore, PublicKeys
from haneul.dkos.ports import Caller as AnyCaller
from haneul.dkos.service import ClientAuthorities, ClusterService
from haneul.identity.http import Gate, identity_router
from haneul.identity.model import Caller, Role
from haneul.identity.secrets import SecretHasher
from haneul.identity.service import Identity
from haneul.kernel.clock import Clock
from haneul.kernel.database import migrate
from haneul.kernel.http import PROBLEM_RESPONSES, install

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
    """Identity's port for what a project holds, on DKOS."""

    def __init__(self, store: ClusterStore, machines: MachineService) -> None:
        self._store = store
        self._machines = machines

    async def of(self, project: str) -> list[str]:
        """Return the project's clusters and machines in words."""
        clusters = [f"cluster {cluster.name}" for cluster in await self._store.list(project)]
        return clusters + [f"machine {machine.name}" for machine in await self._machines.list(project)]

    async def forget(self, project: str) -> None:
        """Delete the key to the project's machines.

        Its namespace stays: it is empty, costs nothing, and keeps its events for who asks later.
        """
        await self._machines.forget(project)


def create_api(
    *,
    engine: AsyncEngine,
    store: ClusterStore,
    machines: MachineStore,
    keys: PublicKeys,
    authorities: ClientAuthorities,
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
    service = ClusterService(store, machines=machines, authorities=authorities, reserved=reserved)
    machine_service = MachineService(machines, keys, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await migrate(engine, MIGRATIONS)
            yield
        finally:
            await service.close()
            await engine.dispose()

    app = FastAPI(
        title="Haneul",
        version=version,
        description="The platform's API: identity and clusters.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
    )
    install(app)
    app.state.drain = service.close
    gate = Gate(identity, clock)
    # The gate decides; this only says in the description of the API that a token is needed.
    token = [Depends(HTTPBearer(auto_error=False, scheme_name="token"))]
    for router in (
        identity_router(identity, gate, contents=ClustersInProject(store, machine_service)),
        clusters_router(service, ProjectAccess(gate), heartbeat_seconds=heartbeat_seconds),
        machines_router(machine_service, ProjectAccess(gate)),
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
