"""The gate itself, beside whoever signs certificates: reads approvals, tells the firewall, says who is barred.

Nothing here can approve anything. Approvals are compared with what is seen of nodes and asked for by pools right now;
what does not match exactly is none. A node is let through only after the firewall was told of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from haneul.firewall.decisions import missing, open_rules
from haneul.firewall.model import Resource, Rule, Site, SiteNode, rule_of
from haneul.firewall.ports import ApprovalReader, FirewallBackend
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)


class Gatekeeper:
    """The gate of all clusters."""

    def __init__(self, approvals: ApprovalReader, backend: FirewallBackend) -> None:
        self._approvals = approvals
        self._backend = backend
        #: What the firewall was told last of each cluster, by this process.
        self._told: dict[str, frozenset[Rule]] = {}

    async def look(self, site: Site) -> Mapping[str, str]:
        """Tell the firewall how a cluster stands; return what bars each of its nodes, by name, or nothing."""
        approvals = await self._approvals.of(site.project, site.uid)
        rules, leaving = open_rules(site, approvals)
        trouble = ""
        try:
            await self._backend.apply(site.uid, rules, leaving)
            self._told[site.uid] = rules
        except HaneulError as error:
            self._told.pop(site.uid, None)
            _log.warning("the firewall was not told", cluster=site.uid, error=str(error))
            trouble = f"waits for the firewall, which does not take its rules: {error.detail.splitlines()[-1][:200]}"
        return {
            # A node that is in stays in while the firewall does not answer: its rules are still there.
            node.node: _waits(missing(site, node, approvals)) or ("" if node.joined else trouble)
            for node in site.nodes
            if node.resources
        }

    async def bars(self, site: Site) -> str:
        """Return what bars the one node of ``site`` from a certificate at this moment."""
        (node,) = site.nodes
        if lacks := missing(site, node, await self._approvals.of(site.project, site.uid)):
            return _waits(lacks)
        told = self._told.get(site.uid, frozenset())
        return "" if _rules(site, node) <= told else "waits for the firewall to be told"

    async def leave(self, uid: str) -> None:
        """Let the firewall forget a cluster that is gone."""
        await self._backend.apply(uid, frozenset(), frozenset())
        self._told.pop(uid, None)


def _rules(site: Site, node: SiteNode) -> frozenset[Rule]:
    return frozenset(rule_of(way) for way in site.ways(node))


def _waits(lacks: list[Resource]) -> str:
    return f"waits for a firewall approver: {', '.join(resource.shown for resource in lacks)}" if lacks else ""
