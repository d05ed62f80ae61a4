"""A cluster that is in use comes to the next minor: held by a disruption budget, gone on with, its operator killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from haneul.app.demo import deploy_workload
from haneul.app.installation import Installation
from haneul.chaos.ledger import Ledger
from haneul.cli.context import Contexts
from haneul.dkos.draining import CHANGING
from haneul.dkos.releases import VERSIONS
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import CONFIG_MAPS, NODES, POD_DISRUPTION_BUDGETS, PODS, SERVICES, KubeClient, Manifest
from haneul.kernel.waiting import wait_for
from tests.e2e.balancer import Balancer
from tests.e2e.tenants import cluster, happened, tenant
from tests.machines import machines, ports_of_host
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK: Final = SystemClock()
NEW, OLD = VERSIONS
KEPT: Final = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "kept", "namespace": "default"},
    "data": {"word": "still here"},
}


def budget(**bound: int) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {**bound, "selector": {"matchLabels": {"app": "web"}}},
    }


def condition(name: str) -> dict[str, Any]:
    conditions = cluster(name)["status"]["conditions"]
    found: dict[str, Any] = next(entry for entry in conditions if entry["type"] == "VersionCurrent")
    return found


def kubelets(name: str) -> list[str]:
    return sorted(node["version"] for node in cluster(name)["status"]["nodes"])


async def ask_api(kube: KubeClient, ledger: Ledger, stop: asyncio.Event) -> None:
    """Ask the cluster's API server twenty times a second."""
    while not stop.is_set():
        at, answered = CLOCK.monotonic(), True
        try:
            await kube.raw_get("/readyz")
        except HaneulError:
            answered = False
        ledger.note(at, good=answered)
        await asyncio.sleep(max(0.0, 0.05 - (CLOCK.monotonic() - at)))


