"""The ingress of all clusters: each has an nginx of its own on this host, told by one program of what to serve.

That program is a host service, and root's: it makes users' folders and has services started. To the management cluster
it is a user of its own (:mod:`haneul.management.host_users`), to each other cluster a reader. What clusters' people
write, it parses into values and gives to an nginx without any right (:mod:`haneul.ingress.adapters.nginx.confined`).
An nginx runs as long as its cluster has something to serve. It is a host service too, so that it goes on, and comes
back, when this program, the masters or the management cluster are gone.

Whose switch is on has an audit trail besides (:mod:`haneul.app.platform_trail`).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from haneul.app.ingress import own_certificate
from haneul.app.ingress_hosts import GrantedHosts, Grantee
from haneul.app.platform import PlatformAuthority, PlatformFiles
from haneul.app.platform_gate import GateDoor, PlatformGate
from haneul.app.platform_issuer import PlatformIssuer, PublicIssuer
from haneul.app.platform_trail import Audit, Choice, ClusterTrails
from haneul.app.record_worker import Connect, RecordWorker
from haneul.dkos.adapters.kube_readers import KubeRecords
from haneul.dkos.address_claims import free_addresses
from haneul.dkos.cluster_record import ClusterRecord
from haneul.dkos.readers import INGRESS
from haneul.host.services import HostService, ServiceManager
from haneul.ingress.adapters.allowed_hosts import AllowedHosts
from haneul.ingress.adapters.issued_certificates import IssuedCertificates
from haneul.ingress.adapters.nginx.confined import SCRATCH, Confinement, kept
from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.ingress.adapters.nginx.proxy import LUA_FOLDER, NginxProxy
from haneul.ingress.asking import Gate
from haneul.ingress.controller import ClusterController, Pace
from haneul.ingress.model import Certificate, Routes, Scheme
from haneul.ingress.observed import SECRET_KEYS
from haneul.ingress.options import Options
from haneul.ingress.ports import Configuration, ConfigurationRefusedError
from haneul.ingress.reach import NodePorts
from haneul.ingress.rendering import Site, render_configuration
from haneul.ingress.table import Table
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.ending import told_to_end, work_until
from haneul.kernel.errors import HaneulError, InvalidInputError
from haneul.kernel.kube import KubeAccess, KubeClient
from haneul.kernel.kube_budget import Ledger
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.management import host_users
from haneul.management.ingress_host import NGINX, IngressFiles, user_of
from haneul.management.settings import ManagementSettings

_log = structlog.get_logger(__name__)
#: An nginx that died is started again by what keeps it, so that looking at it is for what nobody foresaw.
_PACE: Final = Pace(look=30.0)
_LUA: Final = "haneul.lua"
_DRAIN_SECONDS: Final = 300
_WORKERS: Final = 2
_GRANTS_SECONDS: Final = 5.0
_CREDENTIAL_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Ground:
    """What proxies stand on: their files, the range of addresses, the zone, the gate if there is one."""

    files: IngressFiles
    range: str
    zone: str
    gate: Gate | None = None
    program: str = str(NGINX)
    ports: tuple[int, int] = (80, 443)
    #: Who certifies hosts with public names.
    issuer: PublicIssuer | None = None


class HostKeeper:
    """Keeps an nginx running as a host service."""

    def __init__(self, services: ServiceManager, service: HostService) -> None:
        self._services = services
        self._service = service

    async def number(self) -> int | None:
        """Return the master's number."""
        states = {state.name: state for state in await self._services.states()}
        state = states.get(self._service.name)
        return state.pid if state else None

    async def start(self) -> None:
        """Define and start the service. Raises UnavailableError while nothing looks after host services."""
        await self._services.ensure(self._service)

    async def resume(self) -> None:
        """Start it if it is defined, and so has something to serve, but does not run."""
        if any(state.name == self._service.name for state in await self._services.states()):
            await self.start()

    async def end(self) -> bool:
        """Stop it and forget its definition."""
        if not any(state.name == self._service.name for state in await self._services.states()):
            return False
        await self._services.remove(self._service.name)
        return True


