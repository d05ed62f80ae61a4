"""An installation on this host, put together: settings from the host's facts, services, cluster, platform."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from haneul.app import platform_kage
from haneul.app.hub_content import HubContent
from haneul.app.platform import API_PORT, Platform
from haneul.app.platform_balancer import PlatformBalancer, networks_of, settings_of
from haneul.app.platform_gate import SERVICE as GATE
from haneul.app.platform_gate import PlatformGate, administrator_token
from haneul.app.platform_issuer import PlatformIssuer
from haneul.app.switches import NOTHING_TOLD, Switches
from haneul.cli.context import Context, Contexts
from haneul.components.store import ComponentStore
from haneul.host import facts
from haneul.host.doctor_gather import PORTS, PORTS_AT_ADDRESS, Expectations, taken_ports
from haneul.host.networks import host_networks, name_servers, nameservers
from haneul.host.services import HostService, ServiceManager, made_from
from haneul.host.supervisord import Supervisord
from haneul.host.systemd import Systemd
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError, HostNotReadyError, UnauthenticatedError
from haneul.kernel.progress import Progress
from haneul.management.certificates import Held
from haneul.management.containers import SYSTEM_PATH
from haneul.management.host_lock import host_lock
from haneul.management.image_hub import ImageHub
from haneul.management.ingress_host import range_of, worker_service
from haneul.management.lifecycle import Lifecycle
from haneul.management.name_server import resolvers_of, zone_of
from haneul.management.purge import purge
from haneul.management.ranges import ranges_of
from haneul.management.settings import ManagementSettings

CACHE_VARIABLE = "HANEUL_CACHE"
_DEFAULT_CACHE = Path("/var/cache/haneul")
#: In the foreground it stays among the processes that are ended with the service.
_WITHIN_AN_HOUR: Final = ("timeout", "--foreground", "--kill-after=60", "3600")


def project_folder() -> Path:
    """Return the folder of the project that this code runs from."""
    return Path(__file__).resolve().parents[3]


def component_store() -> ComponentStore:
    """Return the store of built components; ``$HANEUL_CACHE`` names another cache."""
    cache = Path(os.environ.get(CACHE_VARIABLE, str(_DEFAULT_CACHE)))
    return ComponentStore(cache=cache, project=project_folder())


@dataclass(frozen=True)
class Installation:
    """What commands on this host work with."""

    settings: ManagementSettings
    services: ServiceManager
    store: ComponentStore
    lifecycle: Lifecycle
    platform: Platform
    balancer: PlatformBalancer

    async def up(self, progress: Progress, switches: Switches = NOTHING_TOLD) -> None:
        """Build what is missing, bring everything up, and sign root in; ``switches`` are those of its settings.

        Raises HostNotReadyError, before anything is changed, if another program has one of our ports, and ConflictError
        if another command is changing this host. What is wrong with images is raised when all else is done.
        """
        await self._refuse_foreign_ports()
        with self._changing("haneul up"):
            switches.keep(self.settings.state)
            await self.store.build([], progress)
            if self.platform.content.needs_store:
                await self.store.build(["swift"], progress)
            await self.lifecycle.up(progress)
            # After what clusters run without: they come back also where it cannot start.
            with progress.stage("start the load balancer", expected_seconds=2):
                await self.balancer.start()
            await self.platform.up(progress)
            unsettled = None
            try:
                await self.platform.settle_images(progress)
            except HaneulError as error:
                unsettled = error
            await self.services.ensure(renewal_service(self.settings.state))
            with progress.stage("start ingress and its sign-on", expected_seconds=2):
                await self._start_ingress()
            self.sign_root_in()
            if unsettled is not None:
                raise unsettled

    async def down(self, progress: Progress) -> None:
        """Stop everything that runs. Raises ConflictError if another command is changing this host."""
        with self._changing("haneul down"):
            await self.lifecycle.down(progress)

    def _changing(self, what: str) -> AbstractContextManager[None]:
        return host_lock(self.settings.state, what, clock=SystemClock())

    async def _start_ingress(self) -> None:
        build = self.store.image_archive("platform").stem
        gate = PlatformGate(self.settings)
        await gate.sign_up(administrator_token(self.settings))
        if gate.is_of_before():
            # A session that it ends while its files move would be one again.
            await self.services.stop(GATE)
        gate.prepare(clock=SystemClock())
        await self.services.ensure(gate.service(build=build, search_path=SYSTEM_PATH, environment=cache_variable()))
        # The worker reads once who certifies public hosts.
        environment = (made_from(PlatformIssuer(self.lifecycle.ingress.files).told()), *cache_variable())
        await self.lifecycle.ingress.start(
            worker_service(self.settings.state, build=build, search_path=SYSTEM_PATH, environment=environment)
        )

    async def renew(self) -> None:
        """Renew every certificate of this host that is due."""
        await self.lifecycle.renew()
        await self.platform.renew()

    def certificates(self) -> list[Held]:
        """Return every certificate that this host has."""
        lifecycle = self.lifecycle
        return [*lifecycle.certificates.look(), *lifecycle.users.look(), *self.platform.certificates()]

    async def _refuse_foreign_ports(self) -> None:
        settings = self.settings
        wanted = Expectations(
            state=settings.state,
            runtime=settings.runtime,
            cache=self.store.cache,
            address=settings.address,
            ports=ports(kage=settings.kage),
            ports_at_address=ports_at_address(hub=settings.hub),
        )
        for port in await asyncio.to_thread(taken_ports, wanted):
            # One that ended while it was looked for is no reason to refuse.
            if not port.ours and port.pid is not None:
                raise HostNotReadyError(
                    f"port {port.port} is taken by {port.holder}: {port.purpose} cannot listen",
                    hint="stop it or move it to another port; 'haneul doctor' shows all that stands in the way",
                )

    async def purge(self, progress: Progress) -> None:
        """Remove everything of ours from this host but the cache of built components.

        Raises ConflictError if something could not be removed, or if another command is changing this host.
        """
        with self._changing("haneul down --purge"):
            await purge(
                self.settings, services=self.services, cache=self.store.cache, clock=SystemClock(), progress=progress
            )
            contexts = Contexts.default()
            with contextlib.suppress(UnauthenticatedError):
                if contexts.current().token_file == self.platform.files.admin_token:
                    contexts.sign_out()

    def sign_root_in(self) -> None:
        """Let root's command line talk to the platform at once, in the project that was in use before."""
        contexts = Contexts.default()
        server = f"https://{self.settings.address}:{API_PORT}"
        files = self.platform.files
        try:
            before = contexts.current()
            project = before.project if before.server == server else ""
        except UnauthenticatedError:
            project = ""
        contexts.write(Context(server, files.authority, files.admin_token, project))


