"""The platform's load balancer on this host: HAProxy and its keeper as host services, and the addresses.

HAProxy and all that it serves are outside every cluster, the management cluster too. Its worker, which is all that
clients reach, is Debian's user `haproxy`. Its keeper writes its configuration and is asked by the controllers' pod over
one socket (:mod:`haneul.balancer.keeper`); it also brings the addresses back when the machine was off.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network, summarize_address_range
from pathlib import Path
from typing import Final

from haneul.app.balancer import opened
from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.haproxy_configuration import Process
from haneul.balancer.adapters.kept import KeptBalancer
from haneul.balancer.keeper import NO_MACHINES, BalancerKeeper, Bounds
from haneul.balancer.model import parse_range
from haneul.balancer.settings import BalancerSettings, PoolSettings, read_settings
from haneul.host.services import HostService, ServiceManager, made_from
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.documents import to_yaml
from haneul.kernel.ending import told_to_end, work_until
from haneul.kernel.errors import HostNotReadyError, InvalidInputError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.waiting import wait_for
from haneul.management import public_addresses
from haneul.management.containers import SYSTEM_PATH
from haneul.management.settings import ManagementSettings

#: Who may ask the keeper: the user of the platform's pods.
GROUP: Final = 65532
_USER: Final = "haproxy"
_PROGRAM: Final = Path("/usr/sbin/haproxy")
_START_SECONDS: Final = 60.0
#: Clears what was known of members before HAProxy was started anew, and becomes HAProxy.
_SCRIPT: Final = ': > "$0" && exec "$@"'


@dataclass(frozen=True)
class BalancerFiles:
    """What the load balancer has on the host, below the installation's folders."""

    state: Path
    runtime: Path

    @property
    def settings(self) -> Path:
        """Return the file of its pools, which people may change; `up` takes it up."""
        return self.state / "balancer.yaml"

    @property
    def folder(self) -> Path:
        """Return HAProxy's folder, with what is served."""
        return self.state / "balancer"

    @property
    def socket(self) -> Path:
        """Return where the keeper is asked; its folder is all that the controllers' pod sees."""
        return self.runtime / "balancer" / "keeper.sock"


