"""Many clusters on one small machine: those that are asked for at once run side by side."""

from __future__ import annotations

import pytest

from haneul.cli.context import Contexts
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import NODES, SERVICE_ACCOUNTS
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import tenant

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()


async def node_of(project: str, name: str) -> str:
    """Return the identity of the cluster's only node, seen through the cluster's own API."""
    async with tenant(name, project) as kube:
        (node,) = await kube.list(NODES)
        assert await kube.get(SERVICE_ACCOUNTS, "default", "default") is not None
        conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        return str(node["metadata"]["uid"])


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.long)])
async def test_clusters_that_are_asked_for_at_once_run_side_by_side(platform: None, count: int) -> None:
    project, path = "many", "/projects/many/clusters"
    names = [f"c{number}" for number in range(count)]
    with Contexts.default().client() as client:
        client.post("/projects", {"name": project})
        try:
            for name in names:
                client.post(path, {"name": name, "spec": {"nodePools": [{"name": "default", "count": 1}]}})

            async def ready() -> bool:
                return all(entry["status"]["phase"] == "Ready" for entry in client.list(path))

            await wait_for(ready, what="all clusters to be ready", timeout=600, clock=CLOCK, max_interval=2)
            assert len({await node_of(project, name) for name in names}) == count
            assert len({entry["status"]["pods"] for entry in client.list(path)}) == count
        finally:
            for entry in client.list(path):
                client.delete(f"{path}/{entry['name']}")

            async def gone() -> bool:
                return not client.list(path)

            await wait_for(gone, what="all clusters to be gone", timeout=400, clock=CLOCK, max_interval=2)
            client.delete(f"/projects/{project}")
