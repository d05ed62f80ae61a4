"""Facts about this machine from which the composition root makes the settings of an installation.

Each function looks once and says what it saw; nothing is remembered. Files are read below ``root``, the root of the
file system unless a test passes another.
"""

from __future__ import annotations

import ipaddress
import json
import platform
import re
from pathlib import Path
from typing import Any, Final

from haneul.kernel.errors import HaneulError, HostNotReadyError
from haneul.kernel.process import run

_CALL_SECONDS: Final = 10.0
#: Numbers of capabilities, see capabilities(7) and linux/capability.h.
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_BPF": 39}


async def primary_address() -> str:
    """Return the IPv4 address by which others reach this machine.

    It is the source address of packets that take the default route; without such a route, the first global address.
    Raises HostNotReadyError when there is neither.
    """
    for entry in await _ip("route", "show", "default"):
        if source := entry.get("prefsrc"):
            return str(source)
        # An address of documentation (RFC 5737) stands for "anywhere": the kernel is asked, nothing is sent.
        gateway = str(entry.get("gateway", "203.0.113.1"))
        for route in await _ip("route", "get", gateway, "oif", str(entry["dev"])):
            if source := route.get("prefsrc"):
                return str(source)
    addresses = global_addresses(await _ip("-4", "address", "show", "scope", "global"))
    if not addresses:
        raise HostNotReadyError(
            "this machine has no IPv4 address that others could reach",
            hint="configure a network interface, or name the address with --address",
        )
    return addresses[0]


def global_addresses(interfaces: list[dict[str, Any]]) -> list[str]:
    """Return the addresses in what ``ip -j address`` printed, without those of links that containers made."""
    return [
        str(address["local"])
        for interface in interfaces
        if not made_by_cilium(name := interface.get("ifname", "")) and not name.startswith(("cni", "docker", "virbr"))
        for address in interface.get("addr_info", [])
        if address.get("scope") == "global" and not ipaddress.ip_address(address["local"]).is_loopback
    ]


def made_by_cilium(interface: str) -> bool:
    """Say whether a network interface's name is one that Cilium gives; a bridge of LXC's is none."""
    return re.fullmatch(r"cilium_\w+|lxc[0-9a-f]{12}|lxc_health", interface) is not None


def host_name() -> str:
    """Return this machine's name as Kubernetes writes nodes' names: small letters, no domain."""
    return platform.node().split(".", maxsplit=1)[0].lower()


def restrict_oom_score(root: Path = Path("/")) -> bool:
    """Say whether we may not lower a process's badness for the out-of-memory killer: that takes CAP_SYS_RESOURCE."""
    return "CAP_SYS_RESOURCE" not in held_capabilities((root / "proc/self/status").read_text())


def systemd(root: Path = Path("/")) -> bool:
    """Say whether process 1 is systemd; sd_booted(3) looks at the same folder."""
    return (root / "run/systemd/system").is_dir()


def held_capabilities(status: str) -> frozenset[str]:
    """Return those of :data:`CAPABILITIES` that the effective set in ``status``, a /proc/<pid>/status, holds."""
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)$", status, re.MULTILINE)
    effective = int(found.group(1), 16) if found else 0
    return frozenset(name for name, number in CAPABILITIES.items() if effective >> number & 1)


async def _ip(*arguments: str) -> list[dict[str, Any]]:
    """Return what ``ip -j`` prints; nothing when there is nothing to print or it refuses."""
    try:
        completed = await run(["ip", "-j", *arguments], timeout=_CALL_SECONDS, check=False)
    except HaneulError:
        return []
    if completed.status != 0 or not completed.stdout.strip():
        return []
    return [entry for entry in json.loads(completed.stdout) if entry]