#: Unknown, back, nodes before their masters, nodes too far behind.
REFUSED: Final = (
    ("--to", "1.99.0"),
    ("--to", f"{OLD.rpartition('.')[0]}.0"),
    ("--nodes", NEW),
    ("--to", NEW, "--nodes", "1.20.0"),
)


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_cluster_in_use_comes_to_the_next_minor(
    project: str, installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    name = "riser"
    await asyncio.to_thread(
        haneul, "cluster", "create", name, "--version", OLD, "--nodes", "2", "--memory", "1024", "-p", project
    )
    try:
        assert (cluster(name)["status"]["version"], kubelets(name)) == (OLD, [OLD, OLD])
        await _asked_for_what_cannot_be(name, project)
        with Contexts.default().client() as client:
            await deploy_workload(client, name, CLOCK, project=project)
        async with tenant(name) as kube:
            await kube.apply(CONFIG_MAPS, KEPT)
            await kube.apply(POD_DISRUPTION_BUDGETS, budget(maxUnavailable=0))
            with Contexts.default().client() as client:
                path = f"/projects/{project}/clusters/{name}"
                await asyncio.to_thread(client.patch, path, {"settings": {"drainSeconds": 30}})
            service = await kube.get(SERVICES, "web", "default")
            assert service is not None
            balancer = Balancer(name, service["spec"]["ports"][0]["nodePort"])
            api = Ledger("API server")
            stop = asyncio.Event()
            probing = [
                asyncio.create_task(work)
                for work in (balancer.follow(stop), balancer.ask(stop), ask_api(kube, api, stop))
            ]
            try:
                await _held_by_the_budget(name, project)
                await kube.apply(POD_DISRUPTION_BUDGETS, budget(minAvailable=2))
                await _operator_killed_while_a_node_is_changed(installation, kube)
                await asyncio.to_thread(haneul, "cluster", "upgrade", name, "--to", NEW, "-p", project, timeout=1200)
            finally:
                stop.set()
                await asyncio.gather(*probing)
            record_property("requests to the workload", balancer.ledger.tally().asked)
            record_property("failed requests to the workload", balancer.ledger.tally().failed)
            record_property("longest gap of the API in seconds", round(api.tally().longest_gap, 2))
            record_property("failed requests to the API", api.tally().failed)
            assert balancer.ledger.tally().asked > 100
            assert balancer.ledger.tally().failed == 0, balancer.ledger.tally()
            # One master: while it is replaced, a connection may break.
            assert api.tally().asked > 100
            kept = await kube.get(CONFIG_MAPS, "kept", "default")
            assert kept is not None and kept["data"] == KEPT["data"]
            assert not any(node["spec"].get("unschedulable") for node in await kube.list(NODES))
            said = json.loads(await kube.raw_get("/version"))
            assert said["gitVersion"] == f"v{NEW}"
        assert (cluster(name)["status"]["version"], kubelets(name)) == (NEW, [NEW, NEW])
        for reason in ("UpgradeBegun", "MastersUpgraded", "UpgradeStopped", "NodeUpgraded", "Upgraded"):
            await wait_for(happened(name, reason), what=f"the event {reason}", timeout=30, clock=CLOCK, interval=0.5)
        back = await asyncio.to_thread(haneul, "cluster", "upgrade", name, "--to", OLD, "-p", project, check=False)
        assert back.returncode == 2 and "cannot go back" in back.stderr and f"--nodes {OLD}" in back.stderr
        # Nodes do go back, and their pods go on.
        await asyncio.to_thread(haneul, "cluster", "upgrade", name, "--nodes", OLD, "-p", project, timeout=600)
        assert (cluster(name)["status"]["version"], kubelets(name)) == (NEW, [OLD, OLD])
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes")


async def _asked_for_what_cannot_be(name: str, project: str) -> None:
    """Refusals and a dry run change nothing."""
    for wrong in REFUSED:
        refused = await asyncio.to_thread(haneul, "cluster", "upgrade", name, *wrong, "-p", project, check=False)
        assert refused.returncode == 2 and "hint:" in refused.stderr, wrong
    planned = await asyncio.to_thread(haneul, "cluster", "upgrade", "--all", "--to", NEW, "--dry-run", "-o", "json")
    (mine,) = [one for one in json.loads(planned.stdout) if (one["project"], one["name"]) == (project, name)]
    assert (mine["version"], mine["outcome"], mine["nodes"]) == (OLD, "upgrade", 2)
    assert cluster(name)["generation"] == 1


async def _held_by_the_budget(name: str, project: str) -> None:
    """The masters come to the next minor; the first node cannot be emptied, which ends the wait with the reason."""
    stopped = await asyncio.to_thread(
        haneul, "cluster", "upgrade", name, "--to", NEW, "-p", project, check=False, timeout=900
    )
    assert stopped.returncode == 13, stopped.stderr
    assert "cannot be emptied" in stopped.stderr and "disruption budget" in stopped.stderr
    assert condition(name)["reason"] == "UpgradeStopped"
    assert (cluster(name)["status"]["version"], kubelets(name)) == (NEW, [OLD, OLD])


async def _operator_killed_while_a_node_is_changed(installation: Installation, kube: KubeClient) -> None:
    async def one_is_back() -> bool:
        """The first node runs the next minor, and the change of the second has begun."""
        nodes = await kube.list(NODES)
        begun = [node for node in nodes if CHANGING in node["metadata"].get("annotations", {})]
        versions = [node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes]
        return f"v{NEW}" in versions and f"v{OLD}" in versions and bool(begun)

    await wait_for(one_is_back, what="the second node's turn", timeout=300, clock=CLOCK, interval=0.1)
    async with installation.lifecycle.client() as management:
        killed = await management.list(PODS, "haneul-system", labels="app.kubernetes.io/name=haneul-operator")
        for pod in killed:
            await management.delete(PODS, pod["metadata"]["name"], "haneul-system", grace=0)
    assert killed


async def _until(what: str, wanted: Callable[[], Awaitable[bool]]) -> None:
    await wait_for(wanted, what=what, timeout=300, clock=CLOCK, interval=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_machines_come_to_the_next_minor_and_are_left_as_found(
    project: str, installation: Installation, tmp_path: Path
) -> None:
    name = "metalriser"

    async def command(*arguments: str) -> str:
        return (await asyncio.to_thread(haneul, *arguments, "-p", project, timeout=600)).stdout

    key = (await command("machine", "key")).strip()
    async with machines(tmp_path, key, count=2) as made, ports_of_host(made[0].bridge, installation.settings.address):
        before = [await machine.snapshot() for machine in made]
        for number, machine in enumerate(made):
            pin = ("--host-key", machine.fingerprint)
            await command("machine", "add", f"riser{number}", "--address", machine.address, *pin)
        try:
            await command("cluster", "create", name, "--version", OLD, "--machine", "riser0", "--machine", "riser1")
            assert kubelets(name) == [OLD, OLD]
            with Contexts.default().client() as client:
                await deploy_workload(client, name, CLOCK, project=project)
            await command("cluster", "upgrade", name, "--to", NEW)
            assert (cluster(name)["status"]["version"], kubelets(name)) == (NEW, [NEW, NEW])
            async with tenant(name) as kube:

                async def runs() -> bool:
                    pods = await kube.list(PODS, "default")
                    return len([pod for pod in pods if pod["status"].get("phase") == "Running"]) >= 3

                await _until("the workload to run", runs)
        finally:
            with contextlib.suppress(AssertionError):
                await command("cluster", "delete", name, "--yes")

        async def free() -> bool:
            listed = json.loads(await command("machine", "list", "-o", "json"))
            claims = {one["name"]: one["status"]["claim"] for one in listed}
            return all(claims[f"riser{number}"] is None for number in range(2))

        await _until("the machines to be put back", free)
        for number in range(2):
            await command("machine", "remove", f"riser{number}")
        for machine, found in zip(made, before, strict=True):
            assert await machine.differences(found) == {}
