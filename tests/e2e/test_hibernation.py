"""A cluster with a workload sleeps and is woken by whoever asks: nothing of it runs, and everything comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlparse

import pytest

from haneul.app.demo import workload
from haneul.app.installation import Installation
from haneul.bench.process_usage import HostProcesses
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, Manifest
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, cluster, happened, kubectl, remains_of, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK: Final = SystemClock()


async def pods_of(installation: Installation, name: str) -> list[Manifest]:
    """Return all pods of a cluster's masters and nodes on the management hosts."""
    async with installation.lifecycle.client() as client:
        return [
            pod
            for namespace in (f"cluster-{PROJECT}-{name}", f"nodes-{PROJECT}-{name}")
            for pod in await client.list(PODS, namespace)
        ]


def memory_of(pods: Iterable[Manifest]) -> float:
    """Return the MiB that the processes of pods have made themselves."""
    table = HostProcesses()
    found = table.read(table.of_pods([pod["metadata"]["uid"] for pod in pods]))
    return sum(reading.anonymous for reading in found.values()) / (1 << 20)


async def test_sleeping_cluster_is_woken_by_kubectl_and_has_everything_back(
    project: str, installation: Installation
) -> None:
    name = "sleeper"
    early = haneul("cluster", "create", name, "--no-wait", "-p", project)
    assert early.returncode == 0
    try:
        # A cluster that is being made is not put to sleep.
        refused = await asyncio.to_thread(haneul, "cluster", "hibernate", name, "-p", project, check=False)
        assert refused.returncode != 0
        assert "it is being made" in refused.stderr
        await asyncio.to_thread(haneul, "cluster", "get", name, "-p", project, "--wait")
        async with tenant(name) as kube:
            await kube.apply(
                CONFIG_MAPS,
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "kept", "namespace": "default"},
                    "data": {"word": "still here"},
                },
            )
            web = workload()
            web["spec"]["replicas"] = 1
            await kube.apply(DEPLOYMENTS, web)
        await _workload_runs(installation, name)
        endpoint = cluster(name)["status"]["endpoint"]
        await asyncio.to_thread(haneul, "cluster", "hibernate", name, "-p", project)
        assert cluster(name)["status"]["phase"] == "Asleep"
        assert await pods_of(installation, name) == []
        _knock(endpoint)
        assert cluster(name)["status"]["phase"] == "Asleep"
        # However long that takes: kubectl gives up a handshake after ten seconds, but not one that ends before.
        status, said = await kubectl(installation, name, "get", "configmap", "kept", "-o", "jsonpath={.data.word}")
        assert (status, said) == (0, "still here")
        await asyncio.to_thread(haneul, "cluster", "get", name, "-p", project, "--wait")
        await _workload_runs(installation, name)
        assert cluster(name)["status"]["endpoint"] == endpoint
        assert cluster(name)["status"]["phase"] == "Ready"
        for reason in ("Hibernating", "Asleep", "WakeRequested", "Waking"):
            told = happened(name, reason)
            await wait_for(told, what=f"the event {reason}", timeout=10, clock=CLOCK)
        await asyncio.to_thread(haneul, "cluster", "hibernate", name, "-p", project)
        woken = await asyncio.to_thread(haneul, "cluster", "wake", name, "-p", project)
        assert "the API answered after " in woken.stderr
        async with tenant(name) as kube:
            kept = await kube.get(CONFIG_MAPS, "kept", "default")
        assert kept is not None
        assert kept["data"] == {"word": "still here"}
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes")


async def test_of_a_sleeping_cluster_nothing_runs_and_it_is_deleted_whole(
    project: str, installation: Installation
) -> None:
    name = "dormouse"
    await asyncio.to_thread(haneul, "cluster", "create", name, "-p", project)
    uid = cluster(name)["uid"]
    try:
        awake = await pods_of(installation, name)
        assert memory_of(awake) > 100
        await asyncio.to_thread(haneul, "cluster", "hibernate", name, "-p", project)
        assert await pods_of(installation, name) == []
        await _processes_end(awake)
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes")
    assert await asyncio.to_thread(remains_of, uid, name, installation) == []


def _knock(endpoint: str) -> None:
    """Do what a scan or a check of a port does, which is no request."""
    address = urlparse(endpoint)
    for words in (b"", b"GET /healthz HTTP/1.1\r\n\r\n"):
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5) as scan:
            scan.sendall(words)
            scan.shutdown(socket.SHUT_WR)
            # Closed in whatever way, and not a byte said.
            with contextlib.suppress(ConnectionResetError):
                assert scan.recv(1) == b""


async def _processes_end(pods: list[Manifest]) -> None:
    async def ended() -> bool:
        return memory_of(pods) == 0

    # Shims outlive their pods by a moment.
    await wait_for(ended, what="the last processes to end", timeout=10, clock=CLOCK)


async def _workload_runs(installation: Installation, name: str) -> None:
    async def ready() -> bool:
        path = "jsonpath={.status.readyReplicas}"
        return (await kubectl(installation, name, "get", "deployment", "web", "-o", path)) == (0, "1")

    await wait_for(ready, what="the workload to run", timeout=60, clock=CLOCK, interval=0.5)
