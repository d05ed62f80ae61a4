"""The addresses of load balancers on this host: whole ranges that are its own without being on any interface.

One local route makes all of a range this host's: programs can listen at each address, and Linux answers neighbours who
ask for one of them (ip-route(8), type ``local``). Routes of ours bear a protocol number of their own, by which `down`
finds them, whatever the ranges are by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.process import run
from haneul.management.settings import ManagementSettings

#: Of the numbers that nobody else uses (rtnetlink(7), ``rtm_protocol``; ``/etc/iproute2/rt_protos`` has the others).
_PROTOCOL: Final = "72"
_CALL_SECONDS: Final = 10.0
#: Tried in this order. All lie outside of the pools for tenants' clusters and of the platform's own ranges.
CANDIDATES: Final = ("172.30.0.0/24", "172.26.0.0/24", "192.168.247.0/24", "10.196.0.0/24")


def default_range(host: Iterable[tuple[str, str]]) -> str:
    """Return the first candidate that fits beside the host's networks, which come with their interfaces."""
    networks = [IPv4Network(network) for network, _ in host]
    return next(
        (one for one in CANDIDATES if not any(IPv4Network(one).overlaps(network) for network in networks)),
        CANDIDATES[0],
    )


def check(settings: ManagementSettings) -> None:
    """Raise HostNotReadyError if a range of load balancers takes what is somebody else's. Changes nothing.

    A range may be a part of a network that the host is in: then the host's neighbours reach it without a route.
    """
    for text in settings.balancer_networks:
        ours = IPv4Network(text)
        for network, what in (
            (settings.pods, "the management cluster's pods"),
            (settings.services, "the management cluster's services"),
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


async def ensure(networks: Iterable[str]) -> None:
    """Make exactly these ranges this host's own, of those that bear our mark."""
    wanted, there = {str(IPv4Network(text)) for text in networks}, set(await find())
    for network in sorted(there - wanted):
        await _route("del", network)
    for network in sorted(wanted - there):
        await _route("replace", network)


async def remove() -> None:
    """Let go of all ranges."""
    await ensure(())


async def find() -> list[str]:
    """Return the ranges that are this host's own by us."""
    argv = ["ip", "-j", "-4", "route", "show", "table", "local", "proto", _PROTOCOL]
    completed = await run(argv, timeout=_CALL_SECONDS, check=False)
    if completed.status != 0 or not completed.stdout.strip():
        return []
    entries: list[dict[str, Any]] = json.loads(completed.stdout)
    return sorted(str(IPv4Network(entry["dst"])) for entry in entries if entry.get("dst"))


async def _route(verb: str, network: str) -> None:
    argv = ["ip", "-4", "route", verb, "local", network, "dev", "lo", "table", "local", "proto", _PROTOCOL]
    await run(argv, timeout=_CALL_SECONDS)