def settings_of(state: Path, host: Sequence[tuple[str, str]]) -> BalancerSettings:
    """Return the balancer's settings as they are kept in ``state``; before the first `up`, with a range that fits.

    ``host`` are the host's networks with their interfaces. Raises InvalidInputError if a person wrote down none.
    """
    files = BalancerFiles(state, state)
    try:
        if files.settings.exists():
            settings = read_settings(files.settings)
            if settings.folder != files.folder or not settings.supervised:
                raise InvalidInputError(
                    f"{files.settings}: the platform's balancer is supervised, in {files.folder}",
                    hint=f"set 'folder: {files.folder}' and 'supervised: true'",
                )
            return settings
    except PermissionError:
        # `doctor` may be asked by anybody; who cannot look is told what a fresh installation would take.
        pass
    pool = PoolSettings(name="default", addresses=(public_addresses.default_range(host),))
    return BalancerSettings(
        kind="haproxy",
        folder=files.folder,
        user=_USER,
        max_connections=connections(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        supervised=True,
        pools=(pool,),
    )


def connections(files: int) -> int:
    """Return how many connections at once fit into so many open files: two each, and some for all else."""
    return max(100, min(20_000, files // 3))


def networks_of(settings: BalancerSettings) -> tuple[str, ...]:
    """Return the IPv4 networks that the pools' addresses are, which are to be this host's; loopback is already."""
    found: list[IPv4Network] = []
    for pool in settings.pools:
        for first, last in map(parse_range, pool.addresses):
            with contextlib.suppress(ValueError):
                found += summarize_address_range(IPv4Address(first), IPv4Address(last))
    return tuple(str(network) for network in sorted(found) if not network.is_loopback)


def own_networks(networks: Sequence[str], host: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return those that are no parts of networks that the host is in: the others a person put there on purpose."""
    around = [IPv4Network(network) for network, _ in host]

    def is_part(network: IPv4Network) -> bool:
        return any(network != other and network.subnet_of(other) for other in around)

    return tuple(one for one in networks if not is_part(IPv4Network(one)))


def text_of(settings: BalancerSettings) -> str:
    """Return settings as the file that people change."""
    document = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return (
        f"# Addresses that Services of type LoadBalancer get: change the pools, run 'haneul up'.\n{to_yaml(document)}"
    )


def haproxy_service(files: BalancerFiles) -> HostService:
    """Return HAProxy as a host service; what it serves it is told while it runs."""
    folder = files.folder
    started = ("-Ws", "-S", f"{folder}/master.sock,mode,600,level,admin", "-f", f"{folder}/haproxy.cfg")
    argv = ("/bin/sh", "-c", _SCRIPT, f"{folder}/server-state", str(_PROGRAM), *started)
    return HostService("balancer", argv, (("PATH", SYSTEM_PATH),))


def keeper_service(files: BalancerFiles, settings: ManagementSettings) -> HostService:
    """Return its keeper as a host service; it reads the pools when it starts."""
    closed = [f"--closed={network}" for network in (f"{settings.address}/32", settings.services)]
    argv = (sys.executable, "-m", "haneul.app.main", "serve", "balancer-keeper")
    files_named = (f"--balancer={files.settings}", f"--socket={files.socket}")
    return HostService(
        "balancer-keeper",
        (*argv, *files_named, *closed),
        (("PATH", SYSTEM_PATH), made_from(files.settings.read_text())),
    )


class PlatformBalancer:
    """The load balancer of this host."""

    def __init__(
        self, settings: ManagementSettings, balancer: BalancerSettings, *, services: ServiceManager, clock: Clock
    ) -> None:
        self._settings = settings
        self._balancer = balancer
        self._services = services
        self._clock = clock
        self.files = BalancerFiles(settings.state, settings.runtime)

    async def start(self) -> None:
        """Make what it needs and start it; may be repeated. Raises HostNotReadyError if Debian's package lacks."""
        files = self.files
        if not _PROGRAM.exists() or not _is_user(_USER):
            raise HostNotReadyError(f"{_PROGRAM} is not installed", hint="apt-get install haproxy")
        if not files.settings.exists():
            write_atomically(files.settings, text_of(self._balancer))
        await public_addresses.ensure(self._settings.balancer_networks)
        process = Process(
            files.folder, self._balancer.user, self._balancer.max_connections, self._balancer.keep_seconds
        )
        await HaproxyBalancer(process, clock=self._clock, supervised=True).prepare()
        await self._services.ensure(haproxy_service(files))
        await self._services.ensure(keeper_service(files, self._settings))
        asked = KeptBalancer(files.socket)

        async def answers() -> bool:
            with contextlib.suppress(UnavailableError):
                await asked.read()
                return True
            return False

        await wait_for(
            answers,
            what="the load balancer to answer",
            timeout=_START_SECONDS,
            clock=self._clock,
            hint=f"look at {self._settings.logs}/balancer.log and balancer-keeper.log",
        )


async def serve_keeper(file: Path, socket: Path, closed: Sequence[str]) -> None:
    """Keep this host's balancer until SIGTERM or SIGINT; what is served then stays."""
    settings = read_settings(file)
    told = told_to_end()
    networks = networks_of(settings)
    await public_addresses.ensure(networks)
    pools = tuple(pool.pool() for pool in settings.pools)
    async with opened(settings) as balancer:
        bounds = Bounds(pools, (*NO_MACHINES, *(ip_network(network) for network in (*closed, *networks))))
        keeper = BalancerKeeper(balancer, bounds, clock=SystemClock())
        group = GROUP if os.geteuid() == 0 else os.getegid()
        await work_until(told, keeper.run(socket, group=group))


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
