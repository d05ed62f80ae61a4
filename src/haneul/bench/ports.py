"""What the benchmark of clusters needs from outside: a platform to make clusters on, a peer, a process table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from haneul.bench.process_usage import Reading


class ClusterLab(Protocol):
    """A running platform, used as its users use it. Waits raise DeadlineExceededError."""

    async def clear(self) -> None:
        """Delete every cluster that an earlier run has left; return when they are gone."""
        ...

    async def create(self, name: str, network: str, nodes: int) -> None:
        """Ask for a cluster; return as soon as the request is taken."""
        ...

    async def wait_api(self, name: str) -> None:
        """Return when the cluster's API server says from outside that it is ready."""
        ...

    async def wait_account(self, name: str) -> None:
        """Return when the namespace ``default`` has its service account, without which no pod can be made."""
        ...

    async def wait_node(self, name: str) -> None:
        """Return when one node is Ready; of a cluster that slept, when one is so again."""
        ...

    async def hibernate(self, name: str) -> None:
        """Put a cluster to sleep; return when nothing of it runs any more."""
        ...

    async def wake(self, name: str) -> None:
        """Ask for a sleeping cluster to wake; return as soon as the request is taken."""
        ...

    async def run_pod(self, name: str, pod: str) -> None:
        """Make a pod in ``default`` as soon as that is possible; return when it runs."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a cluster, also a half-made one; return when nothing of it is left."""
        ...

    async def master_processes(self, name: str) -> Sequence[int]:
        """Return the ids of all processes on this host that make up a cluster's masters."""
        ...


class PlainKubernetes(Protocol):
    """The peer: the same programs started by hand with upstream's defaults. Waits raise DeadlineExceededError."""

    async def start(self) -> None:
        """Start etcd and the API server; return as soon as both are started."""
        ...

    async def wait_api(self) -> None:
        """Return when the API server says that it is ready."""
        ...

    async def wait_account(self) -> None:
        """Start what needs the API, and return when ``default`` has its service account."""
        ...

    async def processes(self) -> Sequence[int]:
        """Return the ids of the peer's processes."""
        ...

    async def stop(self) -> None:
        """End everything that was started and remove its files."""
        ...


class Processes(Protocol):
    """Tells what processes cost."""

    def read(self, pids: Iterable[int]) -> Mapping[int, Reading]:
        """Return a reading of each process that is still there."""
        ...
