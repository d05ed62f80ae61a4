"""keepalived's configuration for machines that share a balancer's addresses, rendered strictly. Pure.

The machines are equal: each begins as a backup, and one that comes back takes nothing from the one that serves
(``nopreempt``). They tell each other by packets to each one's own address, as multicast is not everywhere. Of the
addresses only the first is in those packets, which have no room for many; the others go along with it.

Source: keepalived.conf(5) of keepalived 2.2.7; RFC 9568 (VRRP version 3).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)
_INSTANCE: Final = "haneul"


@dataclass(frozen=True)
class Sharing:
    """Which machines share which addresses.

    ``device`` is where the addresses are, ``own`` this machine's address on the network of the others (``peers``);
    ``router`` (1 to 255) is the same for all of them and nobody else's there. ``priority`` decides between two that
    begin at once; ``advert`` is for how many hundredths of a second the active one is silent: after three times that
    it counts as dead. ``alive`` is the command that tells whether this machine's balancer answers.
    """

    addresses: Sequence[str]
    device: str
    own: str
    peers: Sequence[str]
    router: int
    priority: int
    advert: int
    alive: Sequence[str]


def render(sharing: Sharing) -> str:
    """Return the whole configuration. Raises ValueError if a value is none."""
    return "\n".join(_lines(sharing)) + "\n"


def _lines(sharing: Sharing) -> Iterator[str]:
    if not _DEVICE.fullmatch(sharing.device):
        raise ValueError(f"{sharing.device!r} is no device")
    command = shlex.join(sharing.alive)
    if not command.isprintable() or '"' in command:
        raise ValueError(f"{command!r} is no command that keepalived can be told")
    first, *others = [str(ip_address(address)) for address in sharing.addresses]
    yield "# Written by Haneul, which writes it anew whenever something differs."
    yield "global_defs {"
    yield "    vrrp_version 3"
    yield "    script_user root"
    # What somebody other than root could have written is not run.
    yield "    enable_script_security"
    # What is late because the machine is busy would count as dead.
    yield "    vrrp_priority -20"
    yield "}"
    yield "vrrp_script balancer {"
    yield f'    script "{command}"'
    yield "    interval 1"
    yield "    timeout 3"
    yield "    fall 2"
    yield "    rise 1"
    yield "    init_fail"
    yield "}"
    yield f"vrrp_instance {_INSTANCE} {{"
    yield "    state BACKUP"
    yield "    nopreempt"
    yield f"    interface {sharing.device}"
    yield f"    virtual_router_id {int(sharing.router)}"
    yield f"    priority {int(sharing.priority)}"
    yield f"    advert_int {int(sharing.advert) / 100:.2f}"
    yield f"    unicast_src_ip {ip_address(sharing.own)}"
    # Whoever else sends such packets here says nothing.
    yield "    check_unicast_src"
    yield from _block("unicast_peer", [str(ip_address(peer)) for peer in sharing.peers])
    yield from _block("virtual_ipaddress", [_place(first, sharing.device)])
    if others:
        yield from _block("virtual_ipaddress_excluded", [_place(other, sharing.device) for other in others])
    yield from _block("track_script", ["balancer"])
    yield "}"


def _block(name: str, entries: Sequence[str]) -> Iterator[str]:
    yield f"    {name} {{"
    yield from (f"        {entry}" for entry in entries)
    yield "    }"


def _place(address: str, device: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen} dev {device}"


def file_names(folder: Path) -> tuple[Path, Path, Path]:
    """Return the configuration and the pid files of keepalived and of its process for VRRP."""
    return folder / "keepalived.conf", folder / "keepalived.pid", folder / "keepalived-vrrp.pid"
