"""Ingress on the host: the addresses of clusters' proxies, what is kept of each, and what keeps all of them told.

Each cluster's nginx is a host service with a user and a folder of its own, and outlives every cluster, the management
cluster too. One more host service tells all of them what to serve; it may end, and nothing that is served ends with it.

Clusters' addresses are this host's by one route of the whole range (:mod:`haneul.management.public_addresses`): a
cluster that comes or goes changes nothing of the host's network. Other machines reach them by a route that leads here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from haneul.host.services import HostService, ServiceManager
from haneul.kernel.errors import HostNotReadyError, InvalidInputError
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run
from haneul.management import public_addresses
from haneul.management.remains import mounts_below
from haneul.management.settings import ManagementSettings

#: The service that tells every cluster's nginx what to serve.
WORKER: Final = "ingress"
NGINX: Final = Path("/usr/sbin/nginx")
_LUA: Final = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
_INSTALL: Final = "apt-get install nginx libnginx-mod-http-lua lua-cjson"
#: Tried in this order. All lie outside of the pools for tenants' clusters and of the management cluster's ranges.
CANDIDATES: Final = (ManagementSettings.ingress, "172.30.208.0/20", "172.26.208.0/20", "192.168.208.0/20")
#: Users of proxies have the numbers from here on, far above those of people, of containers and of systemd's.
_FIRST_USER: Final = 1_900_000_000
_LARGEST, _SMALLEST = 12, 28
_UNMOUNT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class IngressFiles:
    """What ingress has on the host, below the installation's state folder."""

    state: Path

    @property
    def folder(self) -> Path:
        """Return the folder with everything."""
        return self.state / "ingress"

    @property
    def range(self) -> Path:
        """Return the file that names the range; who wants another one writes it before the first `up`."""
        return self.folder / "range"

    @property
    def hosts(self) -> Path:
        """Return the file of the hosts that clusters were granted."""
        return self.folder / "hosts.json"

    @property
    def audit_switch(self) -> Path:
        """Return the file of which clusters have an audit trail."""
        return self.folder / "audit.json"

    @property
    def audit_settings(self) -> Path:
        """Return the file that says what audit trails keep; who wants something else than usual writes it."""
        return self.folder / "audit.yaml"

    @property
    def trails(self) -> Path:
        """Return the folder, for root only, of what was recorded, cluster by cluster."""
        return self.folder / "audit"

    @property
    def proxies(self) -> Path:
        """Return the folder of all clusters' proxies."""
        return self.folder / "clusters"

    @property
    def certificates(self) -> Path:
        """Return the folder, for root only, of the certificates that the platform gives hosts, cluster by cluster."""
        return self.folder / "certificates"

    @property
    def issuer(self) -> Path:
        """Return the file, for root only, of who certifies public hosts, if somebody named one."""
        return self.folder / "issuer.json"

    @property
    def accounts(self) -> Path:
        """Return the folder, for root only, of the accounts at issuers."""
        return self.folder / "accounts"


def range_of(state: Path, host: Iterable[tuple[str, str]]) -> str:
    """Return the range that was written down; before the first `up`, the first that fits beside the host's networks.

    Raises InvalidInputError if a person wrote down none that can be used.
    """
    file = IngressFiles(state).range
    try:
        text = file.read_text().strip()
    except (FileNotFoundError, PermissionError):
        return public_addresses.default_range(host, CANDIDATES)
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise InvalidInputError(f"{file} names no network: {error}", hint="write one such as 10.198.0.0/20") from error
    if not network.is_private or not _LARGEST <= network.prefixlen <= _SMALLEST:
        raise InvalidInputError(
            f"{file}: {network} is no private network of /{_LARGEST} to /{_SMALLEST}",
            hint="write one such as 10.198.0.0/20",
        )
    return str(network)


def user_of(address: str, network: str) -> int:
    """Return the number of the user, and of its group, that the nginx at an address of the range is."""
    return _FIRST_USER + int(IPv4Address(address)) - int(IPv4Network(network).network_address)


def worker_service(
    state: Path, *, build: str, search_path: str, environment: Iterable[tuple[str, str]] = ()
) -> HostService:
    """Return what tells proxies what to serve, as a host service; one of another ``build`` takes its place."""
    argv = (sys.executable, "-m", "haneul.app.main", "serve", "ingress", f"--folder={IngressFiles(state).folder}")
    return HostService(WORKER, argv, (("PATH", search_path), ("HANEUL_BUILD", build), *environment))


class IngressHost:
    """Ingress's part of this host."""

    def __init__(self, settings: ManagementSettings, *, services: ServiceManager) -> None:
        self._settings = settings
        self._services = services
        self.files = IngressFiles(settings.state)

    async def open(self) -> None:
        """Make the range's addresses this host's, before the first proxy listens; may be repeated.

        Raises HostNotReadyError if the range overlaps a network of the host.
        """
        wanted = IPv4Network(self._settings.ingress)
        taken = (*self._settings.host_networks, (self._settings.pods, "pods"), (self._settings.services, "services"))
        for network, device in taken:
            if wanted.overlaps(IPv4Network(network)):
                raise HostNotReadyError(
                    f"ingress's range {wanted} overlaps {network} ({device})",
                    hint=f"write a free one into {self.files.range} and delete the clusters that have addresses of it",
                )
        write_atomically(self.files.range, f"{wanted}\n")
        await self.hold()

    async def hold(self) -> None:
        """Make the range's addresses this host's, for what listens at each of them alone."""
        await public_addresses.ensure([self._settings.ingress], public_addresses.INGRESS)

    async def start(self, worker: HostService) -> None:
        """Start what tells proxies what to serve. Raises HostNotReadyError if nginx is not installed."""
        if missing := [str(path) for path in (NGINX, _LUA) if not path.exists()]:
            raise HostNotReadyError(f"{' and '.join(missing)} are not installed", hint=_INSTALL)
        await self._services.ensure(worker)

    async def stop(self) -> None:
        """Stop it: what it starts would come back while everything is stopped."""
        await self._services.stop(WORKER)

    async def close(self) -> None:
        """Let go of the addresses, and of memory, once no proxy runs; may be repeated."""
        await self.let_go_of_memory()
        await public_addresses.remove(public_addresses.INGRESS)

    async def let_go_of_memory(self) -> None:
        """Unmount what requests' records were written into; those that nobody read are gone."""
        for place in mounts_below(Path("/proc/self/mountinfo").read_text(), [self.files.proxies]):
            await run(["umount", "--lazy", place], timeout=_UNMOUNT_SECONDS)
