"""One cluster's sleep, as its controller keeps it: whether it should sleep, how far it is, and what wakes it.

Asks :mod:`hibernation` what is next, and does it through :mod:`falling_asleep`, the masters and the door. Neighbour:
:mod:`haneul.dkos.controller`, which lends its connection to the cluster's own API.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from haneul.dkos.door import Door
from haneul.dkos.falling_asleep import end_machines, end_pods, remains_of
from haneul.dkos.hibernation import (
    Level,
    Remains,
    Standing,
    Step,
    falling_asleep_since,
    next_step,
    next_wake,
    standing,
)
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import (
    CLUSTERS,
    Cluster,
    ClusterStatus,
    Hibernation,
    NodeProviderName,
    Phase,
    project_namespace,
)
from haneul.dkos.ports import NodeProvider
from haneul.dkos.states import MasterState, sleeping_status
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeClient

#: Returns a client of the cluster's own API, or None if it does not answer.
Reach = Callable[[MadeMasters], Awaitable[KubeClient | None]]


@dataclass(frozen=True)
class Rest:
    """What a look at a cluster that should sleep came to, and how much of it is to run meanwhile."""

    status: ClusterStatus
    level: Level = Level.NOTHING
    #: A request to its API woke it: that is written into its spec.
    woken: bool = False


class Sleeping:
    """The sleep of one cluster."""

    def __init__(
        self,
        management: KubeClient,
        *,
        masters: Masters,
        providers: Mapping[NodeProviderName, NodeProvider],
        door: Door,
    ) -> None:
        self._management = management
        self._masters = masters
        self._providers = providers
        self._door = door
        self._standing: tuple[Hibernation, Standing] | None = None
        self._requested = False
        #: The generation of the spec that was written last here.
        self._wrote = 0

    def request(self) -> None:
        """Somebody asks for the cluster's API."""
        self._requested = True

    def forget(self) -> None:
        """Do everything again, in case somebody else changed it."""
        self._door.forget()

    def is_outdated(self, cluster: Cluster) -> bool:
        """Say whether this is the cluster as it was before what was written here; acting on it would undo that."""
        return cluster.generation < self._wrote

    def wanted(self, cluster: Cluster, now: datetime) -> bool:
        """Say whether the cluster should sleep now; rules are worked out only when a moment of theirs has come."""
        wish = cluster.spec.hibernation
        if self._standing is None or self._standing[0] != wish or not self._standing[1].holds(now):
            self._standing = (wish, standing(wish, cluster.created, now))
        return self._standing[1].asleep

    async def look(self, cluster: Cluster, now: datetime, *, changed: bool, reach: Reach) -> Rest:
        """Bring the cluster one step closer to sleep, or leave it asleep; a request wakes it."""
        sleeps = cluster.status.phase is Phase.ASLEEP
        if sleeps and self._requested:
            # Who told of it may have told of an earlier sleep; what is noted is of this one.
            asked_for = cluster.spec.hibernation.wake_on_request and await self._door.is_asked_for(cluster)
            if asked_for:
                await self._wake(cluster, now)
            # Only now, for a call that failed is made again.
            self._requested = False
            if asked_for:
                return Rest(cluster.status, woken=True)
        is_current = cluster.status.observed_generation == cluster.generation
        if sleeps and not changed and is_current and self._door.stands(cluster):
            # Nothing was heard of, and whatever happens to pods is: so a sleeping cluster costs no call.
            return Rest(cluster.status)
        remains = await remains_of(self._management, self._providers, cluster)
        pods = await self._end_pods(cluster, remains, reach) if remains.may_have_pods else 0
        step = next_step(remains, pods, since=falling_asleep_since(cluster, now), now=now)
        await self._do(cluster, step, remains, slept=sleeps)
        return Rest(sleeping_status(cluster, step, _note(cluster, now), now), step.level)

    async def _do(self, cluster: Cluster, step: Step, remains: Remains, *, slept: bool) -> None:
        """Let run what the step says, and no more. Masters that have ended before are not looked at again."""
        port = await self._masters.api_port(cluster) if step.asleep and slept else None
        if port is None:
            port = (await self._masters.ensure(cluster, step.level)).endpoints.outside_port
        if step.level < Level.NODES and remains.machines:
            await end_machines(self._providers, cluster)
        if not slept:
            # What was asked of it before it sleeps came from what is ending, or was of an earlier sleep.
            await self._door.clear(cluster)
        if step.asleep:
            await self._door.close(cluster, port)

    async def _end_pods(self, cluster: Cluster, remains: Remains, reach: Reach) -> int | None:
        """Ask the pods to end once nothing makes new ones; return how many are left, None if nobody says."""
        tenant = await reach(await self._masters.ensure(cluster, Level.NODES))
        left: int | None = None
        with contextlib.suppress(HaneulError):
            left = await end_pods(tenant, ask=not remains.programs) if tenant is not None else None
        return left

    async def _wake(self, cluster: Cluster, now: datetime) -> None:
        """Write down that the cluster shall be awake from now on, as somebody asked; the next look begins with it."""
        asked = max(now, cluster.spec.hibernation.asked)
        word = {"asleep": False, "asked": asked.isoformat()}
        namespace = project_namespace(cluster.project)
        written = await self._management.patch(CLUSTERS, cluster.name, {"spec": {"hibernation": word}}, namespace)
        self._wrote = written["metadata"]["generation"]

    async def open(self, cluster: Cluster, made: MadeMasters, masters: Sequence[MasterState]) -> bool:
        """Let people and nodes into a waking cluster once its API server is ready; say whether it is."""
        for master in masters:
            if master.role == "kube-apiserver" and master.ready:
                await self._door.open(cluster, made.endpoints.outside_port, master.address)
                return True
        return False

    async def awake(self, cluster: Cluster) -> None:
        """Leave nothing of the sleep of a cluster that is ready."""
        await self._door.clear(cluster)


def _note(cluster: Cluster, now: datetime) -> str:
    """Return what there is to say of a sleeping cluster."""
    wish = cluster.spec.hibernation
    ways = ["'haneul cluster wake'"]
    if wish.wake_on_request:
        ways.append("a request to its API")
    if coming := next_wake(wish, now):
        ways.append(f"its schedule at {coming:%Y-%m-%d %H:%M} UTC")
    return f"asleep until {' or '.join(ways)}"