class OnDemand:
    """The port ``Proxy`` on an nginx that runs only while there is something to serve."""

    def __init__(self, proxy: NginxProxy) -> None:
        self._proxy = proxy
        self._idle = False

    async def check(self, configuration: Configuration) -> None:
        """Let nginx read it."""
        await self._proxy.check(configuration)

    async def route(self, configuration: Configuration, table: Table) -> None:
        """Serve it; end nginx if there is nothing."""
        self._idle = configuration.idle
        if self._idle:
            await self._proxy.end()
        else:
            await self._proxy.route(configuration, table)

    async def point(self, table: Table) -> None:
        """Change where requests go."""
        if not self._idle:
            await self._proxy.point(table)


class ClusterHosts:
    """The port ``Hosts``: a cluster has its own domain, and what it was granted."""

    def __init__(self, record: ClusterRecord, granted: GrantedHosts) -> None:
        self._record = record
        self._granted = granted

    async def refused(self, hosts: Sequence[str]) -> Mapping[str, str]:
        """Return the hosts that are neither."""
        record = self._record
        granted = await asyncio.to_thread(self._granted.of, record.uid)
        return await AllowedHosts((f"*.{record.domain}", *granted)).refused(hosts)


def grantee(record: ClusterRecord) -> Grantee:
    """Return a cluster as grants name it."""
    return Grantee(record.cluster, record.uid)


@dataclass(frozen=True)
class Place:
    """A cluster's nginx on this host."""

    folder: Path
    service: HostService
    user: int


def place_of(record: ClusterRecord, ground: Ground) -> Place:
    """Return where the nginx of a cluster is that has an address."""
    # Of two clusters that have a name one after the other, the first one's may still be on its way out.
    name = f"ingress-{record.name}.{record.project}.{record.uid[:8]}"
    folder = ground.files.proxies / record.uid
    user = user_of(record.address, ground.range)
    return Place(folder, HostService(name, kept(folder, user, ground.program)), user)


