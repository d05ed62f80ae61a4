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
from haneul.dkos.authentication import token_audience
from haneul.dkos.cluster_store import ClusterStore
from haneul.dkos.http import clusters_router
from haneul.dkos.model import Cluster
from haneul.dkos.ports import Caller as AnyCaller
from haneul.dkos.service import ClientAuthorities, ClusterService
from haneul.identity.audit import AuditLog
from haneul.identity.audit_http import audit_router
from haneul.identity.callers import Callers
from haneul.identity.gate import Gate
from haneul.identity.groups import Groups
from haneul.identity.groups_http import groups_router
from haneul.identity.http import identity_router
from haneul.identity.issuer.admin_http import issuer_admin_router
from haneul.identity.issuer.assembly import Issuer, IssuerSettings
from haneul.identity.issuer.authorize_pages import authorize_router
from haneul.identity.issuer.device_pages import device_router
from haneul.identity.issuer.http import issuer_router
from haneul.identity.issuer.model import CLUSTER_LIFE
from haneul.identity.issuer.provider_pages import provider_router
from haneul.identity.issuer.sign_on_pages import sign_on_router
from haneul.identity.model import Caller, Role
from haneul.identity.robots import Robots
from haneul.identity.robots_http import robots_router
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


class IssuedClusterTokens:
    """DKOS's port for clusters' tokens, on the issuer."""

    def __init__(self, issuer: Issuer, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock

    async def issue(self, person: str, role: str, cluster: Cluster) -> tuple[str, datetime]:
        """Return a token and when it ends."""
        ends = self._clock.now() + CLUSTER_LIFE
        return await self._issuer.tokens.cluster(person, role, token_audience(cluster)), ends


class ClustersInProject:
    """Identity's port for what a project holds, on DKOS."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    async def of(self, project: str) -> list[str]:
        """Return the project's clusters in words."""
        return [f"cluster {cluster.name}" for cluster in await self._store.list(project)]

    async def forget(self, project: str) -> None:
        """A project's namespace stays: it is empty, costs nothing, and keeps its events for who asks later."""


def create_api(
    *,
    engine: AsyncEngine,
    store: ClusterStore,
    authorities: ClientAuthorities,
    reserved: list[TakenRange],
    clock: Clock,
    version: str,
    heartbeat_seconds: float = 15.0,
    sign_on: IssuerSettings | None = None,
    clusters_trust_issuer: bool = False,
) -> FastAPI:
    """Return the application. The database's schema is brought up to date when it starts.

    With ``sign_on`` the platform signs people on in browsers; without, tokens are the only way in. Only where tenants'
    API servers were told to trust its issuer, ``clusters_trust_issuer`` may be set.

    ``app.state.drain`` ends the streams, which would otherwise last as long as their clients; whoever serves the
    application calls it before it waits for open requests.
    """
    hasher, audit = SecretHasher(clock), AuditLog(engine, clock=clock)
    identity = Identity(engine, audit=audit, hasher=hasher, clock=clock)
    groups = Groups(engine, audit=audit, clock=clock)
    robots = Robots(engine, audit=audit, hasher=hasher, clock=clock)
    issuer = None if sign_on is None else Issuer(sign_on, engine, audit=audit, hasher=hasher, clock=clock)
    tokens = IssuedClusterTokens(issuer, clock) if issuer is not None and clusters_trust_issuer else None
    service = ClusterService(store, authorities=authorities, reserved=reserved, tokens=tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await migrate(engine, MIGRATIONS)
            yield
        finally:
            await service.close()
            if issuer is not None:
                await issuer.close()
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
    gate = Gate(Callers(engine, hasher=hasher, clock=clock, issuer=issuer), identity, audit=audit, clock=clock)
    # The gate decides; this only says in the description of the API that a token is needed.
    token = [Depends(HTTPBearer(auto_error=False, scheme_name="token"))]
    for router in (
        identity_router(identity, gate, contents=ClustersInProject(store)),
        groups_router(groups, gate),
        robots_router(robots, gate),
        audit_router(audit, gate),
    ):
        app.include_router(router, prefix="/api/v1", dependencies=token)
    if issuer is not None:
        app.include_router(issuer_admin_router(issuer, gate), prefix="/api/v1", dependencies=token)
        for made in (issuer_router, authorize_router, sign_on_router, device_router):
            app.include_router(made(issuer))
        if issuer.provider is not None:
            app.include_router(provider_router(issuer, issuer.provider))
    clusters = clusters_router(service, ProjectAccess(gate), heartbeat_seconds=heartbeat_seconds)
    app.include_router(clusters, prefix="/api/v1", dependencies=[*token, Depends(gate.refusals)])

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
