"""A firewall and a board of approvals in memory: for simulations and for the behaviour suites."""

from __future__ import annotations

from collections.abc import Sequence

from haneul.firewall.model import Approval, Rule, source_of


class MemoryFirewall:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self._opened: dict[str, frozenset[str]] = {}

    async def apply(self, owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
        """Replace what is known of an owner."""
        before = self._opened.pop(owner, frozenset())
        kept = {key for key in before if source_of(key) in leaving}
        if after := kept | {rule.key for rule in rules}:
            self._opened[owner] = frozenset(after)

    async def opened(self, owner: str) -> frozenset[str]:
        """Return what is let through."""
        return self._opened.get(owner, frozenset())


class MemoryApprovals:
    """A board that is read where it is written."""

    def __init__(self) -> None:
        self._approvals: dict[str, Approval] = {}

    async def of(self, project: str, uid: str) -> Sequence[Approval]:
        """Return a cluster's approvals."""
        return [one for one in self._approvals.values() if (one.way.project, one.way.uid) == (project, uid)]

    async def published(self) -> Sequence[Approval]:
        """Return all."""
        return list(self._approvals.values())

    async def publish(self, approval: Approval) -> None:
        """Keep one."""
        self._approvals[approval.way.id] = approval

    async def withdraw(self, approval: Approval) -> None:
        """Forget one."""
        self._approvals.pop(approval.way.id, None)
