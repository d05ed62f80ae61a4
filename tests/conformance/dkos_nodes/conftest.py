"""Machines for the provider ``ssh``: three, made once for the module, put back as they were found between tests."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from haneul.dkos.adapters.node_pack import NodePack, pack
from haneul.dkos.adapters.ssh_machines import SshMachines
from haneul.dkos.adapters.ssh_nodes import SshNodes
from haneul.dkos.machine_store import MemoryMachines
from haneul.dkos.machines import MachineSpec
from haneul.dkos.model import Cluster, ClusterSpec, NodePool, NodeProviderName
from haneul.dkos.releases import VERSIONS
from haneul.kernel.clock import SystemClock
from haneul.kernel.ssh_keys import SshKey, new_ssh_key
from tests.machines import Machine, idle_node_tree, machines

T = TypeVar("T")


@dataclass(frozen=True)
class SshSite:
    """Machines and what speaks to them. The first two are of one project, the third of another."""

    machines: list[Machine]
    store: MemoryMachines
    #: By version of Kubernetes.
    packs: dict[str, NodePack]

    def subject(self, one: Cluster, two: Cluster) -> tuple[SshNodes, Cluster, Cluster]:
        """Return a provider and the clusters with pools of these machines."""
        return (self.nodes(), _with_machines(one, "one", "0", "1"), _with_machines(two, "two", "0"))

    def nodes(self) -> SshNodes:
        """Return a provider that knows nothing yet, as after a restart of the operator."""

        async def packed(version: str) -> NodePack:
            return self.packs[version]

        clock = SystemClock()
        reached = SshMachines(self.store, self.store, architecture=_architecture(), clock=clock)
        return SshNodes(reached, pack=packed, clock=clock)


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def _with_machines(cluster: Cluster, project: str, *names: str) -> Cluster:
    pool = NodePool(name="default", provider=NodeProviderName.SSH, machines=names, count=len(names))
    spec = ClusterSpec(network=cluster.spec.network, node_pools=(pool,))
    return cluster.model_copy(update={"project": project, "spec": spec})


@pytest.fixture(scope="module")
def ssh_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshSite]:
    if os.geteuid() != 0 or shutil.which("sshd") is None:
        pytest.skip("machines are made by root, with the SSH server of the Debian package openssh-server")
    folder = tmp_path_factory.mktemp("machines")
    # A loop of its own, in a thread of its own: the fixture outlives the tests' loops and is asked for inside of one.
    with ThreadPoolExecutor(1) as thread, asyncio.Runner() as runner:

        def wait(work: Coroutine[Any, Any, T]) -> T:
            return thread.submit(runner.run, work).result()

        store = MemoryMachines()
        key = new_ssh_key("tests")
        site = machines(folder, key.public, count=3)
        made = wait(_enter(site))
        try:
            wait(_register(store, key, made))
            yield SshSite(made, store, {one: pack(idle_node_tree(folder / one, version=one)) for one in VERSIONS})
        finally:
            wait(_leave(site))
            thread.submit(runner.close).result()


async def _register(store: MemoryMachines, key: SshKey, made: list[Machine]) -> None:
    for project in ("one", "two"):
        await store.replace(project, key)
    for machine, (project, name) in zip(made, (("one", "0"), ("one", "1"), ("two", "0")), strict=True):
        await store.add(project, name, MachineSpec(address=machine.address, host_key=machine.fingerprint))


async def _enter(site: AbstractAsyncContextManager[list[Machine]]) -> list[Machine]:
    return await site.__aenter__()


async def _leave(site: AbstractAsyncContextManager[list[Machine]]) -> None:
    await site.__aexit__(None, None, None)
