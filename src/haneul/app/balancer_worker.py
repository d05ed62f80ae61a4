"""The load balancers of all clusters: each one's Services are balanced, and what a deleted one had is withdrawn.

Members are the cluster's own machines and nothing else: their addresses come from the operator, not from the cluster.
One whose machine is gone is taken away also while the cluster does not answer or sleeps, for the address will be
somebody else's.

What a project has of the balancer, over all its clusters, is held to the limits that its records say. It is told in one
object beside the records, from which the platform's API has it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network, summarize_address_range

import structlog

from haneul.app.record_worker import Connect
from haneul.balancer.changes import plan
from haneul.balancer.controller import ClusterController, Neighbours, Pace
from haneul.balancer.decisions import Site
from haneul.balancer.members import Ground, Targets
from haneul.balancer.model import Frontend, Pool
from haneul.balancer.ports import LoadBalancer
from haneul.balancer.room import Limits, use_by_project
from haneul.dkos.adapters.kube_address_use import KubeAddressUse
from haneul.dkos.cluster_record import ClusterRecord
from haneul.dkos.quota import Amounts
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeClient

_log = structlog.get_logger(__name__)

_GATHER_SECONDS, _AGAIN_SECONDS = 0.5, 5.0

Pools = Callable[[str], tuple[Pool, ...]]


def given_out(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """Return pools without those addresses of theirs that no pod would reach.

    Each pool's ranges are networks that are routed to the host itself. Of such a route Cilium's agent takes the lowest
    address for one of the host's own, to which no policy lets a tenant. A network that is one address keeps it.
    """
    return tuple(
        replace(pool, ranges=tuple(span for each in pool.ranges for span in _reached(*each))) for pool in pools
    )


def _reached(first: str, last: str) -> list[tuple[str, str]]:
    low, high = ip_address(first), ip_address(last)
    if not (isinstance(low, IPv4Address) and isinstance(high, IPv4Address)):
        return [(first, last)]
    networks = summarize_address_range(low, high)
    return [(str(network[min(1, network.num_addresses - 1)]), str(network[-1])) for network in networks]


class BalancerWork:
    """Balances a cluster's Services; ``pools`` says which addresses there are for a project."""

    def __init__(
        self, balancer: LoadBalancer, pools: Pools, connect: Connect, clock: Clock, *, pace: Pace | None = None
    ) -> None:
        self._balancer = balancer
        self._pools = pools
        self._connect = connect
        self._clock = clock
        self._pace = pace
        self._controllers: dict[str, ClusterController] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changed = asyncio.Event()
        self._changed.set()

    async def tell_use(self, told: KubeAddressUse) -> None:
        """Tell what each project has of the balancer whenever that has changed, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                uses = use_by_project(await self._balancer.read())
                await told.tell(
                    {
                        project: Amounts(addresses=use.addresses, listeners=use.listeners)
                        for project, use in uses.items()
                    }
                )
            except HaneulError as error:
                _log.warning("what projects have is not told; tried again", detail=error.detail)
                self._changed.set()
                await self._clock.sleep(_AGAIN_SECONDS)
            await self._clock.sleep(_GATHER_SECONDS)

    def _note_change(self) -> None:
        """Take note that listeners came or went: whoever waits for room may have it now."""
        self._changed.set()
        for controller in self._controllers.values():
            if controller.waits:
                controller.wake()

    async def follow(self, record: ClusterRecord) -> None:
        """Balance what the cluster says."""
        await self._restrict(record)
        if record.access is None:
            return
        ground = Ground(Targets.NODES, tuple(ip_network(node) for node in record.nodes))
        site = Site(self._pools(record.project), ground, self._balancer.abilities, limits=_limits(record))
        async with self._connect(record.access, record.project) as client:
            controller = ClusterController(
                client,
                self._balancer,
                record.owner,
                site,
                clock=self._clock,
                pace=self._pace,
                neighbours=Neighbours(self._turns[record.project], self._note_change),
            )
            self._controllers[record.uid] = controller
            _log.info("services are balanced", cluster=record.uid, nodes=len(record.nodes))
            try:
                await controller.run()
            finally:
                self._controllers.pop(record.uid, None)

    async def rest(self, record: ClusterRecord) -> None:
        """Keep its addresses for it; behind them is nobody as long as it sleeps."""
        await self._restrict(record)

    async def withdraw(self, record: ClusterRecord) -> None:
        """Take a deleted cluster's frontends away, whichever of its own ids they were made under."""
        count = await self._change(record, lambda _: None)
        self._note_change()
        _log.info("frontends are withdrawn", cluster=record.uid, frontends=count)

    async def _restrict(self, record: ClusterRecord) -> None:
        """Take away members that are none of the cluster's machines."""
        nodes = frozenset(record.nodes)

        def kept(frontend: Frontend) -> Frontend:
            return replace(frontend, members=tuple(one for one in frontend.members if one.address in nodes))

        await self._change(record, kept)

    async def _change(self, record: ClusterRecord, change: Callable[[Frontend], Frontend | None]) -> int:
        """Change all frontends of a cluster; return how many changes that took."""
        present = await self._balancer.read()
        count = 0
        owners = {there.owner for there in present.values() if there.owner.startswith(f"{record.owner}/")}
        for owner in sorted(owners):
            changed = [change(there.frontend) for there in present.values() if there.owner == owner]
            wanted = {frontend.listener: frontend for frontend in changed if frontend is not None}
            if changes := plan(wanted, present, owner):
                await self._balancer.apply(owner, changes)
                count += len(changes)
        return count


async def told_use(work: BalancerWork, client: KubeClient) -> None:
    """Tell what projects have beside the records in the management cluster, until cancelled."""
    await work.tell_use(KubeAddressUse(client))


def _limits(record: ClusterRecord) -> Limits | None:
    """Return what the cluster's project may have; nothing where the operator did not say so yet."""
    if record.most_addresses is None or record.most_listeners is None:
        return None
    return Limits(record.project, record.most_addresses, record.most_listeners)
