"""Machines that a project registered, as nodes: the provider ``ssh``.

Which machine is whose node stands in the store, claimed by compare and swap before anything is done to the machine and
given up only once it is as it was found. Everything slow happens in a :class:`MachineKeeper` for each machine, so that
no machine that hangs holds up a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from haneul.dkos.adapters.ssh_keeper import MachineKeeper, Pack, revision_of
from haneul.dkos.adapters.ssh_machines import SshMachines, in_words
from haneul.dkos.machines import Claim, InstalledNode, Machine
from haneul.dkos.model import Cluster
from haneul.dkos.ports import NodeAnnouncement, ProvidedNode
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, DeadlineExceededError, HaneulError
from haneul.kernel.waiting import wait_for

_log = structlog.get_logger(__name__)


class SshNodes:
    """The machines of all clusters."""

    def __init__(self, machines: SshMachines, *, pack: Pack, clock: Clock) -> None:
        self._machines = machines
        self._pack = pack
        self._clock = clock
        self._keepers: dict[str, MachineKeeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: Nodes that have no machine yet, with what stands against that, by the cluster's uid and the node's name.
        self._problems: dict[tuple[str, str], ProvidedNode] = {}
        self._known: set[str] = set()

    def revision(self, cluster: Cluster, node: NodeAnnouncement) -> str:
        """Return the digest of the node's files, era and version."""
        return revision_of(node)

    async def ensure(self, cluster: Cluster, node: NodeAnnouncement) -> None:
        """Claim the node's machine and have it kept."""
        wanted = Claim(cluster_uid=cluster.uid, cluster=f"{cluster.project}/{cluster.name}", node=node.name)
        for keeper in self._keepers.values():
            if keeper.claim == wanted:
                keeper.want(node)
                return
        try:
            machine = await self._claimed(cluster, node, wanted)
        except HaneulError as error:
            self._problems[(cluster.uid, node.name)] = ProvidedNode(
                node.name, "", message=in_words(error), revision=revision_of(node), era=node.era
            )
            return
        self._problems.pop((cluster.uid, node.name), None)
        self._keeper(machine, wanted).want(node)

    async def observe(self, cluster: Cluster) -> list[ProvidedNode]:
        """Return the cluster's machines as their keepers saw them last."""
        claims = await self._claims(cluster)
        seen = [self._keeper(machine, claim).seen for machine, claim in claims]
        names = {node.name for node in seen}
        waiting = [node for (uid, name), node in self._problems.items() if uid == cluster.uid and name not in names]
        return sorted([*seen, *waiting], key=lambda node: node.name)

    async def remove(self, cluster: Cluster, name: str) -> None:
        """Have the machine put back as it was found; it stays to be seen until that is done."""
        self._problems.pop((cluster.uid, name), None)
        for machine, claim in await self._claims(cluster):
            if claim.node == name:
                await self._release(machine, claim)

    async def release(self, cluster: Cluster, *, seconds: float) -> None:
        """Give up all machines of a cluster that ends. Those that cannot be reached in time are put back later."""
        self._known.discard(cluster.uid)
        for key in [key for key in self._problems if key[0] == cluster.uid]:
            del self._problems[key]
        for machine, claim in await self._claims(cluster):
            await self._release(machine, claim)

        async def all_back() -> bool:
            return not await self._claims(cluster)

        try:
            await wait_for(all_back, what="the cluster's machines", timeout=seconds, clock=self._clock)
        except DeadlineExceededError:
            left = [machine.name for machine, _ in await self._claims(cluster)]
            _log.warning("machines are put back once they can be reached", cluster=cluster.name, machines=left)

    async def resume(self) -> None:
        """Go on with putting back machines whose clusters are gone; called once at the start."""
        for machine in await self._machines.store.list():
            claim = machine.status.claim
            if claim is not None and claim.releasing:
                self._keeper(machine, claim)

    async def close(self) -> None:
        """End all work; it is gone on with by the next process."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _claimed(self, cluster: Cluster, node: NodeAnnouncement, wanted: Claim) -> Machine:
        """Return the node's machine once it is claimed for it. Raises what stands against that."""
        name = node.name.removeprefix(f"{node.pool.name}-")
        machine = await self._machines.store.get(cluster.project, name)
        self._known.add(cluster.uid)
        claim = machine.status.claim
        if claim == wanted:
            return machine
        if claim is not None:
            doing = "is being put back as it was found after it was" if claim.releasing else "is"
            raise ConflictError(f"the machine {name} {doing} {claim.node} of {claim.cluster}")
        claimed = {"claim": wanted, "node": InstalledNode(revision=revision_of(node), era=node.era)}
        return await self._machines.store.report(machine, machine.status.model_copy(update=claimed))

    async def _claims(self, cluster: Cluster) -> Sequence[tuple[Machine, Claim]]:
        """Return the cluster's machines. Clusters that never had one, which are most, cost no request but the first."""
        if cluster.uid in self._known and not cluster.spec.outside and not self._kept(cluster):
            return []
        self._known.add(cluster.uid)
        found = await self._machines.store.list(cluster.project)
        return [
            (machine, claim)
            for machine in found
            if (claim := machine.status.claim) is not None and claim.cluster_uid == cluster.uid
        ]

    def _kept(self, cluster: Cluster) -> bool:
        return any(keeper.claim.cluster_uid == cluster.uid for keeper in self._keepers.values())

    async def _release(self, machine: Machine, claim: Claim) -> None:
        if not claim.releasing:
            claim = claim.model_copy(update={"releasing": True})
            await self._machines.store.report(machine, machine.status.model_copy(update={"claim": claim}))
        self._keeper(machine, claim).look()

    def _keeper(self, machine: Machine, claim: Claim) -> MachineKeeper:
        """Return the machine's keeper, which is at work from here on."""
        keeper = self._keepers.get(machine.uid)
        if keeper is None:
            keeper = MachineKeeper(machine, claim, machines=self._machines, pack=self._pack)
            self._keepers[machine.uid] = keeper
            task = asyncio.create_task(keeper.run())
            self._tasks[machine.uid] = task
            task.add_done_callback(lambda done: self._ended(machine.uid, done))
        return keeper

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._keepers.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()):
            # Begun again by the next look at its cluster.
            _log.error("a machine's keeper ended by an error", exc_info=error)
