"""What ``haneul bench network`` measures with, between namespaces of this host: that it measures what it says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from haneul.app.network_lab import Namespace, NamespacePair, plain_pair
from haneul.bench.network_figures import NetworkPlan
from haneul.bench.network_peer import ECHO, SHUT, busy_seconds
from haneul.kernel.errors import UnavailableError

PLAN = NetworkPlan(rounds=1, seconds=0.1, askers=3)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")


async def test_a_plain_pair_is_measured_and_goes_with_its_processes() -> None:
    async with plain_pair() as pair:
        sample = await pair.measure(PLAN)
        client = pair.client
        assert await pair.reaches(ECHO) and await pair.reaches(SHUT)
        assert not await pair.reaches(SHUT + 1)
    assert min(sample.whole, sample.split, sample.requests, sample.p50) > 0
    assert sample.p50 <= sample.p99
    assert not Path(f"/proc/{client.pid}").exists()


async def test_each_packet_goes_alone_while_that_is_measured_and_no_longer() -> None:
    async with plain_pair() as pair:
        shown: list[str] = []

        async def watch() -> None:
            while "gso_max_segs 1 " not in (shown[-1] if shown else ""):
                shown.append(await pair.client.ip("-details", "link", "show", "dev", "eth0"))

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(60):
            while not watching.done():
                await pair.measure(PLAN)
        await watching
        assert "gso_max_segs 65535 " in await pair.client.ip("-details", "link", "show", "dev", "eth0")


async def test_packets_that_take_another_way_are_no_figure() -> None:
    """The way's device is counted: here one by which nothing leaves."""
    async with plain_pair() as pair:
        await pair.client.ip("link", "add", "idle", "type", "veth", "peer", "name", "other")
        astray = NamespacePair(pair.client, "198.18.0.1", (pair.client, "idle"))
        with pytest.raises(UnavailableError, match="did not leave by idle"):
            await astray.measure(PLAN)
        right = NamespacePair(pair.client, "198.18.0.1", (pair.client, "eth0"))
        assert (await right.measure(PLAN)).whole > 0


async def test_nothing_stays_when_a_run_breaks_off() -> None:
    seen: list[Namespace] = []
    with pytest.raises(ZeroDivisionError):
        async with plain_pair() as pair:
            seen.append(pair.client)
            raise ZeroDivisionError
    assert not Path(f"/proc/{seen[0].pid}").exists()


def test_processor_time_is_what_was_not_idle(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    line = f"cpu  {ticks} {2 * ticks} {3 * ticks} 7777 8888 {4 * ticks} {5 * ticks} 9 0 0"
    stat.write_text(f"{line}\ncpu0 1 1 1 1 1 1 1\n")
    assert busy_seconds(stat) == 15.0