class IngressWork:
    """Serves a cluster's Ingress objects."""

    def __init__(
        self,
        ground: Ground,
        services: ServiceManager,
        management: KubeClient,
        *,
        connect: Connect,
        authority: PlatformAuthority,
        clock: Clock,
        trails: ClusterTrails,
        pace: Pace = _PACE,
    ) -> None:
        self._ground = ground
        self._services = services
        self._management = management
        self._connect = connect
        self._authority = authority
        self._clock = clock
        self._trails = trails
        self._pace = pace
        self.granted = GrantedHosts(ground.files.hosts, zone=ground.zone)
        self._controllers: dict[str, ClusterController] = {}

    async def follow(self, record: ClusterRecord) -> None:
        """Serve what the cluster says, at its own address, by its own nodes."""
        if record.access is None or not record.address:
            return
        await asyncio.to_thread(self.granted.adopt, grantee(record))
        proxy, place = self._proxy(record), place_of(record, self._ground)
        await proxy.lead_only_to(record.nodes)
        await HostKeeper(self._services, place.service).resume()
        while True:
            choice = await self._choice(record)
            audit = await self._trails.settle(choice, record.cluster, record.uid, place.folder, place.user)
            working = (
                asyncio.create_task(self._serve(record, record.access, proxy, audit)),
                asyncio.create_task(self._trails.other_than(choice, record.cluster, record.uid)),
            )
            try:
                await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                if working[0].done():
                    await working[0]
                    return
            finally:
                for task in working:
                    task.cancel()
                await asyncio.gather(*working, return_exceptions=True)

    async def _serve(self, record: ClusterRecord, access: KubeAccess, proxy: NginxProxy, audit: Audit | None) -> None:
        now = self._clock.now()
        own = await asyncio.to_thread(own_certificate, self._certificates(record), now)
        site = site_of(record.address, own, self._ground)
        issuer = self._ground.issuer
        if audit:
            looking = replace(site, audit_rules=audit.rules)
            try:
                await proxy.check(render_configuration(Routes(), looking))
                site = looking
            except ConfigurationRefusedError as error:
                # A site's own exclusions may be wrong, and are no reason to serve nothing new.
                _log.warning("nginx takes no audit rules", cluster=record.uid, detail=error.detail)

        def render(routes: Routes) -> Configuration:
            if audit:
                audit.policies.heed(routes)
            return render_configuration(routes, site)

        async with self._connect(access, record.project) as client:
            controller = ClusterController(
                client,
                OnDemand(proxy),
                ClusterHosts(record, self.granted),
                render,
                cluster=record.cluster,
                options=Options(
                    gate=self._ground.gate is not None,
                    ports={scheme: (port,) for scheme, port in zip(Scheme, self._ground.ports, strict=True)},
                    addresses=(record.address,),
                    supplied=True,
                    issuer=issuer is not None,
                    by_itself=issuer.names if issuer else None,
                ),
                addresses=(record.address,),
                clock=self._clock,
                pace=self._pace,
                reach=NodePorts(record.nodes),
                issuer=issuer.issuer(self._certificates(record), self._clock) if issuer else None,
                certificates=IssuedCertificates(
                    self._certificates(record) / "hosts", self._authority.read, clock=self._clock
                ),
            )
            self._controllers[record.uid] = controller
            _log.info("ingress is served", cluster=record.uid, address=record.address, nodes=len(record.nodes))
            try:
                await controller.run()
            finally:
                self._controllers.pop(record.uid, None)

    async def rest(self, record: ClusterRecord) -> None:
        """Answer that nobody is there, also after a `down`: the addresses of nodes that sleep may be others' soon.

        Raises InvalidInputError after that, if the file of grants was spoiled.
        """
        # It may be deleted without having been followed since; what it has by its name alone has to end with it.
        trouble = await self._change_grants(self.granted.adopt, record)
        if record.address:
            await self._proxy(record).lead_only_to(())
            place = place_of(record, self._ground)
            await HostKeeper(self._services, place.service).resume()
            choice = await self._choice(record)
            await self._trails.settle(choice, record.cluster, record.uid, place.folder, place.user)
        if trouble:
            raise trouble

    async def withdraw(self, record: ClusterRecord) -> None:
        """End the cluster's nginx and all that it had, its grants too; its address is free then.

        Raises InvalidInputError after that, if the file of grants was spoiled: the record stays until they are ended.
        """
        trouble = await self._change_grants(self.granted.end, record)
        if record.address:
            place = place_of(record, self._ground)
            await HostKeeper(self._services, place.service).end()
            await self._trails.forget(record.uid)
            for folder in (place.folder, self._certificates(record)):
                await asyncio.to_thread(_delete, folder)
        await free_addresses(self._management, INGRESS, record.uid)
        if trouble:
            raise trouble

    async def _change_grants(
        self, change: Callable[[Grantee], list[str] | None], record: ClusterRecord
    ) -> HaneulError | OSError | None:
        """Change what a cluster was granted; return what is wrong, which waits until all else is done."""
        try:
            if ended := await asyncio.to_thread(change, grantee(record)):
                _log.info("grants ended with their cluster", cluster=record.uid, hosts=ended)
        except (HaneulError, OSError) as error:
            return error
        return None

    async def look_at_grants(self) -> None:
        """Let all clusters be looked at when grants change, until cancelled."""
        seen = await self._grants()
        while True:
            await self._clock.sleep(_GRANTS_SECONDS)
            before, seen = seen, await self._grants()
            if seen != before:
                for controller in self._controllers.values():
                    controller.renew()

    async def _grants(self) -> bytes:
        try:
            return await asyncio.to_thread(self._ground.files.hosts.read_bytes)
        except FileNotFoundError:
            return b""

    async def _choice(self, record: ClusterRecord) -> Choice:
        return await asyncio.to_thread(self._trails.chosen, record.cluster, record.uid)

    def _proxy(self, record: ClusterRecord) -> NginxProxy:
        place = place_of(record, self._ground)
        keeper = HostKeeper(self._services, place.service)
        processes = NginxProcesses(
            place.folder,
            program=self._ground.program,
            user="",
            clock=self._clock,
            confinement=Confinement(place.user, keeper),
        )
        processes.prepare()
        processes.write({_LUA: (LUA_FOLDER / _LUA).read_bytes()})
        return NginxProxy(place.folder, processes)

    def _certificates(self, record: ClusterRecord) -> Path:
        return self._ground.files.certificates / record.uid


