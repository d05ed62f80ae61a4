"""What the firewall gate and DKOS need of each other and of identity in the platform's API: the ports of each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from haneul import firewall as firewall_package
from haneul.dkos.cluster_store import ClusterStore
from haneul.dkos.external_resources import asked_digest
from haneul.dkos.model import Cluster, NodePool
from haneul.dkos.node_plan import plan_nodes
from haneul.dkos.ports import Caller as AnyCaller
from haneul.firewall.model import Actor, Resource, WantedNode
from haneul.firewall.record import FirewallRecord
from haneul.identity.audit import AuditLog
from haneul.identity.gate import Gate
from haneul.identity.model import Origin
from haneul.identity.proxies import Proxies
from haneul.identity.rights import PlatformRight, demand, demand_a_person, may
from haneul.identity.service import Identity

FIREWALL_MIGRATIONS: Final = Path(firewall_package.__file__).parent / "migrations"


class PeopleAtTheGate:
    """The firewall gate's port for rights, on identity.

    Approvers are people with that role, their own or through a group. Administrators are none by being administrators,
    though they see everything, as auditors do.
    """

    def __init__(self, gate: Gate, identity: Identity, proxies: Proxies) -> None:
        self._gate = gate
        self._identity = identity
        self._proxies = proxies

    async def visible(self, request: Request) -> Sequence[str] | None:
        """Return the caller's projects; approvers, auditors and administrators see all."""
        caller = await self._gate.caller(request)
        if any(
            may(right, caller.platform_roles) for right in (PlatformRight.DECIDE_FIREWALL, PlatformRight.READ_AUDIT)
        ):
            return None
        return [project.name for project in await self._identity.list_projects(caller)]

    async def approver(self, request: Request) -> Actor:
        """Let approvers through."""
        caller = await self._gate.caller(request)
        demand_a_person(caller)
        demand(PlatformRight.DECIDE_FIREWALL, caller)
        origin = self._gate.origin(request, caller)
        return Actor(
            person=caller.person,
            behind=await self._proxies.behind(caller.person),
            source=origin.source,
            agent=origin.agent,
            request_id=origin.request_id,
        )


class AskersOnRecord:
    """DKOS's port for who asks, on the firewall gate's record; whoever can act as the caller asks with them."""

    def __init__(self, record: FirewallRecord, proxies: Proxies) -> None:
        self._record = record
        self._proxies = proxies

    async def note(self, caller: AnyCaller, project: str, cluster: str, pools: Sequence[NodePool]) -> None:
        """Write down who asks."""
        if pools:
            behind = await self._proxies.behind(caller.person)
            asked = [(pool.name, asked_digest(pool)) for pool in pools]
            await self._record.note(project, cluster, asked, person=caller.person, behind=behind)


class AuditedByIdentity:
    """The firewall gate's port for audited changes, on identity's record in the same database."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def change(
        self, actor: Actor, action: str, target: str, project: str
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open the transaction."""
        origin = Origin(person=actor.person, source=actor.source, agent=actor.agent, request_id=actor.request_id)
        return self._audit.change(origin, action, target, project)


class NodesOfClusters:
    """The firewall gate's port for gated nodes, on DKOS: asked for in specs, and where the operator saw them."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    async def all(self) -> Sequence[WantedNode]:
        """Return every gated node."""
        return [node for cluster in await self._store.list() for node in _wanted(cluster)]


def _wanted(cluster: Cluster) -> list[WantedNode]:
    if cluster.spec_problem or cluster.deleting:
        return []
    addresses = {node.name: node.address for node in cluster.status.nodes}
    return [
        WantedNode(
            project=cluster.project,
            cluster=cluster.name,
            uid=cluster.uid,
            pool=pool.name,
            node=name,
            address=addresses.get(name, ""),
            asked=asked_digest(pool),
            resources=resources_of(pool),
        )
        for name, pool in plan_nodes(cluster, (), ()).keep.items()
        if pool.external_resources
    ]


def resources_of(pool: NodePool) -> tuple[Resource, ...]:
    """Return a pool's external resources as the firewall gate knows them."""
    return tuple(
        Resource(name=one.name, addresses=one.addresses, ports=one.ports, reason=one.reason)
        for one in pool.external_resources
    )
