"""Measures networks: from a pod on one node to a pod on another, on each way that a cluster may have.

One kind of cluster is there at a time, so that the agents of others take nothing of the machine. Each round measures a
plain veth pair first and then each way once, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from haneul.bench.network_figures import PLAIN, SETUPS, NetworkFigures, NetworkPlan, Sample, Setup, Way
from haneul.kernel.progress import Progress

_CREATION_SECONDS = 60.0
_FIGURES_OF_A_SAMPLE = 4


class Pair(Protocol):
    """A client and a server with a way between them."""

    async def measure(self, plan: NetworkPlan) -> Sample:
        """Measure the way once. Raises UnavailableError if packets took another one."""
        ...


class NetworkCluster(Protocol):
    """A cluster with two nodes and a pod on each."""

    def pair(self, way: Way) -> AbstractAsyncContextManager[Pair]:
        """Prepare a way, and take back what was prepared."""
        ...


class NetworkLab(Protocol):
    """Makes what is measured. Waits raise DeadlineExceededError."""

    def plain(self) -> AbstractAsyncContextManager[Pair]:
        """Make two namespaces that a veth pair joins, and take them away."""
        ...

    def cluster(self, setup: Setup) -> AbstractAsyncContextManager[NetworkCluster]:
        """Make a cluster whose pods run, and delete it."""
        ...


class NetworkBench:
    """One run."""

    def __init__(self, lab: NetworkLab, *, progress: Progress) -> None:
        self._lab = lab
        self._progress = progress

    async def run(self, plan: NetworkPlan, figures: NetworkFigures) -> None:
        """Measure into ``figures``, which keep what there is if the run is cut short."""
        for setup in SETUPS:
            expected = (1 + len(setup.ways)) * plan.rounds * plan.seconds * _FIGURES_OF_A_SAMPLE
            with self._progress.stage(f"measure {setup.name}", expected_seconds=expected + _CREATION_SECONDS) as stage:
                stage.note("a cluster is made")
                async with self._lab.cluster(setup) as cluster:
                    for number in range(plan.rounds):
                        stage.note(f"round {number + 1} of {plan.rounds}")
                        async with self._lab.plain() as pair:
                            figures.add(PLAIN, await pair.measure(plan))
                        for way in setup.ways:
                            async with cluster.pair(way) as pair:
                                figures.add(way, await pair.measure(plan))
                    stage.note("the cluster is deleted")