def _delete(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def site_of(address: str, certificate: Certificate, ground: Ground) -> Site:
    """Return where a cluster's nginx listens, and what it has; ``certificate`` is for hosts without one."""
    http, https = ground.ports
    return Site(
        (f"{address}:{http}",),
        (f"{address}:{https}",),
        https,
        certificate,
        folder=".",
        lua=".",
        workers=_WORKERS,
        gate=ground.gate,
        drain=_DRAIN_SECONDS,
        error_log="stderr",
        scratch=SCRATCH,
    )


def gate_of(settings: ManagementSettings) -> Gate | None:
    """Return the platform's sign-on gate as proxies know it."""
    return Gate(f"127.0.0.1:{settings.gate_port}")


async def serve_clusters(client: KubeClient, serving: IngressWork, *, clock: Clock) -> None:
    """Serve what all clusters say of which the management cluster has a record, until cancelled; proxies serve on."""
    board = KubeRecords(client, INGRESS)
    worker = RecordWorker(serving, board, clock=clock)
    try:
        await board.run(worker.know, worker.forget)
    finally:
        await worker.close()


async def tell_of_another(kubeconfig: Path, access: KubeAccess, told: asyncio.Event, *, clock: Clock) -> None:
    """Tell once a kubeconfig gives another access than it did; one that cannot be read tells nothing."""
    while True:
        await clock.sleep(_CREDENTIAL_SECONDS)
        with suppress(InvalidInputError):
            if await asyncio.to_thread(access_from_kubeconfig, kubeconfig) != access:
                break
    _log.info("another credential is there, with which to begin anew", file=str(kubeconfig))
    told.set()


def issuer_of(files: IngressFiles) -> PublicIssuer | None:
    """Return who certifies public hosts; nobody while what was kept of it cannot be read: all else is served."""
    try:
        return PlatformIssuer(files).made()
    except (HaneulError, OSError) as error:
        _log.warning("public hosts have certificates of the platform's authority only", detail=str(error))
        return None


async def run_worker(folder: Path) -> None:
    """Serve the Ingress objects of all clusters until told to end, or until its credential is another one.

    ``folder`` is ingress's, below the installation's state folder.
    """
    from haneul.app.installation import this_host  # noqa: PLC0415 - which starts this program

    told, clock, ledger = told_to_end(), SystemClock(), Ledger()
    installation = await this_host()
    settings = installation.settings
    files = IngressFiles(folder.parent)
    await installation.lifecycle.ingress.hold()
    ground = Ground(files, settings.ingress, settings.zone, gate_of(settings), issuer=issuer_of(files))
    authority = PlatformAuthority(PlatformFiles(settings.state))
    kubeconfig = host_users.INGRESS.kubeconfig(settings.state)
    access = access_from_kubeconfig(kubeconfig)

    def connect(tenant: KubeAccess, project: str) -> AbstractAsyncContextManager[KubeClient]:
        account = ledger.open(project, INGRESS.annotations, SECRET_KEYS)
        return HttpKubeClient(tenant, user_agent=INGRESS.name, account=account)

    async def work() -> None:
        async with HttpKubeClient(access, user_agent=INGRESS.name) as client:
            trails = ClusterTrails(files, clock=clock)
            serving = IngressWork(
                ground,
                installation.services,
                client,
                connect=connect,
                authority=authority,
                clock=clock,
                trails=trails,
            )
            door = GateDoor(
                PlatformGate(settings),
                installation.services,
                keeper=HostKeeper,
                authority=authority.read,
                clock=clock,
            )
            beside = [
                asyncio.create_task(serving.look_at_grants()),
                asyncio.create_task(door.keep()),
                asyncio.create_task(tell_of_another(kubeconfig, access, told, clock=clock)),
            ]
            try:
                await serve_clusters(client, serving, clock=clock)
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                await trails.close()

    await work_until(told, work())
    _log.info("ended; what is served is served on")
