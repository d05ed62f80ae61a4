"""A cluster with a workload sleeps and is woken by whoever asks: nothing of it runs, and everything comes back."""

from __future__ import annotations

import asyncio
import socket
import time
from urllib.parse import urlparse

import pytest

from haneul.app.demo import workload
from haneul.app.installation import Installation
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import CONFIG_MAPS, DEPLOYMENTS, PODS
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, cluster, kubectl, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
NAME = "sleeper"
#: kubectl gives up a handshake after so many seconds.
API_SECONDS = 10.0


async def pods_of(installation: Installation) -> list[str]:
    """Return the cluster's pods on the management hosts."""
    selector = f"dkos.haneul.dev/cluster={cluster(NAME)['uid']}"
    async with installation.lifecycle.client() as client:
        return [pod["metadata"]["name"] for pod in await client.list(PODS, labels=selector)]


async def test_sleeping_cluster_is_woken_by_kubectl_and_has_everything_back(installation: Installation) -> None:
    await asyncio.to_thread(haneul, "cluster", "create", NAME, "-p", PROJECT)
    try:
        async with tenant(NAME) as kube:
            await kube.apply(
                CONFIG_MAPS, {"metadata": {"name": "kept", "namespace": "default"}, "data": {"word": "still here"}}
            )
            web = workload()
            web["spec"]["replicas"] = 1
            await kube.apply(DEPLOYMENTS, web)
        await _workload_runs(installation)
        endpoint = cluster(NAME)["status"]["endpoint"]
        await asyncio.to_thread(haneul, "cluster", "hibernate", NAME, "-p", PROJECT)
        assert cluster(NAME)["status"]["phase"] == "Asleep"
        assert await pods_of(installation) == []
        # A scan or a check of the port is no request.
        address = urlparse(endpoint)
        for words in (b"", b"GET /healthz HTTP/1.1\r\n\r\n"):
            with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5) as scan:
                scan.sendall(words)
                scan.shutdown(socket.SHUT_WR)
                assert scan.recv(1) == b""
        assert cluster(NAME)["status"]["phase"] == "Asleep"
        began = time.monotonic()
        status, said = await kubectl(installation, NAME, "get", "configmap", "kept", "-o", "jsonpath={.data.word}")
        took = time.monotonic() - began
        assert (status, said) == (0, "still here")
        assert took < API_SECONDS
        await asyncio.to_thread(haneul, "cluster", "get", NAME, "-p", PROJECT, "--wait")
        await _workload_runs(installation)
        assert cluster(NAME)["status"]["endpoint"] == endpoint
        assert cluster(NAME)["status"]["phase"] == "Ready"
        await asyncio.to_thread(haneul, "cluster", "hibernate", NAME, "-p", PROJECT)
        woken = await asyncio.to_thread(haneul, "cluster", "wake", NAME, "-p", PROJECT)
        assert "the API answered after" in woken.stderr
        await asyncio.to_thread(haneul, "cluster", "hibernate", NAME, "-p", PROJECT)
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", NAME, "-p", PROJECT, "--yes")


async def _workload_runs(installation: Installation) -> None:
    async def ready() -> bool:
        path = "jsonpath={.status.readyReplicas}"
        return (await kubectl(installation, NAME, "get", "deployment", "web", "-o", path)) == (0, "1")

    await wait_for(ready, what="the workload to run", timeout=60, clock=SystemClock(), interval=0.5)
