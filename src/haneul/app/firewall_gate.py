"""DKOS's port of the join gate, on the firewall gate: translates clusters and their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haneul.app.firewall_access import resources_of
from haneul.dkos.model import Cluster
from haneul.dkos.ports import GatedNode
from haneul.firewall.adapters.nftables import Gateway, NftablesFirewall
from haneul.firewall.adapters.record_only import RecordOnly
from haneul.firewall.gatekeeper import Gatekeeper
from haneul.firewall.model import Site, SiteNode
from haneul.firewall.ports import FirewallBackend
from haneul.kernel.kube import KubeClient


@dataclass(frozen=True)
class GatewaySettings:
    """The gateway whose rules the operator keeps: a network namespace of its machine, and the networks behind it."""

    namespace: Path
    guarded: tuple[str, ...]


def firewall_backend(
    settings: GatewaySettings | None, client: KubeClient, namespace: str = "haneul-system"
) -> FirewallBackend:
    """Return the firewall that is told; without a gateway, what it would be told is written down."""
    if settings is None:
        return RecordOnly(client, namespace)
    return NftablesFirewall(Gateway(settings.guarded, ("nsenter", f"--net={settings.namespace}")))


class FirewallJoinGate:
    """The join gate of all clusters."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper

    async def look(self, cluster: Cluster, nodes: Sequence[GatedNode]) -> Mapping[str, str]:
        """Return what bars each node."""
        return await self._gatekeeper.look(_site(cluster, nodes))

    async def bars(self, cluster: Cluster, node: GatedNode) -> str:
        """Return what bars a node now."""
        return await self._gatekeeper.bars(_site(cluster, [node]))

    async def leave(self, cluster: Cluster) -> None:
        """Let the firewall forget a cluster."""
        await self._gatekeeper.leave(cluster.uid)


def _site(cluster: Cluster, nodes: Sequence[GatedNode]) -> Site:
    return Site(
        project=cluster.project,
        cluster=cluster.name,
        uid=cluster.uid,
        nodes=tuple(
            SiteNode(
                node=node.name,
                pool=node.pool.name if node.pool else "",
                address=node.address,
                joined=node.joined,
                resources=resources_of(node.pool) if node.pool else (),
            )
            for node in nodes
        ),
    )
