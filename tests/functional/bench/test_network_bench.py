"""What ``haneul bench network`` measures with, between namespaces of this host: that it measures what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.app.network_lab import Namespace, NamespacePair, TwoNodes, empty_namespace, plain_pair
from haneul.bench.network_figures import LINK, NetworkPlan, Way
from haneul.bench.network_peer import ECHO, SHUT, busy_seconds
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.process import run

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


@pytest.fixture
async def nodes() -> AsyncIterator[TwoNodes]:
    """Two pods on two nodes: namespaces joined one after the other, with routes over ``wire0`` between the nodes."""
    async with contextlib.AsyncExitStack() as stack:
        client, near, far, server = [await stack.enter_async_context(empty_namespace()) for _ in range(4)]
        for left, device, right, other in ((client, "eth0", near, "pod0"), (server, "eth0", far, "pod0")):
            ends = ["netns", str(left.pid), "type", "veth", "peer", "name", other, "netns", str(right.pid)]
            await run(["ip", "link", "add", device, *ends], timeout=60)
        ends = ["netns", str(near.pid), "type", "veth", "peer", "name", "wire0", "netns", str(far.pid)]
        await run(["ip", "link", "add", "wire0", *ends], timeout=60)
        for place, device, address in (
            (client, "eth0", "10.9.0.2/24"),
            (near, "pod0", "10.9.0.1/24"),
            (near, "wire0", "10.8.0.1/30"),
            (far, "wire0", "10.8.0.2/30"),
            (far, "pod0", "10.9.1.1/24"),
            (server, "eth0", "10.9.1.2/24"),
        ):
            await place.ip("address", "add", address, "dev", device)
            await place.ip("link", "set", "dev", device, "up")
        await client.ip("route", "add", "default", "via", "10.9.0.1")
        await server.ip("route", "add", "default", "via", "10.9.1.1")
        await near.ip("route", "add", "10.9.1.0/24", "via", "10.8.0.2")
        await far.ip("route", "add", "10.9.0.0/24", "via", "10.8.0.1")
        for node in (near, far):
            await run(node.inside("sysctl", "-q", "-w", "net.ipv4.ip_forward=1"), timeout=60)
        yield TwoNodes(
            MemoryKubeClient(),
            pods={"client": client, "server": server},
            nodes={"client": near, "server": far},
            addresses={"client": "10.9.0.2", "server": "10.9.1.2"},
            clock=SystemClock(),
        )


async def test_a_link_of_the_nodes_leads_past_their_routes_and_is_taken_back(nodes: TwoNodes) -> None:
    async def known() -> list[tuple[str, list[str]]]:
        links = [await end.ip("-o", "link") for end in nodes.nodes.values()]
        # The kernel takes a moment to know that the other end of a new pair is up.
        routes = [(await end.ip("route")).replace(" linkdown", "") for end in nodes.nodes.values()]
        names = [[line.split(": ")[1] for line in shown.splitlines()] for shown in links]
        return list(zip(routes, names, strict=True))

    before = await known()
    async with nodes.pair(Way("over the wire", "wire0")) as pair:
        assert (await pair.measure(PLAN)).whole > 0
    async with nodes.pair(Way("over a link", LINK, linked=True)) as pair:
        assert (await pair.measure(PLAN)).whole > 0
        assert "10.9.1.2 via 198.18.0.1 dev bench0" in (await known())[0][0]
    assert await known() == before


async def test_a_way_that_packets_do_not_take_is_no_figure(nodes: TwoNodes) -> None:
    with pytest.raises(UnavailableError, match="did not leave by lo"):
        async with nodes.pair(Way("nowhere", "lo")) as pair:
            await pair.measure(PLAN)


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
