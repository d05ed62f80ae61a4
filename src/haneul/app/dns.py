"""The in-house DNS put together: one cluster, one server, and what is told of names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from haneul.dns.adapters.asking import ask
from haneul.dns.adapters.powerdns import PowerDns, PowerDnsAccess
from haneul.dns.adapters.rfc2136 import UpdateAccess, UpdatedServer
from haneul.dns.controller import ClusterController, Pace
from haneul.dns.model import TYPES, ClusterDomain, Present, absolute, is_below, zone_of
from haneul.dns.path import Step, steps_in_zone
from haneul.dns.ports import DnsProvider
from haneul.dns.settings import PowerDnsSettings, ProviderSettings, read_secret, read_settings
from haneul.dns.withdrawal import withdraw
from haneul.kernel.clock import SystemClock
from haneul.kernel.ending import told_to_end, work_until
from haneul.kernel.errors import InvalidInputError, NotFoundError, UnavailableError
from haneul.kernel.files import is_there
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.management.name_server import DNS_PORT, NameFiles

_log = structlog.get_logger(__name__)
_ZONES = "add its zone to 'zones' in the provider's file, if the server has it"


@dataclass(frozen=True)
class ServeSettings:
    """Which cluster's names are published, and where."""

    kubeconfig: Path
    cluster: str
    zone: str
    provider: Path
    ttl: int = 5
    pods: bool = True
    resync_seconds: float = 300.0


async def serve_dns(settings: ServeSettings) -> None:
    """Keep a cluster's names published until SIGTERM or SIGINT; what is published then stays."""
    domain = ClusterDomain.of(settings.cluster, settings.zone, ttl=settings.ttl)
    if not settings.kubeconfig.is_file():
        raise InvalidInputError(f"{settings.kubeconfig} is no file", hint="--kubeconfig names the cluster's")
    access = access_from_kubeconfig(settings.kubeconfig)
    told = told_to_end()
    async with opened(settings.provider) as provider, HttpKubeClient(access, user_agent="haneul-dns") as client:
        if not zone_of(domain.name, provider.zones):
            raise InvalidInputError(
                f"{domain.name} is in {_none_of(settings.provider, provider)}",
                hint="name one of them with --zone, or add it to 'zones'",
            )
        controller = ClusterController(
            client,
            provider,
            settings.cluster,
            domain,
            clock=SystemClock(),
            pace=Pace(resync=settings.resync_seconds),
            pods=settings.pods,
        )
        _log.info("serving", cluster=settings.cluster, domain=domain.name, server=provider.server)
        await work_until(told, controller.run())
    _log.info("ended", cluster=settings.cluster)


async def provider_settings(file: Path | None) -> ProviderSettings:
    """Return what a provider's file says; without one, this host's platform's own DNS server, which only root may."""
    if file is not None:
        return read_settings(file)
    from haneul.app.installation import this_host  # noqa: PLC0415 - who names a file needs no platform

    settings = (await this_host()).settings
    key = NameFiles(settings.state).key
    if not await asyncio.to_thread(is_there, key):
        raise NotFoundError(
            "there is no DNS server of a platform on this host, or only root sees it",
            hint="run it as root where 'haneul up' ran, or name another server's file with --provider",
        )
    # The way from this host to its own address leaves it as little as one to loopback does.
    return PowerDnsSettings.model_construct(
        kind="powerdns",
        url=f"http://{settings.address}:{settings.zones_api_port}",
        key_file=key,
        zones=tuple(absolute(zone) for zone in settings.zones),
        authority=None,
        server_id="localhost",
        address="127.0.0.1",
        port=settings.zones_port,
    )


@contextlib.asynccontextmanager
async def opened(file: Path | None) -> AsyncIterator[DnsProvider]:
    """Yield the server that a provider's file names, or the platform's."""
    provider = _provider(await provider_settings(file))
    try:
        yield provider
    finally:
        await provider.close()


async def listed(file: Path | None, owner: str, below: str) -> list[dict[str, Any]]:
    """Return what a server's zones have that bears an owner's mark, or anybody's if none is named."""
    domain = absolute(below) if below else ""
    async with opened(file) as provider:
        if domain and not any(is_below(domain, zone) or is_below(zone, domain) for zone in provider.zones):
            raise InvalidInputError(f"{domain} is in {_none_of(file, provider)}", hint=_ZONES)
        states = [await provider.read(zone) for zone in provider.zones]
    return [
        _row(state.zone, there)
        for state in states
        for key, there in sorted(state.sets.items())
        if there.owner and owner in ("", there.owner) and (not domain or is_below(key.name, domain))
    ]


