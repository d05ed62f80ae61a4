"""What the firewall gate needs of others, each as small as its use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request

from haneul.firewall.model import Actor, Approval, Rule, WantedNode


class FirewallBackend(Protocol):
    """A firewall. It is told what to let through, again and again, and changes only what it made itself."""

    async def apply(self, owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
        """Let through exactly ``rules`` of a cluster, and for the ``leaving`` source addresses what it did before.

        When this returns, the firewall does so. Without rules and leaving addresses, nothing of the owner is left.
        """
        ...

    async def opened(self, owner: str) -> frozenset[str]:
        """Return the keys of the rules of a cluster that are in force."""
        ...


class ApprovalReader(Protocol):
    """Where whoever signs certificates reads approvals, as they are at this moment."""

    async def of(self, project: str, uid: str) -> Sequence[Approval]:
        """Return the approvals for a cluster."""
        ...


class ApprovalBoard(Protocol):
    """Where approvals are published."""

    async def published(self) -> Sequence[Approval]:
        """Return all that is published."""
        ...

    async def publish(self, approval: Approval) -> None:
        """Publish an approval; again changes nothing."""
        ...

    async def withdraw(self, approval: Approval) -> None:
        """Make it be published no more."""
        ...


class WantedNodes(Protocol):
    """Shows all gated nodes of the platform."""

    async def all(self) -> Sequence[WantedNode]:
        """Return every node that a gated pool wants, as it is now."""
        ...


class FirewallAccess(Protocol):
    """Who may see and decide; every method raises for whom it does not let through."""

    async def visible(self, request: Request) -> Sequence[str] | None:
        """Return the projects whose requests the caller may see; None stands for all."""
        ...

    async def approver(self, request: Request) -> Actor:
        """Let through a person who is a firewall approver; nobody else, whatever else they may."""
        ...
