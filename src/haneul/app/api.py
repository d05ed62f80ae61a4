"""The platform's REST API, composed: identity, DKOS, the firewall gate and usage behind one application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul import identity as identity_package
from haneul.app.benchmark_checks import ExaminationsOfClusters, MembersMayExamine
from haneul.app.cluster_usage import USAGE_MIGRATIONS, ClusterSightings, ProjectUsageAccess
from haneul.app.firewall_access import (
    FIREWALL_MIGRATIONS,
    AskersOnRecord,
    AuditedByIdentity,
    NodesOfClusters,
    PeopleAtTheGate,
)
from haneul.compliance.http import benchmark_router
from haneul.compliance.ports import LookStore
from haneul.dkos.admission import TakenRange
from haneul.dkos.authentication import token_audience
from haneul.dkos.backup.http import backups_router
from haneul.dkos.cluster_store import ClusterStore, QuotaStore
from haneul.dkos.event_log import EventLog
from haneul.dkos.http import clusters_router
from haneul.dkos.machine_http import machines_router
from haneul.dkos.machine_service import MachineService
from haneul.dkos.machine_store import MachineStore, PublicKeys
from haneul.dkos.model import Cluster
from haneul.dkos.ports import AddressUse, BackupCatalogues
from haneul.dkos.ports import Caller as AnyCaller
from haneul.dkos.quota import QuotaLimits
from haneul.dkos.quota_http import quotas_router
from haneul.dkos.service import ClientAuthorities, ClusterService
from haneul.dkos.upgrade_http import upgrades_router
from haneul.firewall.http import firewall_router
from haneul.firewall.ports import ApprovalBoard
from haneul.firewall.record import FirewallRecord
from haneul.firewall.service import FirewallService
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
from haneul.identity.proxies import Proxies
from haneul.identity.robots import Robots
from haneul.identity.robots_http import robots_router
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

    async def own(self, caller: AnyCaller, project: str) -> str:
        """Let owners through."""
        return await self._gate.require(_known(caller), project, Role.OWNER)

    def administer(self, caller: AnyCaller) -> None:
        """Let administrators of the platform through."""
        if not _known(caller).admin:
            raise ForbiddenError("this is for platform administrators", hint="ask one of them")

    def recording(
        self, request: Request, caller: AnyCaller, action: str, target: str, project: str
    ) -> AbstractAsyncContextManager[None]:
        """Record a change and how it went."""
        return self._gate.recording(request, _known(caller), action, target, project)

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
    """Identity's port for what a project holds, on DKOS.

    A deleted project's namespace stays: it is empty, costs nothing, and keeps its events for who asks later.
    """

    def __init__(
        self, store: ClusterStore, quotas: QuotaStore, machines: MachineService, backups: BackupCatalogues
    ) -> None:
        self._store = store
        self._backups = backups
        self._quotas = quotas
        self._machines = machines

    @asynccontextmanager
    async def closed(self, project: str) -> AsyncIterator[list[str]]:
        """Let no cluster be created meanwhile; yield the project's clusters and machines in words.

        With the project, its quota, the backups of clusters that it had, and the key to its machines end. Backups and
        key go first: were they left behind, by a process that ended in between, the next project of the name would
        have them.
        """
        async with self._store.closed(project) as clusters:
            machines = await self._machines.list(project)
            things = [f"cluster {cluster.name}" for cluster in clusters] + [f"machine {one.name}" for one in machines]
            if not things:
                await self._backups.withdraw(project)
                await self._machines.forget(project)
            yield things
            await self._quotas.set_quota(project, QuotaLimits())
            await self._machines.forget(project)


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do work that never ends by itself for as long as the block lasts."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def create_api(
    *,
    engine: AsyncEngine,
    store: ClusterStore,
    quotas: QuotaStore,
    addresses: AddressUse,
    machines: MachineStore,
    keys: PublicKeys,
    authorities: ClientAuthorities,
    events: EventLog,
    looks: LookStore,
    board: ApprovalBoard,
    backups: BackupCatalogues,
    reserved: list[TakenRange],
    clock: Clock,
    version: str,
    heartbeat_seconds: float = 15.0,
    sign_on: IssuerSettings | None = None,
    clusters_trust_issuer: bool = False,
    hasher: SecretHasher | None = None,
) -> FastAPI:
    """Return the application. The database's schema is brought up to date when it starts.

    With ``sign_on`` the platform signs people on in browsers; without, tokens are the only way in. Only where tenants'
    API servers were told to trust its issuer, ``clusters_trust_issuer`` may be set. ``hasher`` is one of another work.

    ``app.state.drain`` ends the streams, which would otherwise last as long as their clients; whoever serves the
    application calls it before it waits for open requests.
    """
    hasher, audit = hasher or SecretHasher(clock), AuditLog(engine, clock=clock)
    identity = Identity(engine, audit=audit, hasher=hasher, clock=clock)
    groups = Groups(engine, audit=audit, clock=clock)
    robots = Robots(engine, audit=audit, hasher=hasher, clock=clock)
    issuer = None if sign_on is None else Issuer(sign_on, engine, audit=audit, hasher=hasher, clock=clock)
    tokens = IssuedClusterTokens(issuer, clock) if issuer is not None and clusters_trust_issuer else None
    record = UsageRecord(engine, clock=clock)
    recorder = UsageRecorder(record, ClusterSightings(store))
    service = ClusterService(
        store,
        machines=machines,
        authorities=authorities,
        events=events,
        reserved=reserved,
        backups=backups,
        changed=recorder.changed,
        tokens=tokens,
    )
    ways = FirewallRecord(engine, changes=AuditedByIdentity(audit), clock=clock)
    firewall = FirewallService(ways, board=board, wanted=NodesOfClusters(store))
    proxies = Proxies(engine)
    machine_service = MachineService(machines, keys, store, reserved=[entry for entry in reserved if entry.inside])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await migrate(engine, MIGRATIONS)
            await migrate(engine, USAGE_MIGRATIONS)
            await migrate(engine, FIREWALL_MIGRATIONS)
            async with _beside(recorder.run(), firewall.run()):
                yield
        finally:
            await service.close()
            if issuer is not None:
                await issuer.close()
            await engine.dispose()

    app = FastAPI(
        title="Haneul",
        version=version,
        description="The platform's API: identity, clusters, machines, the firewall gate, quotas and usage.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
    )
    install(app)
    app.state.drain = service.close
    gate = Gate(Callers(engine, hasher=hasher, clock=clock, issuer=issuer), identity, audit=audit, clock=clock)
    access = ProjectAccess(gate)
    # The gate decides; this only says in the description of the API that a token is needed.
    token = [Depends(HTTPBearer(auto_error=False, scheme_name="token"))]
    for router in (
        identity_router(identity, gate, contents=ClustersInProject(store, quotas, machine_service, backups)),
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
    askers = AskersOnRecord(ways, proxies)
    for router in (
        clusters_router(service, access, askers, heartbeat_seconds=heartbeat_seconds),
        backups_router(service, access, askers),
        machines_router(machine_service, access),
        firewall_router(firewall, PeopleAtTheGate(gate, identity, proxies)),
        upgrades_router(service, access),
        quotas_router(quotas, store, addresses, access),
        benchmark_router(ExaminationsOfClusters(service, looks, clock), MembersMayExamine(gate)),
        usage_router(record, ProjectUsageAccess(gate, identity), clock),
    ):
        app.include_router(router, prefix="/api/v1", dependencies=[*token, Depends(gate.refusals)])

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