async def checked(file: Path | None, name: str) -> list[dict[str, Any]]:
    """Return what a zone has at a name, beside what the server answers for it. Raises NotFoundError if nothing."""
    settings = await provider_settings(file)
    asked = absolute(name)
    async with opened(file) as provider:
        zone = zone_of(asked, provider.zones)
        if not zone:
            raise NotFoundError(f"{asked} is in {_none_of(file, provider)}", hint=_ZONES)
        state = await provider.read(zone)
    rows = [_row(zone, there) for key, there in sorted(state.sets.items()) if key.name == asked]
    if not rows:
        deeper = any(is_below(key.name, asked) for key in state.sets)
        raise NotFoundError(
            f"the zone {zone} (serial {state.serial}) has no {asked}{', only names below it' if deeper else ''}",
            hint=f"resolvers remember that for up to {state.negative_ttl} s after it is published",
        )
    return [{**row, "answer": await _answered(settings, row)} for row in rows]


async def explained(file: Path | None, name: str) -> list[dict[str, Any]]:
    """Return the path of the answer for a name: what the zone has and why, and what who is asked answers."""
    settings = await provider_settings(file)
    asked = absolute(name)
    async with opened(file) as provider:
        zone = zone_of(asked, provider.zones)
        state = await provider.read(zone) if zone else None
    if state is None:
        steps = [Step("zone", f"in {_none_of(file, provider)}: others are asked for it")]
    else:
        steps = steps_in_zone(asked, state)
    kinds = [key.type for key in sorted(state.sets) if key.name == asked] if state else []
    asks = [(settings.address, settings.port, "server", False)] if state and settings.address else []
    if file is None:
        asks.append((await _resolver(), DNS_PORT, "pods' resolver", True))
    for address, port, stage, recursion in asks:
        for kind in kinds or ["A"]:
            steps.append(Step(stage, await _said(str(address), port, asked, kind, recursion=recursion)))
    return [asdict(step) for step in steps]


async def _resolver() -> str:
    from haneul.app.installation import this_host  # noqa: PLC0415 - who names a file needs no platform

    return (await this_host()).settings.address


async def _said(address: str, port: int, name: str, kind: str, *, recursion: bool) -> str:
    try:
        answer = await ask(address, port, name, kind, recursion=recursion)
    except UnavailableError as error:
        return error.detail
    return f"{address} port {port} answers {' '.join((kind, answer.code, *answer.values))}"


async def borne(file: Path | None, owner: str) -> int:
    """Return how many record sets bear an owner's mark. Raises NotFoundError if there is none."""
    count = len(await listed(file, owner, ""))
    if not count:
        raise _nothing(owner)
    return count


async def withdrawn(file: Path | None, owner: str) -> int:
    """Take away all that bears an owner's mark; return how many record sets that were."""
    async with opened(file) as provider:
        count = await withdraw(provider, lambda found: found == owner)
    if not count:
        raise _nothing(owner)
    return count


def _nothing(owner: str) -> NotFoundError:
    return NotFoundError(f"nothing bears the mark {owner!r}", hint="'haneul dns list' shows whose marks there are")


def _none_of(file: Path | None, provider: DnsProvider) -> str:
    return f"none of the zones of {file or provider.server}: {', '.join(provider.zones)}"


def _provider(settings: ProviderSettings) -> DnsProvider:
    secret = read_secret(settings.key_file)
    if isinstance(settings, PowerDnsSettings):
        return PowerDns(
            PowerDnsAccess(settings.url, secret, settings.zones, settings.server_id, authority=settings.authority)
        )
    return UpdatedServer(
        UpdateAccess(settings.address, settings.zones, settings.key_name, secret, settings.port, settings.algorithm)
    )


async def _answered(settings: ProviderSettings, row: dict[str, Any]) -> str:
    """Ask the server for what its zone has; one that nobody says the address of is not asked."""
    if settings.address is None or row["type"] not in TYPES:
        return "not asked"
    said = await ask(settings.address, settings.port, row["name"], row["type"])
    if not said.authoritative:
        return f"{said.code}, but the server is not responsible for the zone"
    return "the same" if list(said.values) == row["values"] else " ".join((said.code, *said.values))


def _row(zone: str, there: Present) -> dict[str, Any]:
    records = there.records
    return {
        "name": records.name,
        "type": records.type,
        "ttl": records.ttl,
        "values": list(records.values),
        "owner": there.owner,
        "zone": zone,
    }
