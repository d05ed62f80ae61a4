"""One cluster's sleep, as its controller keeps it: whether it should sleep, how far it is, and what wakes it.

Asks :mod:`hibernation` what is next, and does it through :mod:`falling_asleep`, the masters and the door. Neighbour:
:mod:`haneul.dkos.controller`, which lends its connection to the cluster's own API.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from haneul.dkos.door import Door
from haneul.dkos.events import Tell, schedule_due, sleep_waits, wake_refused, wake_requested
from haneul.dkos.falling_asleep import end_machines, end_pods, remains_of
from haneul.dkos.hibernation import (
    Level,
    Remains,
    Standing,
    Step,
    falling_asleep_since,
    next_step,
    next_wake,
    sleep_waits_for,
    standing,
)
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import Cluster, ClusterStatus, Hibernation, NodeProviderName, Phase
from haneul.dkos.ports import NodeProvider, SpecWriter
from haneul.dkos.states import MasterState, sleeping_status
from haneul.kernel.errors import HaneulError, QuotaExceededError
from haneul.kernel.kube import KubeClient

#: How soon a cluster that the schedule wants awake, but for which there was no room, is tried again.
_RETRY: Final = timedelta(minutes=1)
#: Returns a client of the cluster's own API, or None if it does not answer.
Reach = Callable[[MadeMasters], Awaitable[KubeClient | None]]


@dataclass(frozen=True)
class Rest:
    """What a look at a cluster that should sleep came to, and how much of it is to run meanwhile."""

    status: ClusterStatus
    level: Level = Level.NOTHING


class Sleeping:
    """The sleep of one cluster."""

    def __init__(
        self,
        management: KubeClient,
        *,
        masters: Masters,
        providers: Mapping[NodeProviderName, NodeProvider],
        door: Door,
        specs: SpecWriter,
        tell: Tell,
    ) -> None:
        self._management = management
        self._masters = masters
        self._providers = providers
        self._door = door
        self._specs = specs
        self._tell = tell
        self._standing: tuple[Hibernation, Standing] | None = None
        self._requested = False
        #: The generation of the spec that was written last here.
        self._wrote = 0
        #: What the schedule was told to wait for before sleep, why it could not wake, and when that is tried again.
        self._waits = ""
        self._refused = ""
        self._retry_at: datetime | None = None
        self._noted = ""

    def request(self) -> None:
        """Somebody asks for the cluster's API."""
        self._requested = True

    def forget(self) -> None:
        """Do everything again, in case somebody else changed it."""
        self._door.forget()

    def is_outdated(self, cluster: Cluster) -> bool:
        """Say whether this is the cluster as it was before what was written here; acting on it would undo that."""
        return cluster.generation < self._wrote

    async def follow_schedule(self, cluster: Cluster, now: datetime) -> bool:
        """Write a moment of a rule that has come into the spec; say whether the cluster is to be looked at anew.

        Sleep waits for what the cluster is in the middle of; waking waits for room in the project's quota.
        """
        due = self._due(cluster, now)
        if due.asleep == cluster.spec.hibernation.asleep:
            self._waits, self._refused, self._retry_at = "", "", None
            return False
        if due.asleep and (waits := sleep_waits_for(cluster)):
            if not self._waits:
                self._tell(cluster, sleep_waits(waits))
            self._waits = waits
            return False
        if self._retry_at is not None and now < self._retry_at:
            return False
        try:
            await self._say(cluster, asleep=due.asleep, asked=due.since)
        except QuotaExceededError as error:
            self._retry_at = now + _RETRY
            if error.detail != self._refused:
                self._refused = error.detail
                self._tell(cluster, wake_refused(error.detail))
            return False
        self._tell(cluster, schedule_due(asleep=due.asleep))
        return True

    def _due(self, cluster: Cluster, now: datetime) -> Standing:
        """Return what counts now; rules are worked out only when a moment of theirs has come."""
        wish = cluster.spec.hibernation
        if self._standing is None or self._standing[0] != wish or not self._standing[1].holds(now):
            self._standing = (wish, standing(wish, cluster.created, now))
        return self._standing[1]

    async def look(self, cluster: Cluster, now: datetime, *, changed: bool, reach: Reach) -> Rest:
        """Bring the cluster one step closer to sleep, or leave it asleep; a request wakes it."""
        sleeps = cluster.status.phase is Phase.ASLEEP
        if sleeps and self._requested:
            # Who told of it may have told of an earlier sleep; what is noted is of this one.
            asked_for = cluster.spec.hibernation.wake_on_request and await self._door.is_asked_for(cluster)
            woken = asked_for and await self._wake(cluster, now)
            # Only now, for a call that failed is made again.
            self._requested = False
            if woken:
                return Rest(cluster.status)
        is_current = (
            cluster.status.observed_generation == cluster.generation
            and cluster.status.look_answered == cluster.look_requested
        )
        is_said = self._noted == self._refused
        if sleeps and not changed and is_current and is_said and self._door.stands(cluster):
            # Nothing was heard of, and whatever happens to pods is: so a sleeping cluster costs no call.
            return Rest(cluster.status)
        remains = await remains_of(self._management, self._providers, cluster)
        pods = await self._end_pods(cluster, remains, reach) if remains.may_have_pods else 0
        step = next_step(remains, pods, since=falling_asleep_since(cluster, now), now=now)
        await self._do(cluster, step, remains, slept=sleeps)
        self._noted = self._refused
        return Rest(sleeping_status(cluster, step, _note(cluster, self._refused, now), now), step.level)

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

    async def _wake(self, cluster: Cluster, now: datetime) -> bool:
        """Write down that the cluster shall be awake from now on, as somebody asked; say whether there was room."""
        try:
            await self._say(cluster, asleep=False, asked=max(now, cluster.spec.hibernation.asked))
        except QuotaExceededError as error:
            await self._door.dismiss(cluster)
            self._tell(cluster, wake_refused(error.detail))
            return False
        self._tell(cluster, wake_requested())
        return True

    async def _say(self, cluster: Cluster, *, asleep: bool, asked: datetime) -> None:
        """Write the last word into the spec; the next look begins with it. Raises QuotaExceededError."""
        word = cluster.spec.hibernation.model_copy(update={"asleep": asleep, "asked": asked})
        spec = cluster.spec.model_copy(update={"hibernation": word})
        self._wrote = (await self._specs.replace_spec(cluster, spec)).generation

    async def open(self, cluster: Cluster, made: MadeMasters, masters: Sequence[MasterState]) -> bool:
        """Let people and nodes into a waking cluster once its API server is ready; say whether it is."""
        for master in masters:
            if master.role == "kube-apiserver" and (master.ready or master.address):
                await self._door.open(cluster, made.endpoints.outside_port, master.address)
                return True
        return False

    async def awake(self, cluster: Cluster) -> None:
        """Leave nothing of the sleep of a cluster that is ready."""
        await self._door.clear(cluster)


def _note(cluster: Cluster, refused: str, now: datetime) -> str:
    """Return what there is to say of a sleeping cluster."""
    if refused:
        return f"asleep though its schedule would have it awake: {refused}"
    wish = cluster.spec.hibernation
    ways = ["'haneul cluster wake'"]
    if wish.wake_on_request:
        ways.append("a request to its API")
    if coming := next_wake(wish, now):
        ways.append(f"its schedule at {coming:%Y-%m-%d %H:%M} UTC")
    return f"asleep until {' or '.join(ways)}"
