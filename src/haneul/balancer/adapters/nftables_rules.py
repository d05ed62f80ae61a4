"""The rules of nftables that balance a set of frontends, rendered strictly. Pure.

Two ways, each in a table of its own name that nobody else writes:

``dnat`` (family ``inet``)
    The first packet of a connection is given a member as its destination; connection tracking does so with all others,
    also when members have changed since, and with what comes back. Unless masquerading is off, members see this
    machine as their client, so that their answers come back through it wherever their routes go.
``direct`` (family ``netdev``, at the ingress of one device)
    Packets go on to a member on the same network as they came, but for the link's addresses; members have the address
    themselves and answer clients past this machine. Which member a client's port was given is kept in a map for each
    listener (``f_…``), that packets refresh: so connections stay where they are when members change.

A chain for each listener has the spreading. Each has a rule in the chain ``stamp`` whose comment says by a digest what
it was made of, so that finding out what differs is one short list, however many members there are.

Whatever a value is, what is written of it is the text of an address, a network, a number or one of our own words.
Source: nft(8) of nftables 1.0.6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import collapse_addresses, ip_address, ip_network
from typing import Final

from haneul.balancer.adapters.slots import SLOTS, slots
from haneul.balancer.model import Algorithm, Frontend, Listener, Member, Options, Protocol

STAMP: Final = "stamp"
_FRAME: Final = "frame"
#: Bits of a TCP head that tell the first packet of a connection from others.
_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"
#: How long direct connections are remembered without a packet, and after one that ends them.
_IDLE: Final = {Protocol.TCP: "1h", Protocol.UDP: "3m"}
CLOSING_SECONDS: Final = 30
_FLOWS: Final = 1 << 20


class Mode(StrEnum):
    """How packets get to members and back."""

    DNAT = "dnat"
    DIRECT = "direct"


@dataclass(frozen=True)
class Kernel:
    """How this machine's kernel is used. ``device`` is where direct packets come in and go out."""

    mode: Mode = Mode.DNAT
    table: str = "haneul_balancer"
    masquerade: bool = True
    device: str = ""

    @property
    def family(self) -> str:
        """Return the family of the table."""
        return "netdev" if self.mode is Mode.DIRECT else "inet"

    @property
    def place(self) -> str:
        """Return family and name of the table."""
        return f"{self.family} {self.table}"


@dataclass(frozen=True)
class Piece:
    """What a listener's chain is made of, and the digest that tells whether the kernel has it.

    ``marks`` are those that stand for direct members.
    """

    listener: Listener
    rules: tuple[str, ...]
    marks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of its chain."""
        return name_of(self.listener)

    @property
    def digest(self) -> str:
        """Return what tells it from another one of the same listener."""
        return _digest(self.rules)


def name_of(listener: Listener) -> str:
    """Return what a listener's chain is called; letters, digits and ``_``."""
    address = ip_address(listener.address).packed.hex()
    return f"{Protocol(listener.protocol).value.lower()}_{address}_{_port(listener.port)}"


def piece(frontend: Frontend, members: Sequence[Member], kernel: Kernel) -> Piece:
    """Return a listener's chain that spreads over ``members``. Raises ValueError if a value is none.

    Members of the other family of addresses are left out: no packet can be made one of the other.
    """
    listener = frontend.listener
    version = ip_address(listener.address).version
    able = [member for member in members if ip_address(member.address).version == version]
    for number in (listener.port, *(member.port for member in members)):
        _port(number)
    guard = tuple(_guard(listener, frontend.options))
    if kernel.mode is Mode.DNAT:
        return Piece(listener, (*guard, *_dnat(listener, able, frontend.options)))
    marks = tuple(f"0x{ip_address(member.address).packed.hex()}" for member in able)
    return Piece(listener, (*guard, *_direct(listener, able, marks, frontend.options, kernel.device)), marks)


def stamps(wanted: Iterable[Piece], kernel: Kernel) -> dict[str, str]:
    """Return what the chain ``stamp`` says when the kernel has just these pieces."""
    return {_FRAME: _digest(tuple(_frame(kernel)))} | {one.name: one.digest for one in wanted}


