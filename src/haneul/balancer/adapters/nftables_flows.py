"""The connections that members have: told by the kernel, and cut one member at a time.

With ``dnat`` they are connection tracking's, read and ended by conntrack(8); with ``direct`` they are the elements of
a map for each listener (:mod:`haneul.balancer.adapters.nftables_rules`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final

from haneul.balancer.adapters.nftables_rules import CLOSING_SECONDS, Kernel, Mode, name_of
from haneul.balancer.model import Listener, Member, Protocol
from haneul.kernel.errors import CommandFailedError, UnavailableError
from haneul.kernel.process import run

_SECONDS: Final = 20.0
#: States of TCP in which nothing is said any more (conntrack(8), "--state").
_OVER: Final = frozenset({"TIME_WAIT", "CLOSE", "LAST_ACK"})
_PROTOCOLS: Final = frozenset(protocol.value.lower() for protocol in Protocol)
_TRIES: Final = 5

Connections = Mapping[tuple[Listener, Member], int]


async def counted(listeners: Iterable[Listener], members: Iterable[Member], kernel: Kernel) -> Connections:
    """Return how many connections members have of listeners. Raises UnavailableError.

    Direct members are told by their address alone, so each of ``members`` with that address is told the same.
    """
    wanted = set(listeners)
    if kernel.mode is Mode.DIRECT:
        places = list(members)
        found: Counter[tuple[Listener, Member]] = Counter()
        for listener in wanted:
            for address in open_flows(await _map(listener, kernel)):
                found.update((listener, member) for member in places if member.address == address)
        return found
    families = {"ipv6" if ":" in listener.address else "ipv4" for listener in wanted}
    texts = [(await _call("conntrack", "-L", "-f", family, "--dst-nat")) for family in sorted(families)]
    return Counter(pair for text in texts for pair in connections(text) if pair[0] in wanted)


async def cut(listener: Listener, member: Member, kernel: Kernel) -> None:
    """Forget a member's connections of a listener: their next packets are answered with a reset."""
    if kernel.mode is Mode.DIRECT:
        await _forget(listener, member.address, kernel)
        return
    words = [*_asked_for(listener), "--reply-src", member.address, "--reply-port-src", str(member.port)]
    # That there was none is an error to conntrack(8).
    await _call("conntrack", "-D", *words, check=False)


async def forget_datagrams(listener: Listener, kernel: Kernel) -> None:
    """Forget where clients' datagrams went before a listener came or left: they would go there as long as they come."""
    if listener.protocol is Protocol.UDP and kernel.mode is Mode.DNAT:
        await _call("conntrack", "-D", *_asked_for(listener), check=False)


def _asked_for(listener: Listener) -> list[str]:
    family = "ipv6" if ":" in listener.address else "ipv4"
    words = ["-f", family, "-p", listener.protocol.value.lower()]
    return [*words, "--orig-dst", listener.address, "--orig-port-dst", str(listener.port)]


async def _forget(listener: Listener, address: str, kernel: Kernel) -> None:
    place = f"{kernel.place} f_{name_of(listener)}"
    for attempt in range(_TRIES):
        keys = [f"{host} . {port}" for to, (host, port), _ in _told(await _map(listener, kernel)) if to == address]
        if not keys:
            return
        # One that has ended by itself since it was listed makes the kernel refuse all: then what is left is listed.
        script = "".join(f"delete element {place} {{ {key} }}\n" for key in keys)
        await _call("nft", "-f", "-", script=script, check=attempt == _TRIES - 1)


def connections(text: str) -> Iterator[tuple[Listener, Member]]:
    """Yield listener and member of each connection that ``conntrack -L`` tells of and that is not over."""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] not in _PROTOCOLS or _OVER.intersection(words):
            continue
        # Both directions have the same fields; what was asked for comes first.
        pairs = [word.partition("=")[::2] for word in words if "=" in word]
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        listener = Listener(str(ip_address(values["dst"][0])), Protocol(words[0].upper()), int(values["dport"][0]))
        yield listener, Member(str(ip_address(values["src"][1])), int(values["sport"][1]))


def open_flows(elements: Iterable[Any]) -> Iterator[str]:
    """Yield the member's address of each element of a direct listener's map whose connection was not ended."""
    return (address for address, _, closing in _told(elements) if not closing)


def _told(elements: Iterable[Any]) -> Iterator[tuple[str, tuple[str, int], bool]]:
    for key, mark in elements:
        entry = key["elem"]
        host, port = entry["val"]["concat"]
        yield str(ip_address(int(mark))), (str(host), int(port)), int(entry.get("expires", 0)) <= CLOSING_SECONDS


async def _map(listener: Listener, kernel: Kernel) -> list[Any]:
    listed = json.loads(await _call("nft", "-j", "list", "map", *kernel.place.split(), f"f_{name_of(listener)}"))
    maps = [entry["map"] for entry in listed["nftables"] if "map" in entry]
    return [element for one in maps for element in one.get("elem", [])]


async def _call(*command: str, script: str = "", check: bool = True) -> str:
    try:
        done = await run(command, timeout=_SECONDS, stdin=script.encode() if script else None, check=check)
    except CommandFailedError as error:
        raise UnavailableError(f"the kernel does not tell of its connections: {error.detail}") from error
    return done.stdout
