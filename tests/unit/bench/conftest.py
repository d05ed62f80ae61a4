"""A platform, a peer and a process table in memory, whose every step takes a known time of a virtual clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from haneul.bench.dkos import DkosBench
from haneul.bench.process_usage import Reading
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.progress import SilentProgress


class MemoryLab:
    """Clusters that exist by name; the API takes ``api`` seconds. Four processes are a cluster's masters."""

    def __init__(self, clock: VirtualClock, *, silent: str = "") -> None:
        self.clock = clock
        self.silent = silent
        self.clusters = {"left-over": 1}
        self.most = 0
        self.pods: list[tuple[str, str]] = []
        self.cleared = 0
        self.asleep: set[str] = set()

    async def clear(self) -> None:
        self.clusters.clear()
        self.cleared += 1

    async def create(self, name: str, network: str, nodes: int) -> None:
        assert name not in self.clusters
        self.clusters[name] = nodes
        self.most = max(self.most, len(self.clusters))

    async def wait_api(self, name: str) -> None:
        if name == self.silent:
            raise DeadlineExceededError(f"waited for {name}")
        await self.clock.sleep(4 if name.startswith("native") else 6)

    async def wait_account(self, name: str) -> None:
        return None

    async def wait_node(self, name: str) -> None:
        await self.clock.sleep(1)

    async def hibernate(self, name: str) -> None:
        assert name in self.clusters
        self.asleep.add(name)
        await self.clock.sleep(7)

    async def wake(self, name: str) -> None:
        self.asleep.remove(name)
        await self.clock.sleep(0.5)

    async def run_pod(self, name: str, pod: str) -> None:
        self.pods.append((name, pod))
        await self.clock.sleep(2)

    async def delete(self, name: str) -> None:
        del self.clusters[name]
        await self.clock.sleep(3)

    async def master_processes(self, name: str) -> Sequence[int]:
        first = 10 * list(self.clusters).index(name)
        return range(first, first + 4)


class MemoryPeer:
    """Answers after two seconds."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def wait_api(self) -> None:
        await self.clock.sleep(2)

    async def wait_account(self) -> None:
        await self.clock.sleep(1)

    async def processes(self) -> Sequence[int]:
        assert self.running
        return [1000]

    async def stop(self) -> None:
        self.running = False


class MemoryProcesses:
    """Each process has 100 MiB and uses a hundredth of a core."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    def read(self, pids: Iterable[int]) -> Mapping[int, Reading]:
        size = 100 << 20
        names = ("kube-apiserver", "etcd", "kube-scheduler", "pause")
        return {
            pid: Reading(names[pid % 10 % 4], size, size // 2, size // 2, self.clock.monotonic() / 100) for pid in pids
        }


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 11, 1, tzinfo=UTC))


@pytest.fixture
def lab(clock: VirtualClock) -> MemoryLab:
    return MemoryLab(clock)


@pytest.fixture
def peers() -> list[MemoryPeer]:
    return []


@pytest.fixture
def bench(clock: VirtualClock, lab: MemoryLab, peers: list[MemoryPeer]) -> DkosBench:
    def make_peer() -> MemoryPeer:
        peers.append(MemoryPeer(clock))
        return peers[-1]

    processes = MemoryProcesses(clock)
    return DkosBench(lab, make_peer=make_peer, processes=processes, clock=clock, progress=SilentProgress())
