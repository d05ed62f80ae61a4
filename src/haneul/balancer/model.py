"""Values of load balancing: listeners, how their connections are spread, what is to be changed. Pure.

Addresses are IPv4 or IPv6 in their shortest spelling (RFC 5952), so that comparing texts compares addresses. Times are
whole milliseconds where HAProxy and its like count in them, whole seconds elsewhere; each field says which.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeGuard

from haneul.kernel.errors import ConflictError, InvalidInputError


class Protocol(StrEnum):
    """What a listener speaks."""

    TCP = "TCP"
    UDP = "UDP"


class Algorithm(StrEnum):
    """How connections are spread over members."""

    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"
    RANDOM = "random"
    #: By the client's address: it stays with its member, and when members change, few clients move.
    SOURCE = "source"


class ProxyProtocol(StrEnum):
    """Whether members are told the client's address before its first byte (the PROXY protocol, versions 1 and 2)."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class MemberState(StrEnum):
    """How a member is in a balancer's eyes. ``LEAVING``: it gets nothing new, and has connections that may end."""

    UP = "up"
    DOWN = "down"
    LEAVING = "leaving"


class Part(StrEnum):
    """Which part a balancer has among machines that share its addresses; ``ALONE`` where they are its own.

    The one that is active decides who gets which address, and tells Services. The others serve what was told.
    """

    ALONE = "alone"
    ACTIVE = "active"
    STANDBY = "standby"


class FrontendsChangedError(ConflictError):
    """The balancer does not have what a change was decided on; nothing of the batch was done."""

    code = "balancer-changed"
    title = "The load balancer was changed meanwhile"


@dataclass(frozen=True, order=True)
class Listener:
    """Where clients connect to."""

    address: str
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.protocol}"


class ListenerRefusedError(InvalidInputError):
    """The balancer cannot listen there, whatever else it does; nothing of the batch was done."""

    code = "balancer-listener-refused"
    title = "The load balancer cannot listen there"

    def __init__(self, detail: str, *, listener: Listener, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.listener = listener


class Slot(NamedTuple):
    """What two Services at one address cannot both have; the protocol as the Service has it."""

    protocol: str
    port: int


@dataclass(frozen=True, order=True)
class Member:
    """What connections are given to."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class HealthCheck:
    """How it is found out whether a member answers; ``interval`` and ``timeout`` in milliseconds.

    ``rise`` good answers make it one that does, ``fall`` bad ones one that does not. With a ``path`` the question is
    an HTTP one that has to be answered with 200, at ``port`` if that is not 0; else that a connection comes about.
    """

    interval: int = 2000
    timeout: int = 2000
    rise: int = 2
    fall: int = 3
    path: str = ""
    port: int = 0


@dataclass(frozen=True)
class Options:
    """How the connections of a listener are treated.

    ``drain`` is for how many seconds the connections of a member that leaves may go on. ``sources`` are the networks
    that clients may come from; without any, all may.
    """

    algorithm: Algorithm = Algorithm.ROUND_ROBIN
    check: HealthCheck = HealthCheck()
    drain: int = 60
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frontend:
    """A listener with what is behind it. ``service`` is ``namespace/name``; ``members`` are sorted."""

    listener: Listener
    service: str
    options: Options = Options()
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Present:
    """A frontend that a balancer has, and whose it is."""

    frontend: Frontend
    owner: str


@dataclass(frozen=True)
class Change:
    """A frontend that comes (``before`` is None), goes (``after`` is None), or becomes another at the same place."""

    before: Frontend | None
    after: Frontend | None

    @property
    def listener(self) -> Listener:
        """Return where it is changed."""
        frontend = self.after or self.before
        if frontend is None:
            raise ValueError("a change has a before or an after")
        return frontend.listener


@dataclass(frozen=True)
class MemberHealth:
    """A member's state, and how many connections it has now."""

    state: MemberState
    connections: int


@dataclass(frozen=True)
class Abilities:
    """What a kind of balancer can do. Every one can spread connections by source.

    ``retries`` is whether another member gets a connection that one refuses which is not known to be down yet.
    """

    protocols: frozenset[Protocol] = frozenset(Protocol)
    algorithms: frozenset[Algorithm] = frozenset(Algorithm)
    proxy_protocol: bool = True
    retries: bool = True


Frontends = Mapping[Listener, Present]


@dataclass(frozen=True)
class Pool:
    """Addresses that Services may have: from ``first`` to ``last`` of each range, all of them.

    ``projects`` are those whose clusters may use it; without any, all may.
    """

    name: str
    ranges: tuple[tuple[str, str], ...]
    projects: frozenset[str] = field(default_factory=frozenset)

    def __contains__(self, address: object) -> bool:
        one = ipaddress.ip_address(str(address))
        return any(
            one.version == ipaddress.ip_address(first).version
            and int(ipaddress.ip_address(first)) <= int(one) <= int(ipaddress.ip_address(last))
            for first, last in self.ranges
        )


def project_of(owner: str) -> str:
    """Return whose a cluster is that an owner's mark names: the platform's are ``PROJECT/CLUSTER/UID/ID``."""
    return owner.partition("/")[0]


def canonical(address: str) -> str:
    """Return an address in its one spelling. Raises ValueError; an address with a zone is none here."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id:
        raise ValueError(f"{address!r} has a zone")
    return str(found)


def is_port(number: object) -> TypeGuard[int]:
    """Say whether something is a port; what an API that is not Kubernetes' own says may be anything."""
    return isinstance(number, int) and 0 < number < 65536


def parse_range(text: str) -> tuple[str, str]:
    """Return first and last address of ``192.0.2.0/28``, ``192.0.2.4-192.0.2.9`` or one address. Raises ValueError."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if dash:
        low, high = ipaddress.ip_address(canonical(first)), ipaddress.ip_address(canonical(last))
        if low.version != high.version or int(low) > int(high):
            raise ValueError(f"{text!r} ends before it begins")
        return str(low), str(high)
    network = ipaddress.ip_network(text)
    return str(network[0]), str(network[-1])