def ports(*, kage: bool) -> dict[int, str]:
    """Return the ports that are taken whatever the address, with the object store's if it runs here."""
    return {**PORTS, **(platform_kage.taken_by(platform_kage.PORTS) if kage else {})}


def ports_at_address(*, hub: bool) -> dict[int, str]:
    """Return the ports that are taken at the host's own address only, with the ``hub``'s if it runs here."""
    return {port: what for port, what in PORTS_AT_ADDRESS.items() if hub or port != ManagementSettings.hub_port}


def renewal_service(state: Path) -> HostService:
    """Return what renews this host's certificates: a look every six hours, every five minutes after a failure.

    A look is a program of its own, so that nothing but a sleep stays in memory, and each look is that of the installed
    version. One that hangs is ended after an hour, so that there are later ones. When the sleep is over the service
    ends, and what keeps host services running starts it again. The sleep is called by a path of ours, so that one that
    was left behind is known.
    """
    look = (sys.executable, "-m", "haneul.app.main", "renew")
    script = '"$@" || pause=300; exec -a "$0" sleep "${pause:-21600}"'
    return HostService(
        "certificates",
        ("/bin/bash", "-c", script, str(state / "certificates"), *_WITHIN_AN_HOUR, *look),
        (("PATH", SYSTEM_PATH), *cache_variable()),
    )


def cache_variable() -> tuple[tuple[str, str], ...]:
    """Return the variable that names another cache, for programs that this one has kept running."""
    cache = os.environ.get(CACHE_VARIABLE)
    return ((CACHE_VARIABLE, cache),) if cache else ()


async def this_host(*, begins: bool = False, switches: Switches = NOTHING_TOLD) -> Installation:
    """Return the installation of this host, made or not.

    ``begins`` lets its host services' supervisor be started; ``switches`` come before what is kept of them.
    """
    clock = SystemClock()
    networks = tuple((route.network, route.device) for route in (*await host_networks(), *name_servers()))
    resolvers = Path("/etc/resolv.conf")
    ranges = ranges_of(ManagementSettings.state, networks)
    address = await facts.primary_address()
    told = nameservers(resolvers.read_text()) if resolvers.exists() else ()
    balancer = settings_of(ManagementSettings.state, networks)
    settings = ManagementSettings(
        address=address,
        host_name=facts.host_name(),
        pods=ranges.pods,
        services=ranges.services,
        host_networks=networks,
        restrict_oom_score=facts.restrict_oom_score(),
        systemd=facts.systemd(),
        zone=zone_of(ManagementSettings.state),
        ingress=range_of(ManagementSettings.state, networks),
        resolvers=resolvers_of(ManagementSettings.state, told, address=address),
        balancer_networks=networks_of(balancer),
        hub=switches.hub_is_wanted(ManagementSettings.state),
        kage=switches.kage_is_wanted(ManagementSettings.state),
    )
    services: ServiceManager = (
        Systemd()
        if settings.systemd
        else Supervisord(state=settings.state, runtime=settings.runtime, logs=settings.logs, clock=clock, begins=begins)
    )
    store = component_store()
    lifecycle = Lifecycle(settings, artifacts=store, services=services, clock=clock)
    hub = ImageHub(settings, services=services, clock=clock)
    kage = platform_kage.PlatformKage(
        platform_kage.settings_on_host(settings.state),
        services=services,
        command=lambda: store.python_command("swift", "swift_run.py"),
        logs=settings.logs,
        clock=clock,
    )
    return Installation(
        settings,
        services,
        store,
        lifecycle,
        Platform(
            settings,
            balancer,
            lifecycle=lifecycle,
            store=store,
            hub=hub,
            content=HubContent(settings, hub, kage),
            clock=clock,
        ),
        PlatformBalancer(settings, balancer, services=services, clock=clock),
    )