def transaction(wanted: Sequence[Piece], standing: Mapping[str, str], kernel: Kernel) -> str:
    """Return the script that makes the kernel's table what is wanted, of what it says of itself (``standing``).

    The kernel does it whole or not at all (nft(8), "-f"). Empty if nothing differs.
    """
    telling = stamps(wanted, kernel)
    if telling == standing:
        return ""
    place, lines = kernel.place, list[str]()
    if standing.get(_FRAME) != telling[_FRAME]:
        standing = {}
        lines += [f"add table {place}", f"delete table {place}", f"add table {place}"]
        lines += _frame(kernel)
    changed = [one for one in wanted if standing.get(one.name) != one.digest]
    for one in changed:
        lines += [f"add chain {place} {one.name}", f"flush chain {place} {one.name}"]
        if kernel.mode is Mode.DIRECT:
            lines.append(_flows(one.listener, kernel))
        lines += [f"add rule {place} {one.name} {rule}" for rule in one.rules]
    lines += _elements(wanted, kernel)
    for name in sorted(set(standing) - set(telling)):
        lines += [f"flush chain {place} {name}", f"delete chain {place} {name}"]
        if kernel.mode is Mode.DIRECT:
            lines.append(f"delete map {place} f_{name}")
    lines.append(f"flush chain {place} {STAMP}")
    lines += [f'add rule {place} {STAMP} continue comment "{name} {digest}"' for name, digest in telling.items()]
    return "\n".join(lines) + "\n"


def _frame(kernel: Kernel) -> Iterator[str]:
    """Yield what there is of the table before any listener."""
    place = kernel.place
    yield f"add chain {place} {STAMP}"
    yield f"add chain {place} refuse"
    yield f"add rule {place} refuse meta l4proto tcp reject with tcp reset"
    if kernel.mode is Mode.DIRECT:
        yield f"add map {place} listeners {{ type ipv4_addr . inet_proto . inet_service : verdict; }}"
        yield f"add map {place} members {{ type mark : ipv4_addr; }}"
        yield f"add rule {place} refuse reject with icmpx type port-unreachable"
        hook = f'type filter hook ingress device "{kernel.device}" priority 0; policy accept;'
        yield f"add chain {place} ingress {{ {hook} }}"
        yield f"add rule {place} ingress ip daddr . meta l4proto . th dport vmap @listeners"
        return
    yield f"add rule {place} refuse reject with icmpx type port-unreachable"
    for version, kind in (("", "ipv4_addr"), ("6", "ipv6_addr")):
        yield f"add map {place} listeners{version} {{ type {kind} . inet_proto . inet_service : verdict; }}"
        yield f"add set {place} served{version} {{ type {kind} . inet_proto . inet_service; }}"
        yield f"add set {place} addresses{version} {{ type {kind}; }}"
    for hook, nat in (("prerouting", -100), ("output", -100)):
        yield f"add chain {place} {hook} {{ type nat hook {hook} priority {nat}; policy accept; }}"
        yield f"add chain {place} cut_{hook} {{ type filter hook {hook} priority -150; policy accept; }}"
        for version in ("", "6"):
            daddr = f"ip{version} daddr"
            yield f"add rule {place} {hook} {daddr} . meta l4proto . th dport vmap @listeners{version}"
            # Of a connection that was cut, or that this machine knows nothing of, the next packet is answered so.
            yield (
                f"add rule {place} cut_{hook} ct state new {_FLAGS} != syn "
                f"{daddr} . meta l4proto . th dport @served{version} reject with tcp reset"
            )
    yield f"add chain {place} postrouting {{ type nat hook postrouting priority 100; policy accept; }}"
    if kernel.masquerade:
        # What this machine itself sends comes back to it anyway.
        for version in ("", "6"):
            yield (
                f"add rule {place} postrouting ct status dnat ct original ip{version} daddr @addresses{version} "
                "fib saddr type != local masquerade"
            )


def _elements(wanted: Sequence[Piece], kernel: Kernel) -> Iterator[str]:
    """Yield what fills the table's maps and sets anew."""
    place = kernel.place
    direct = kernel.mode is Mode.DIRECT
    names = ("listeners", "members") if direct else ("listeners", "served", "addresses")
    for version, suffix in ((4, ""),) if direct else ((4, ""), (6, "6")):
        pieces = [one for one in wanted if ip_address(one.listener.address).version == version]
        keys = {one.name: _key(one.listener) for one in pieces}
        filling = {"listeners": [f"{key} : goto {name}" for name, key in keys.items()], "served": list(keys.values())}
        filling["addresses"] = sorted({str(ip_address(one.listener.address)) for one in pieces})
        if direct:
            filling["members"] = _known(pieces)
        for name in names:
            if name != "members":
                yield f"flush {'map' if name == 'listeners' else 'set'} {place} {name}{suffix}"
            if filling[name]:
                yield f"add element {place} {name}{suffix} {{ {', '.join(filling[name])} }}"


