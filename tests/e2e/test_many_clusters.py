"""Many clusters on one small machine: ten asked for at once, twenty running side by side."""

from __future__ import annotations

import pytest

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import NODES, SERVICE_ACCOUNTS
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import tenant

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
AT_ONCE, RUNNING = 10, 20


async def ready(client: ApiClient, path: str, names: list[str]) -> None:
    """Ask for the clusters one right after the other, and wait until all are ready."""
    for name in names:
        client.post(path, {"name": name, "spec": {"nodePools": [{"name": "default", "count": 1}]}})

    async def all_ready() -> bool:
        phases = {entry["name"]: entry["status"]["phase"] for entry in client.list(path)}
        return all(phases[name] == "Ready" for name in names)

    await wait_for(all_ready, what=f"{len(names)} clusters to be ready", timeout=300, clock=CLOCK, max_interval=2)


async def node_of(project: str, name: str) -> str:
    """Return the identity of the cluster's only node, seen through the cluster's own API."""
    async with tenant(name, project) as kube:
        (node,) = await kube.list(NODES)
        assert await kube.get(SERVICE_ACCOUNTS, "default", "default") is not None
        conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        return str(node["metadata"]["uid"])


async def test_ten_clusters_are_made_at_once_and_twenty_run_side_by_side(platform: None) -> None:
    project, path = "many", "/projects/many/clusters"
    names = [f"c{number}" for number in range(RUNNING)]
    with Contexts.default().client() as client:
        client.post("/projects", {"name": project})
        try:
            for start in range(0, RUNNING, AT_ONCE):
                await ready(client, path, names[start : start + AT_ONCE])
            nodes = [await node_of(project, name) for name in names]
            assert len(set(nodes)) == RUNNING
            assert len({entry["status"]["pods"] for entry in client.list(path)}) == RUNNING
        finally:
            for entry in client.list(path):
                client.delete(f"{path}/{entry['name']}")

            async def gone() -> bool:
                return not client.list(path)

            await wait_for(gone, what="twenty clusters to be gone", timeout=400, clock=CLOCK, max_interval=2)
            client.delete(f"/projects/{project}")
