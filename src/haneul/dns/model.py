"""Values of the in-house DNS: record sets, what a zone has, what is to be changed. Pure.

Names are absolute, in small letters, with the dot at the end: comparisons are without case (RFC 4343), and one spelling
makes them plain. Values are in presentation format (RFC 1035 section 5.1), names in them absolute too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from haneul.kernel.errors import ConflictError, InvalidInputError
from haneul.kernel.names import parse_label

A, AAAA, CNAME, PTR, SRV, TXT = "A", "AAAA", "CNAME", "PTR", "SRV", "TXT"
#: The types that are published; sets of other types are never ours.
TYPES: Final = (A, AAAA, CNAME, PTR, SRV, TXT)

#: Octets of a name in presentation format without the dot at the end (RFC 1035 section 2.3.4).
_LONGEST_NAME: Final = 253
#: ``hostname.service.namespace.svc`` at its longest, and a label before it that marks an owner.
_LONGEST_BELOW: Final = 3 * 64 + len("svc.") + len("_haneul-cname.")
LONGEST_DOMAIN: Final = _LONGEST_NAME - _LONGEST_BELOW


class ZoneChangedError(ConflictError):
    """The zone does not have what a change was decided on; nothing of its batch was done."""

    code = "dns-zone-changed"
    title = "The zone was changed meanwhile"


class RecordsRefusedError(InvalidInputError):
    """The server takes some of these record sets never, whatever else is in its zone; nothing of the batch was done."""

    code = "dns-records-refused"
    title = "The DNS server refuses records"


class Key(NamedTuple):
    """What a record set is told by; every look for one hashes it, so it is a tuple."""

    name: str
    type: str


@dataclass(frozen=True, order=True)
class RecordSet:
    """All records of one name and type. ``ttl`` in seconds; ``values`` sorted, at least one."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Return name and type."""
        return Key(self.name, self.type)


@dataclass(frozen=True)
class Present:
    """A record set that is in a zone, and whose mark it bears; nobody's is the empty text."""

    records: RecordSet
    owner: str = ""


@dataclass(frozen=True)
class ZoneState:
    """What a zone has at one moment, the marks themselves left out.

    ``negative_ttl`` is for how many seconds resolvers remember that a name is not there (RFC 2308 section 5).
    """

    zone: str
    serial: int
    negative_ttl: int
    sets: Mapping[Key, Present] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One record set that comes (``before`` is None), goes (``after`` is None), or becomes another."""

    before: RecordSet | None
    after: RecordSet | None

    @property
    def key(self) -> Key:
        """Return which set is changed."""
        records = self.after or self.before
        if records is None:
            raise ValueError("a change has a before or an after")
        return records.key

    @property
    def size(self) -> int:
        """Return how many records it takes away and puts in."""
        return sum(len(records.values) for records in (self.before, self.after) if records)


@dataclass(frozen=True)
class Acknowledgement:
    """A server's word that a batch is in its zone; ``serial`` is the zone's from then on (RFC 1035 section 3.3.13)."""

    server: str
    zone: str
    serial: int


@dataclass(frozen=True)
class ClusterDomain:
    """Below which name a cluster's records lie, and for how many seconds resolvers may remember them.

    ``networks`` are those of its addresses, which alone get reverse names; none means any address. Where clusters share
    a reverse zone, one could else take the names of another's addresses.
    """

    name: str
    ttl: int = 5
    networks: tuple[str, ...] = ()

    def has(self, address: str) -> bool:
        """Say whether an address is one of the cluster's own."""
        found = ipaddress.ip_address(address)
        return not self.networks or any(found in ipaddress.ip_network(network) for network in self.networks)

    @classmethod
    def of(cls, cluster: str, zone: str, *, ttl: int = 5) -> ClusterDomain:
        """Return the domain ``<cluster>.<zone>``. Raises InvalidInputError."""
        name = f"{parse_label(cluster, what='cluster name')}.{absolute(zone)}"
        if len(name) - 1 > LONGEST_DOMAIN:
            raise InvalidInputError(
                f"{name!r} has more than {LONGEST_DOMAIN} characters: the longest names below it would be no names",
                hint="use a shorter zone or cluster name",
            )
        return cls(name, ttl)


def absolute(name: str) -> str:
    """Return a name in small letters with its dot at the end. Raises InvalidInputError if it has an empty label."""
    text = name.lower().removesuffix(".")
    if not text or any(not 0 < len(label) < 64 for label in text.split(".")) or len(text) > _LONGEST_NAME:
        raise InvalidInputError(f"{name!r} is no DNS name", hint="labels of 1 to 63 characters, with dots between them")
    return f"{text}."


def is_below(name: str, domain: str) -> bool:
    """Say whether a name is a domain or lies below it; both absolute."""
    return name == domain or name.endswith(f".{domain}")


def zone_of(name: str, zones: Iterable[str]) -> str:
    """Return the zone that a name is kept in: the longest of those that it lies in; nothing if it lies in none."""
    return max((zone for zone in zones if is_below(name, zone)), key=len, default="")


def reverse_name(address: str) -> str:
    """Return the name of an address's PTR record (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return f"{ipaddress.ip_address(address).reverse_pointer}."
