"""Load balancing put together: one cluster, one balancer, and what is told of what it serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import structlog

from haneul.app.balancer_sharing import SharedAddresses, kernel_of, process_of, sharing_of
from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.nftables import NftablesBalancer
from haneul.balancer.changes import plan
from haneul.balancer.controller import ClusterController, Pace
from haneul.balancer.decisions import Site
from haneul.balancer.members import Ground, Targets
from haneul.balancer.model import Listener, Member, MemberHealth, MemberState, Part, Present, Protocol
from haneul.balancer.ports import LoadBalancer
from haneul.balancer.settings import HaproxySettings, NftablesSettings, read_settings
from haneul.kernel.clock import SystemClock
from haneul.kernel.ending import told_to_end, work_until
from haneul.kernel.errors import InvalidInputError, NotFoundError
from haneul.kernel.files import is_there
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.management.settings import ManagementSettings

_log = structlog.get_logger(__name__)
_CONNECT_SECONDS: Final = 5.0
_NOT_ASKED: Final = "not asked"
#: Where `haneul up` keeps which balancer the platform's is, and its pools.
_PLATFORM: Final = ManagementSettings.state / "balancer.yaml"


@dataclass(frozen=True)
class ServeSettings:
    """Which cluster's Services are balanced, whose they are, and where connections are given to."""

    kubeconfig: Path
    cluster: str
    project: str
    balancer: Path
    members: Sequence[str]
    targets: Targets = Targets.NODES
    load_balancer_class: str = ""
    resync_seconds: float = 300.0


async def serve_balancer(settings: ServeSettings) -> None:
    """Keep a cluster's Services balanced until SIGTERM or SIGINT; what is served then stays."""
    balancer_settings = read_settings(settings.balancer)
    if not settings.kubeconfig.is_file():
        raise InvalidInputError(f"{settings.kubeconfig} is no file", hint="--kubeconfig names the cluster's")
    access = access_from_kubeconfig(settings.kubeconfig)
    ground = Ground(settings.targets, networks(settings.members))
    pools = balancer_settings.pools_of(settings.project)
    if not pools:
        raise InvalidInputError(
            f"no pool of {settings.balancer} is for the project {settings.project!r}",
            hint="add the project to a pool's 'projects', or name another one with --project",
        )
    told = told_to_end()
    async with opened(balancer_settings) as balancer, HttpKubeClient(access, user_agent="haneul-balancer") as client:
        if isinstance(balancer, NftablesBalancer):
            await balancer.prove()
        site = Site(pools, ground, balancer.abilities, settings.load_balancer_class)
        share = sharing_of(balancer_settings, SystemClock())
        controller = ClusterController(
            client,
            balancer,
            settings.cluster,
            site,
            clock=SystemClock(),
            pace=Pace(resync=settings.resync_seconds),
            part=(lambda: share.part) if share else (lambda: Part.ALONE),
        )
        _log.info("serving", cluster=settings.cluster, balancer=balancer.name)
        await work_until(told, _run(controller, share))
    _log.info("ended", cluster=settings.cluster)


async def _run(controller: ClusterController, share: SharedAddresses | None) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.run())
        if share:
            group.create_task(share.run(controller.wake))


@contextlib.asynccontextmanager
async def opened(settings: HaproxySettings | NftablesSettings) -> AsyncIterator[LoadBalancer]:
    """Yield the balancer that a file names."""
    balancer = _balancer(settings)
    try:
        yield balancer
    finally:
        await balancer.close()


def _balancer(settings: HaproxySettings | NftablesSettings) -> LoadBalancer:
    clock, shared = SystemClock(), settings.share is not None
    if isinstance(settings, NftablesSettings):
        return NftablesBalancer(settings.folder, kernel_of(settings), clock=clock, shared=shared)
    return HaproxyBalancer(process_of(settings), clock=clock, supervised=settings.supervised, shared=shared)


def settings_from(file: Path | None) -> HaproxySettings | NftablesSettings:
    """Return what a balancer's file says; without one, this host's platform's own, which only root may.

    Raises NotFoundError if there is none.
    """
    if file is None:
        file = _PLATFORM
        if not is_there(file):
            raise NotFoundError(
                "there is no load balancer of a platform on this host, or only root sees it",
                hint="run it as root where 'haneul up' ran, or name another one's file with --balancer",
            )
    return read_settings(file)


def networks(texts: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks that members may be in. Raises InvalidInputError."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise InvalidInputError(str(error), hint="--members names networks such as 10.0.0.0/16") from error


async def listed(file: Path | None, owner: str, service: str) -> list[dict[str, Any]]:
    """Return what a balancer serves: of one owner or Service, or all."""
    async with opened(settings_from(file)) as balancer:
        present, health = await balancer.read(), await balancer.health()
    return [
        _row(listener, there, health.get(listener, {}))
        for listener, there in sorted(present.items())
        if owner in ("", there.owner) and service in ("", there.frontend.service)
    ]


async def checked(file: Path | None, what: str) -> list[dict[str, Any]]:
    """Return each listener of an address or a Service with its members, and whether it takes a connection.

    Raises NotFoundError if there is none.
    """
    settings = settings_from(file)
    # Direct packets are sent on where they come in; this machine's own do not.
    asks = not (isinstance(settings, NftablesSettings) and settings.mode == "direct")
    async with opened(settings) as balancer:
        if isinstance(balancer, NftablesBalancer):
            await balancer.prove()
        present, health = await balancer.read(), await balancer.health()
    found = {
        listener: there
        for listener, there in sorted(present.items())
        if what in (listener.address, f"{listener.address}:{listener.port}", there.frontend.service)
    }
    if not found:
        raise NotFoundError(f"nothing is served for {what}", hint="'haneul balancer list' shows what is")
    return [
        {
            **_row(listener, there, health.get(listener, {})),
            "states": {
                str(member): {"state": one.state.value, "connections": one.connections}
                for member, one in sorted(health.get(listener, {}).items())
            },
            "answer": await _answer(listener) if asks else _NOT_ASKED,
        }
        for listener, there in found.items()
    ]


async def borne(file: Path | None, owner: str) -> int:
    """Return how many listeners are an owner's. Raises NotFoundError if there is none."""
    count = len(await listed(file, owner, ""))
    if not count:
        raise _nothing(owner)
    return count


async def withdrawn(file: Path | None, owner: str) -> int:
    """Take away all listeners of an owner; return how many that were."""
    async with opened(settings_from(file)) as balancer:
        changes = plan({}, await balancer.read(), owner)
        if not changes:
            raise _nothing(owner)
        await balancer.apply(owner, changes)
    return len(changes)


async def _answer(listener: Listener) -> str:
    """Say whether a connection comes about; what it leads to is not looked at."""
    if listener.protocol is not Protocol.TCP:
        return _NOT_ASKED
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(listener.address, listener.port)
    except (OSError, TimeoutError) as error:
        return str(error) or type(error).__name__
    writer.transport.abort()
    return "connects"


def _nothing(owner: str) -> NotFoundError:
    return NotFoundError(f"nothing is {owner!r}'s", hint="'haneul balancer list' shows whose what is")


def _row(listener: Listener, there: Present, health: Mapping[Member, MemberHealth]) -> dict[str, Any]:
    up = sum(health[member].state is MemberState.UP for member in there.frontend.members if member in health)
    return {
        "address": listener.address,
        "port": listener.port,
        "protocol": listener.protocol.value,
        "service": there.frontend.service,
        "algorithm": there.frontend.options.algorithm.value,
        "up": up,
        "members": [str(member) for member in there.frontend.members],
        "owner": there.owner,
    }
