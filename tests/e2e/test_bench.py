"""What benchmarks measure with: plain processes as the peer, and clusters of a project of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.app.bench_lab import PROJECT, PlatformLab
from haneul.app.installation import Installation
from haneul.app.network_lab import PlatformNetworks
from haneul.bench.network_figures import QUICK, SETUPS
from haneul.bench.plain_kubernetes import PlainProcesses
from haneul.bench.process_usage import HostProcesses
from haneul.dkos.model import project_namespace
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import NAMESPACES

pytestmark = pytest.mark.e2e

MASTERS = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}


async def test_the_peer_runs_and_leaves_nothing(installation: Installation) -> None:
    peer = PlainProcesses(installation.store.program, clock=SystemClock())
    try:
        await peer.start()
        await peer.wait_api()
        await peer.wait_account()
        pids = await peer.processes()
        assert {reading.name for reading in HostProcesses().read(pids).values()} == MASTERS
    finally:
        await peer.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_a_cluster_of_the_lab_is_measured_and_deleted(installation: Installation) -> None:
    processes = HostProcesses()
    async with installation.lifecycle.client() as management:
        async with PlatformLab(management, processes=processes, reserved=(), clock=SystemClock()) as lab:
            await lab.clear()
            await lab.create("one", "native", 1)
            await lab.wait_api("one")
            await lab.wait_account("one")
            await lab.wait_node("one")
            await lab.run_pod("one", "first")
            read = processes.read(await lab.master_processes("one"))
            assert {reading.name for reading in read.values()} == MASTERS | {"containerd-shim", "pause"}
            await lab.delete("one")
        assert await management.get(NAMESPACES, project_namespace(PROJECT)) is None


async def test_a_network_that_wraps_everything_is_measured_on_that_way(installation: Installation) -> None:
    """Cilium's own tunnel: packets that left by another device would be no figure."""
    processes, clock = HostProcesses(), SystemClock()
    (setup,) = (setup for setup in SETUPS if setup.tunnel == "always")
    async with (
        installation.lifecycle.client() as management,
        PlatformLab(management, processes=processes, reserved=(), clock=clock) as lab,
    ):
        await lab.clear()
        async with PlatformNetworks(lab, processes=processes, clock=clock).cluster(setup) as two_nodes:
            for way in setup.ways:
                async with two_nodes.pair(way) as pair:
                    assert (await pair.measure(QUICK)).whole > 0
