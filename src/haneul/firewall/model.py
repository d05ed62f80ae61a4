"""The values of the firewall gate.

A *way* is what a person decides on: one node, at one exact address, to one external resource, exactly as it is
written. Whatever of it changes, it is another way, and nobody has decided on that one yet.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: What lets approvals lapse; no person's name has a colon.
PLATFORM: Final = "platform:firewall"
_ID_LENGTH: Final = 16


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Resource(_Value):
    """Something outside of the platform that lets in registered addresses only; networks and ports as text."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    reason: str

    @property
    def digest(self) -> str:
        """Return a digest of all of it: the reason too, for that is what the approver was told."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def shown(self) -> str:
        """Return the resource in a few words: ``db-prod 10.1.2.3:5432``."""
        addresses = ",".join(address.removesuffix("/32") for address in self.addresses)
        return f"{self.name} {addresses}:{','.join(port.removesuffix('/tcp') for port in self.ports)}"


class Way(_Value):
    """One node at one address to one resource; ``uid`` is its cluster's, so that another of its name has none of it."""

    project: str
    cluster: str
    uid: str
    pool: str
    node: str
    address: str
    resource: Resource

    @property
    def id(self) -> str:
        """Return what names exactly this way."""
        parts = [self.uid, self.pool, self.node, self.address, self.resource.digest]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_ID_LENGTH]

    @property
    def shown(self) -> str:
        """Return the way in a few words, for records."""
        return f"{self.address} {self.resource.name} ({self.cluster}/{self.node}) {self.id}"


class WantedNode(_Value):
    """A gated node that a pool wants: without an address while it has none. ``asked`` is its pool's digest."""

    project: str
    cluster: str
    uid: str
    pool: str
    node: str
    address: str
    asked: str
    resources: tuple[Resource, ...]

    @property
    def ways(self) -> tuple[Way, ...]:
        """Return the ways that it needs from where it is."""
        shared = self.model_dump(include={"project", "cluster", "uid", "pool", "node", "address"})
        return tuple(Way(**shared, resource=resource) for resource in self.resources) if self.address else ()


class DecisionKind(StrEnum):
    """What is decided. An approval lapses when nobody wants its way any more; that is no person's decision."""

    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"
    LAPSED = "lapsed"


class State(StrEnum):
    """How a request stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"


class Decision(_Value):
    """One decision, kept for good: who decided what, when and why, and from where."""

    number: int
    moment: datetime
    kind: DecisionKind
    person: str
    why: str
    source: str = ""
    request_id: str = ""
    way_id: str
    way: Way


class FirewallRequest(_Value):
    """A way that a node needs, how it stands, who asked for it, and the last decision on it."""

    id: str
    state: State
    way: Way
    askers: tuple[str, ...] = ()
    decided_by: str = ""
    decided: datetime | None = None
    why: str = ""


class Actor(_Value):
    """Who decides. ``behind`` are others who can act as them: whoever made tokens in their name."""

    person: str
    behind: frozenset[str] = frozenset()
    source: str = ""
    agent: str = ""
    request_id: str = ""


class Asker(_Value):
    """Somebody who asked for a pool, or ``behind`` them can act as them; ``asked`` is the digest of the pool."""

    person: str
    behind: bool
    asked: str


class Approval(_Value):
    """An approval as it is published to whoever signs certificates and opens firewalls."""

    way: Way
    approver: str
    decision: int = Field(ge=1)
    moment: datetime


class SiteNode(_Value):
    """A node as whoever signs sees it: ``joined`` if pods may run on it. Without resources, it only leaves."""

    node: str
    pool: str
    address: str
    joined: bool
    resources: tuple[Resource, ...] = ()


class Site(_Value):
    """One cluster with its gated nodes."""

    project: str
    cluster: str
    uid: str
    nodes: tuple[SiteNode, ...] = ()

    def ways(self, node: SiteNode) -> tuple[Way, ...]:
        """Return the ways that a node needs from where it is."""
        wanted = WantedNode(
            project=self.project,
            cluster=self.cluster,
            uid=self.uid,
            asked="",
            **node.model_dump(include={"node", "pool", "address"}),
            resources=node.resources,
        )
        return wanted.ways


class Rule(_Value):
    """What a firewall lets through: packets from one address to a resource's addresses and ports."""

    source: str
    resource: str
    destinations: tuple[str, ...]
    ports: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return source, resource and a digest of the rest, with blanks between: short enough for a comment."""
        rest = hashlib.sha256(json.dumps([self.destinations, self.ports]).encode()).hexdigest()
        return f"{self.source} {self.resource} {rest[:12]}"


def source_of(key: str) -> str:
    """Return the source address of a rule with this key."""
    return key.partition(" ")[0]


def rule_of(way: Way) -> Rule:
    """Return what a firewall has to let through for a way."""
    resource = way.resource
    return Rule(
        source=way.address,
        resource=resource.name,
        destinations=tuple(sorted(resource.addresses)),
        ports=tuple(sorted(resource.ports)),
    )
