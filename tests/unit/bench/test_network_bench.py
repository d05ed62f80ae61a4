"""In which order networks are measured, and what their figures mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from haneul.bench.network_figures import (
    PLAIN,
    SETUPS,
    WAYS,
    NetworkFigures,
    NetworkPlan,
    Sample,
    Setup,
    Way,
)
from haneul.bench.network_report import drawings, report
from haneul.bench.networks import NetworkBench
from haneul.dkos.model import Network
from haneul.kernel.errors import UnavailableError
from haneul.kernel.progress import SilentProgress

AT = datetime(2026, 11, 27, 22, 0, tzinfo=UTC)


def sample(factor: float = 1.0) -> Sample:
    return Sample(10.0 * factor, 0.5 / factor, 2.0 * factor, 2.5 / factor, 20_000 * factor, 50 / factor, 100 / factor)


class Lab:
    """Notes what is made, measured and taken back; ``lost`` is the way whose packets go astray."""

    def __init__(self, lost: str = "") -> None:
        self.happened: list[str] = []
        self._lost = lost

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[_Pair]:
        yield _Pair(self, PLAIN.name)

    @asynccontextmanager
    async def cluster(self, setup: Setup) -> AsyncIterator[Lab]:
        self.happened.append(f"make {setup.name}")
        try:
            yield self
        finally:
            self.happened.append(f"delete {setup.name}")

    @asynccontextmanager
    async def pair(self, way: Way) -> AsyncIterator[_Pair]:
        try:
            yield _Pair(self, way.name)
        finally:
            self.happened.append(f"take back {way.name}")

    def measured(self, name: str) -> Sample:
        if name == self._lost:
            raise UnavailableError("packets left by another device")
        self.happened.append(name)
        return sample()


class _Pair:
    def __init__(self, lab: Lab, name: str) -> None:
        self._lab = lab
        self._name = name

    async def measure(self, plan: NetworkPlan) -> Sample:
        return self._lab.measured(self._name)


async def test_one_cluster_is_there_at_a_time_and_each_round_begins_with_the_plain_pair() -> None:
    lab, figures = Lab(), NetworkFigures()
    await NetworkBench(lab, progress=SilentProgress()).run(NetworkPlan(rounds=2), figures)
    expected = []
    for setup in SETUPS:
        expected.append(f"make {setup.name}")
        for _ in range(2):
            expected.append(PLAIN.name)
            expected += [step for way in setup.ways for step in (way.name, f"take back {way.name}")]
        expected.append(f"delete {setup.name}")
    assert lab.happened == expected
    assert {name: len(samples) for name, samples in figures.samples.items()} == {
        way.name: 2 * len(SETUPS) if way == PLAIN else 2 for way in WAYS
    }


async def test_a_run_cut_short_leaves_no_cluster_and_keeps_what_it_measured() -> None:
    lab, figures = Lab(lost="native, VXLAN"), NetworkFigures()
    with pytest.raises(UnavailableError):
        await NetworkBench(lab, progress=SilentProgress()).run(NetworkPlan(rounds=1), figures)
    assert lab.happened[-2:] == ["take back native, VXLAN", "delete native"]
    made = report(figures, at=AT, machine={})
    assert [row[0] for row in made.tables[0].rows] == ["plain veth", "native, routed"]
    assert set(drawings(figures)) == {"network-throughput", "network-latency"}


def test_every_setup_is_a_network_that_a_cluster_may_have() -> None:
    """And each of its ways is one of a kind, named once."""
    for setup in SETUPS:
        Network.model_validate({"plugin": setup.plugin, "tunnel": setup.tunnel})
        assert all(way.linked or not way.policy for way in setup.ways)
    assert len({way.name for way in WAYS}) == len(WAYS)
    assert len({setup.name for setup in SETUPS}) == len(SETUPS)


def test_each_way_is_compared_with_the_plain_pair() -> None:
    figures = NetworkFigures()
    for factor in (0.5, 1.0, 7.0):
        figures.add(PLAIN, sample(factor))
    figures.add(WAYS[1], sample(0.5))
    throughput, requests = report(figures, at=AT, machine={"cores": "2"}).tables
    assert throughput.rows == (
        ("plain veth", "10.00", "-", "0.50 s", "2.00", "-", "2.50 s"),
        ("native, routed", "5.00", "50%", "1.00 s", "1.00", "50%", "5.00 s"),
    )
    assert requests.rows[1] == ("native, routed", "10,000", "50%", "100 µs", "200%", "200 µs", "200%")


def test_a_way_without_the_plain_pair_has_no_ratio() -> None:
    figures = NetworkFigures()
    figures.add(WAYS[1], sample())
    assert figures.ratio(WAYS[1], "whole") is None
    assert report(figures, at=AT, machine={}).tables[0].rows[0][2] == "-"
    assert drawings(NetworkFigures()) == {}


def test_a_sample_is_made_of_what_the_ends_said() -> None:
    whole = {"bytes": 2.5e9, "seconds": 2.0, "busy": 4.0}
    split = {"bytes": 2.5e8, "seconds": 1.0, "busy": 2.0}
    made = Sample.of(whole, split, {"answers": 9000, "seconds": 3.0}, {"p50": 0.00005, "p99": 0.0002})
    assert (made.whole, made.cpu, made.split, made.split_cpu, made.requests) == (10.0, 1.6, 2.0, 8.0, 3000.0)
    assert made.p50 == pytest.approx(50.0) and made.p99 == pytest.approx(200.0)