def _known(pieces: Sequence[Piece]) -> list[str]:
    """Return which address each mark stands for, of all members in the chains.

    None is ever taken away: connections of one that leaves are given on to it.
    """
    return [f"{mark} : {ip_address(int(mark, 16))}" for mark in sorted({mark for one in pieces for mark in one.marks})]


def _guard(listener: Listener, options: Options) -> Iterator[str]:
    """Yield what lets in clients of the source ranges alone."""
    if not options.sources:
        return
    version = ip_address(listener.address).version
    # The kernel's sets take no networks that overlap.
    networks = [ip_network(source) for source in options.sources]
    if version == 4:
        allowed = [str(one) for one in collapse_addresses(one for one in networks if one.version == 4)]
    else:
        allowed = [str(one) for one in collapse_addresses(one for one in networks if one.version == 6)]
    if any(text.endswith("/0") for text in allowed):
        return
    match = f"{_family(listener)} saddr != {{ {', '.join(allowed)} }} " if allowed else ""
    yield f"{match}goto refuse"


def _dnat(listener: Listener, members: Sequence[Member], options: Options) -> tuple[str, ...]:
    if not members:
        return ("goto refuse",)
    protocol, family = _protocol(listener), _family(listener)
    places = [f"{ip_address(member.address)} . {_port(member.port)}" for member in members]
    chosen = _chosen(listener, members, places, options)
    return (f"meta l4proto {protocol} dnat {family} to {chosen}",)


def _direct(
    listener: Listener, members: Sequence[Member], marks: Sequence[str], options: Options, device: str
) -> tuple[str, ...]:
    protocol, name = _protocol(listener), name_of(listener)
    client = "ip saddr . th sport"
    on = f'fwd ip to meta mark map @members device "{device}"'

    def remembered(seconds: str) -> str:
        return (
            f"meta mark set {client} map @f_{name} update @f_{name} {{ {client} timeout {seconds} : meta mark }} {on}"
        )

    rules = []
    if listener.protocol is Protocol.TCP:
        rules.append(f"tcp flags & (fin | rst) != 0 {remembered(f'{CLOSING_SECONDS}s')}")
    rules.append(remembered(_IDLE[listener.protocol]))
    if listener.protocol is Protocol.TCP:
        rules.append(f"{_FLAGS} != syn goto refuse")
    if not members:
        return (*rules, "goto refuse")
    rules.append(f"meta l4proto {protocol} meta mark set {_chosen(listener, members, marks, options)}")
    rules.append(f"update @f_{name} {{ {client} timeout {_IDLE[listener.protocol]} : meta mark }}")
    rules.append(on)
    return tuple(rules)


def _chosen(listener: Listener, members: Sequence[Member], values: Sequence[str], options: Options) -> str:
    """Return the expression that chooses one of the members' values."""
    if options.algorithm is Algorithm.SOURCE:
        table = slots([str(member) for member in members])
        pairs = ", ".join(f"{slot} : {values[number]} " for slot, number in enumerate(table))
        # The seed is fixed, so that every balancer that shares the address gives a client the same member.
        return f"jhash {_family(listener)} saddr mod {SLOTS} seed 0x48616e75 map {{ {pairs}}}"
    kind = {Algorithm.ROUND_ROBIN: "inc", Algorithm.RANDOM: "random"}[options.algorithm]
    pairs = ", ".join(f"{number} : {value} " for number, value in enumerate(values))
    return f"numgen {kind} mod {len(values)} map {{ {pairs}}}"


def _flows(listener: Listener, kernel: Kernel) -> str:
    kind = f"type ipv4_addr . inet_service : mark; size {_FLOWS}; flags dynamic, timeout;"
    return f"add map {kernel.place} f_{name_of(listener)} {{ {kind} timeout {_IDLE[listener.protocol]}; }}"


def _key(listener: Listener) -> str:
    return f"{ip_address(listener.address)} . {_protocol(listener)} . {_port(listener.port)}"


def _protocol(listener: Listener) -> str:
    return Protocol(listener.protocol).value.lower()


def _family(listener: Listener) -> str:
    return "ip6" if ip_address(listener.address).version == 6 else "ip"


def _port(port: int) -> int:
    if not 0 < int(port) < 65536:
        raise ValueError(f"{port!r} is no port")
    return int(port)


def _digest(rules: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(rules).encode()).hexdigest()[:20]
