"""The networks that this machine is in or has routes to: ranges that nothing of ours may take.

Networks that pods' interfaces brought are left out: they are ours, or those of a Cilium beside us, and come and go.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from haneul.host.doctor_facts import Route
from haneul.host.facts import made_by_cilium
from haneul.kernel.process import run

_CALL_SECONDS: Final = 10.0


async def host_networks() -> tuple[Route, ...]:
    """Return the IPv4 networks of this machine's interfaces and routes."""
    return networks_of(await _ip("-4", "address", "show"), await _ip("-4", "route", "show"))


def name_servers(root: Path = Path("/")) -> tuple[Route, ...]:
    """Return this machine's name servers as networks of one IPv4 address; one on loopback is reached as loopback."""
    path = root / "etc/resolv.conf"
    addresses = [ipaddress.ip_address(text) for text in nameservers(path.read_text() if path.exists() else "")]
    return tuple(
        Route(f"{address}/32", "name server")
        for address in addresses
        if isinstance(address, ipaddress.IPv4Address) and not address.is_loopback
    )


def networks_of(interfaces: Iterable[Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]) -> tuple[Route, ...]:
    """Return the networks in what ``ip -j address`` and ``ip -j route`` printed, sorted, each once.

    The default route is no network, and loopback is on every machine.
    """
    seen = [
        (f"{address['local']}/{address.get('prefixlen', 32)}", str(interface.get("ifname", "?")))
        for interface in interfaces
        for address in interface.get("addr_info", [])
        if address.get("family") == "inet"
    ]
    seen += [
        (str(entry["dst"]), str(entry.get("dev", "?"))) for entry in routes if entry.get("dst", "default") != "default"
    ]
    found: dict[ipaddress.IPv4Network, str] = {}
    for text, device in seen:
        network = ipaddress.IPv4Network(text, strict=False)
        if not (network.is_loopback or network.prefixlen == 0 or made_by_cilium(device)):
            found.setdefault(network, device)
    return tuple(Route(str(network), found[network]) for network in sorted(found))


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """Return the name servers of a resolv.conf(5)."""
    lines = (line.split() for line in resolv_conf.splitlines())
    return tuple(words[1].partition("%")[0] for words in lines if len(words) > 1 and words[0] == "nameserver")


async def _ip(*arguments: str) -> list[dict[str, Any]]:
    completed = await run(["ip", "-j", *arguments], timeout=_CALL_SECONDS)
    return [entry for entry in json.loads(completed.stdout or "[]") if entry]
