"""Addresses of load balancers and of clusters' ingress on this host: whole ranges of its own, on no interface.

One local route makes all of a range this host's: programs can listen at each address, and Linux answers neighbours who
ask for one of them (ip-route(8), type ``local``). Routes of ours bear a protocol number of their own, by which `down`
finds them, whatever the ranges are by then. A table of packet rules keeps everything away from them but what listens
at the very address.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.process import run
from haneul.management import nft_table
from haneul.management.settings import ManagementSettings

_CALL_SECONDS: Final = 10.0
#: Tried in this order. All lie outside of the pools for tenants' clusters and of the platform's own ranges.
CANDIDATES: Final = ("172.30.0.0/24", "172.26.0.0/24", "192.168.247.0/24", "10.196.0.0/24")


@dataclass(frozen=True)
class Mark:
    """What tells whose the ranges are: routes' number of a protocol, and the table of packet rules.

    The numbers are of those that nobody else uses (rtnetlink(7), ``rtm_protocol``; ``/etc/iproute2/rt_protos`` has the
    others).
    """

    protocol: str
    table: str


BALANCER: Final = Mark("72", "haneul_balancer")
INGRESS: Final = Mark("73", "haneul_ingress")


def default_range(host: Iterable[tuple[str, str]], candidates: Sequence[str] = CANDIDATES) -> str:
    """Return the first candidate that fits beside the host's networks, which come with their interfaces.

    If none does, it is the first one: what it collides with is told before anything is changed.
    """
    networks = [IPv4Network(network) for network, _ in host]
    free = (one for one in candidates if not any(IPv4Network(one).overlaps(network) for network in networks))
    return next(free, candidates[0])


def check(settings: ManagementSettings) -> None:
    """Raise HostNotReadyError if a range of load balancers takes what is somebody else's. Changes nothing.

    A range may be a part of a network that the host is in: then the host's neighbours reach it without a route.
    """
    for text in settings.balancer_networks:
        ours = IPv4Network(text)
        for network, what in (
            (settings.pods, "the management cluster's pods"),
            (settings.services, "the management cluster's services"),
            (settings.ingress, "ingress's addresses"),
        ):
            if ours.overlaps(IPv4Network(network)):
                raise _collision(text, network, what)
        if IPv4Address(settings.address) in ours:
            raise _collision(text, settings.address, "this host's own address")
        for network, device in settings.host_networks:
            if IPv4Network(network).subnet_of(ours):
                raise _collision(text, network, f"a network of this host ({device})")


def _collision(ours: str, network: str, what: str) -> HostNotReadyError:
    return HostNotReadyError(
        f"the load balancers' range {ours} overlaps {network}, {what}",
        hint="name other addresses in the 'pools' of balancer.yaml in the state folder, then 'haneul up' again",
    )


async def ensure(networks: Iterable[str], mark: Mark = BALANCER) -> None:
    """Make exactly these ranges this host's own, of those that bear our mark; what else listens is guarded first."""
    wanted, there = {str(IPv4Network(text)) for text in networks}, set(await find(mark))
    if wanted:
        await nft_table.bring_about(guard(sorted(wanted), mark))
    for network in sorted(there - wanted):
        await _route("del", network, mark)
    for network in sorted(wanted - there):
        await _route("replace", network, mark)
    if not wanted:
        await nft_table.remove(mark.table)


async def remove(mark: Mark = BALANCER) -> None:
    """Let go of all ranges."""
    await ensure((), mark)


async def remains(mark: Mark = BALANCER) -> list[str]:
    """Return, for people, what there is of ours."""
    routes = [f"local route of {network}" for network in await find(mark)]
    return [*routes, *await nft_table.remains(mark.table)]


def guard(networks: Sequence[str], mark: Mark = BALANCER) -> str:
    """Return nft's script that makes the guard anew in one transaction.

    A program that listens at all addresses, as a kubelet does, listens at these too. Whoever may not reach it at the
    host's own would reach it there: only what listens at the very address is reached (nft(8), "socket"). Of TCP, who
    begins is asked about: a connection that is half made belongs to no socket yet that this would match.
    """
    there = f"ip daddr {{ {', '.join(networks)} }}"
    return nft_table.anew(
        mark.table,
        f"""    chain input {{
        type filter hook input priority -1; policy accept;
        {there} tcp flags & (syn | ack) != syn accept
        {there} socket wildcard 0 accept
        {there} icmp type echo-request accept
        {there} drop
    }}
""",
    )


async def find(mark: Mark = BALANCER) -> list[str]:
    """Return the ranges that are this host's own by us."""
    argv = ["ip", "-j", "-4", "route", "show", "table", "local", "proto", mark.protocol]
    completed = await run(argv, timeout=_CALL_SECONDS, check=False)
    if completed.status != 0 or not completed.stdout.strip():
        return []
    entries: list[dict[str, Any]] = json.loads(completed.stdout)
    return sorted(str(IPv4Network(entry["dst"])) for entry in entries if entry.get("dst"))


async def _route(verb: str, network: str, mark: Mark) -> None:
    argv = ["ip", "-4", "route", verb, "local", network, "dev", "lo", "table", "local", "proto", mark.protocol]
    await run(argv, timeout=_CALL_SECONDS)
