"""``haneul bench dkos``: how fast clusters come to be and wake, what their masters cost at rest, how both grow.

The order of the run matters: the peer is measured before any cluster of ours runs, and every cluster is deleted before
the next figure is taken, so that nothing measured stands in the way of what is measured next. Neighbours: the lab and
the peer are ports (:mod:`haneul.bench.ports`); :mod:`haneul.bench.dkos_report` says what the figures mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from haneul.bench.ports import ClusterLab, PlainKubernetes, Processes
from haneul.bench.process_usage import Usage, usage_between
from haneul.kernel.clock import Clock
from haneul.kernel.progress import Progress, Stage


@dataclass(frozen=True)
class BenchPlan:
    """How much to measure. Times are in seconds; 0 clusters or 0 at once leaves that part out."""

    rounds: int = 5
    networks: tuple[str, ...] = ("native", "cilium")
    #: At rest is measured with 1 cluster, with 2, and so on up to this many.
    clusters: int = 10
    at_once: int = 10
    #: How often one cluster of each network is put to sleep and woken.
    wakes: int = 5
    #: How long fresh masters are left alone before they count as idle, and how long they are watched then.
    settle: float = 10.0
    window: float = 10.0
    #: How long one cluster is left alone before a single pod is timed on it.
    pod_settle: float = 3.0
    #: How long the machine is left alone after a deletion before the next creation is timed.
    pause: float = 5.0


QUICK = BenchPlan(rounds=1, clusters=2, at_once=2, wakes=1, settle=5.0, window=5.0)


@dataclass(frozen=True)
class Creation:
    """One cluster from the request on, in seconds: until the API answered, the account was there, a node was Ready, the
    first pod ran. ``pod_alone`` is a pod's start on the ready cluster, ``gone`` the time of the deletion.
    """

    network: str
    api: float
    account: float
    node: float
    pod: float
    pod_alone: float | None = None
    gone: float | None = None


@dataclass(frozen=True)
class Idle:
    """What the masters of ``clusters`` clusters cost together at rest, by program."""

    clusters: int
    usages: tuple[Usage, ...]


@dataclass(frozen=True)
class Waking:
    """One sleep, in seconds: until nothing ran, then from the request to wake on until the API answered and a node was
    Ready.
    """

    network: str
    asleep: float
    api: float
    node: float


@dataclass(frozen=True)
class PeerStart:
    """One start of the peer, in seconds until the API answered and the account was there."""

    api: float
    account: float


@dataclass
class Figures:
    """Everything that a run measured."""

    creations: list[Creation] = field(default_factory=list)
    #: The masters of one cluster at rest, by its network.
    one: dict[str, Idle] = field(default_factory=dict)
    growth: list[Idle] = field(default_factory=list)
    #: The creations that led from one step of ``growth`` to the next.
    growing: list[Creation] = field(default_factory=list)
    at_once: list[Creation] = field(default_factory=list)
    wakings: list[Waking] = field(default_factory=list)
    peer_starts: list[PeerStart] = field(default_factory=list)
    peer_idle: tuple[Usage, ...] = ()


class DkosBench:
    """The benchmark; ``make_peer`` returns a peer that was never started."""

    def __init__(
        self,
        lab: ClusterLab,
        *,
        make_peer: Callable[[], PlainKubernetes] | None,
        processes: Processes,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._lab = lab
        self._make_peer = make_peer
        self._processes = processes
        self._clock = clock
        self._progress = progress

    async def run(self, plan: BenchPlan, figures: Figures) -> None:
        """Measure into ``figures`` everything that ``plan`` asks for, and leave no cluster behind, whatever happens."""
        with self._progress.stage("clear away what earlier runs have left"):
            await self._lab.clear()
        try:
            if self._make_peer is not None:
                await self._measure_peer(plan, self._make_peer, figures)
            for network in plan.networks:
                await self._measure_creation(plan, network, figures)
            for network in plan.networks:
                await self._measure_waking(plan, network, figures)
            await self._measure_growth(plan, figures)
            await self._measure_at_once(plan, figures)
        finally:
            await self._lab.clear()

    async def _measure_peer(self, plan: BenchPlan, make_peer: Callable[[], PlainKubernetes], figures: Figures) -> None:
        for number in range(plan.rounds):
            with self._progress.stage(f"peer, start {number + 1} of {plan.rounds}", expected_seconds=12):
                peer = make_peer()
                started = self._clock.monotonic()
                try:
                    await peer.start()
                    await peer.wait_api()
                    api = self._clock.monotonic() - started
                    await peer.wait_account()
                    figures.peer_starts.append(PeerStart(api, self._clock.monotonic() - started))
                    if number == plan.rounds - 1:
                        figures.peer_idle = await self._at_rest(plan, await peer.processes())
                finally:
                    await peer.stop()

    async def _measure_creation(self, plan: BenchPlan, network: str, figures: Figures) -> None:
        for number in range(plan.rounds):
            name = f"{network}-{number + 1}"
            title = f"cluster with {network}, {number + 1} of {plan.rounds}"
            with self._progress.stage(title, expected_seconds=30) as stage:
                await self._clock.sleep(plan.pause)
                created = await self._create(name, network, stage)
                await self._clock.sleep(plan.pod_settle)
                alone = await self._timed(self._lab.run_pod(name, "alone"))
                if number == plan.rounds - 1:
                    stage.note("at rest")
                    usages = await self._at_rest(plan, await self._lab.master_processes(name))
                    figures.one[network] = Idle(1, usages)
                stage.note("delete")
                gone = await self._timed(self._lab.delete(name))
                figures.creations.append(_completed(created, alone, gone))

    async def _measure_waking(self, plan: BenchPlan, network: str, figures: Figures) -> None:
        name = f"sleep-{network}"
        if not plan.wakes:
            return
        async with self._deleted_after([name]):
            with self._progress.stage(f"cluster with {network}, to sleep", expected_seconds=15) as stage:
                await self._create(name, network, stage)
            for number in range(plan.wakes):
                title = f"sleep with {network}, {number + 1} of {plan.wakes}"
                with self._progress.stage(title, expected_seconds=25) as stage:
                    await self._clock.sleep(plan.pause)
                    asleep = await self._timed(self._lab.hibernate(name))
                    await self._clock.sleep(plan.pause)
                    stage.note("wake")
                    started = self._clock.monotonic()
                    await self._lab.wake(name)
                    await self._lab.wait_api(name)
                    api = self._clock.monotonic() - started
                    await self._lab.wait_node(name)
                    figures.wakings.append(Waking(network, asleep, api, self._clock.monotonic() - started))

    async def _measure_growth(self, plan: BenchPlan, figures: Figures) -> None:
        names = [f"grow-{number + 1}" for number in range(plan.clusters)]
        async with self._deleted_after(names):
            for number, name in enumerate(names, start=1):
                with self._progress.stage(
                    f"{number} of {plan.clusters} clusters at rest", expected_seconds=50
                ) as stage:
                    figures.growing.append(await self._create(name, plan.networks[0], stage))
                    stage.note("at rest")
                    pids = [pid for one in names[:number] for pid in await self._lab.master_processes(one)]
                    figures.growth.append(Idle(number, await self._at_rest(plan, pids)))

    async def _measure_at_once(self, plan: BenchPlan, figures: Figures) -> None:
        names = [f"once-{number + 1}" for number in range(plan.at_once)]
        if not names:
            return
        async with self._deleted_after(names):
            with self._progress.stage(f"{plan.at_once} clusters at once", expected_seconds=60) as stage:
                await self._clock.sleep(plan.pause)
                figures.at_once += await asyncio.gather(
                    *(self._create(name, plan.networks[0], stage) for name in names)
                )

    async def _create(self, name: str, network: str, stage: Stage) -> Creation:
        """Create a cluster of one node and take the time of each step; the first pod is asked for at once."""
        started = self._clock.monotonic()

        async def reached(step: Coroutine[Any, Any, None]) -> float:
            await step
            return self._clock.monotonic() - started

        await self._lab.create(name, network, 1)
        stage.note(f"{name}: wait for its API")
        api = await reached(self._lab.wait_api(name))
        stage.note(f"{name}: wait for its first pod")
        async with asyncio.TaskGroup() as group:
            account = group.create_task(reached(self._lab.wait_account(name)))
            node = group.create_task(reached(self._lab.wait_node(name)))
            pod = group.create_task(reached(self._lab.run_pod(name, "first")))
        return Creation(network, api, account.result(), node.result(), pod.result())

    async def _timed(self, step: Coroutine[Any, Any, None]) -> float:
        started = self._clock.monotonic()
        await step
        return self._clock.monotonic() - started

    async def _at_rest(self, plan: BenchPlan, pids: Iterable[int]) -> tuple[Usage, ...]:
        pids = list(pids)
        await self._clock.sleep(plan.settle)
        before, started = self._processes.read(pids), self._clock.monotonic()
        await self._clock.sleep(plan.window)
        return usage_between(before, self._processes.read(pids), self._clock.monotonic() - started)

    @asynccontextmanager
    async def _deleted_after(self, names: Sequence[str]) -> AsyncIterator[None]:
        """Delete the clusters when the block has ended well; after an error, the end of the run clears up."""
        yield
        with self._progress.stage("delete them", expected_seconds=30):
            await asyncio.gather(*(self._lab.delete(name) for name in names))


def _completed(created: Creation, alone: float, gone: float) -> Creation:
    return Creation(created.network, created.api, created.account, created.node, created.pod, alone, gone)
