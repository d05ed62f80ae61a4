"""Machines by SSH on a real platform: two join a cluster and run pods, one dies and comes back, nothing is left."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from haneul.app.demo import deploy_workload
from haneul.app.installation import Installation
from haneul.cli.context import Contexts
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.kube import NODES, PODS
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, cluster, connect, tenant, to_meet
from tests.machines import Machine, machines, ports_of_host
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
NAME = "metal"


async def command(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line while the relay of this loop goes on."""
    return await asyncio.to_thread(haneul, *arguments, "-p", PROJECT, check=check)


async def registered() -> dict[str, Any]:
    listed = await command("machine", "list", "-o", "json")
    return {machine["name"]: machine for machine in json.loads(listed.stdout)}


async def test_machines_join_run_pods_die_come_back_and_are_left_as_found(
    project: str, installation: Installation, tmp_path: Path
) -> None:
    key = (await command("machine", "key")).stdout.strip()
    host = installation.settings.address
    async with machines(tmp_path, key, count=2) as made, ports_of_host(made[0].bridge, host):
        before = [await machine.snapshot() for machine in made]
        for number, machine in enumerate(made):
            pin = ("--host-key", machine.fingerprint) if number else ("--trust-on-first-use",)
            await command("machine", "add", f"rack{number}", "--address", machine.address, *pin)
        spec = tmp_path / "spec.yaml"
        spec.write_text(
            "nodePools: [{name: default, provider: ssh, machines: [rack0, rack1]}]\n"
            "settings: {nodeStatusUpdateSeconds: 2, nodeMonitorGraceSeconds: 10, podEvictionSeconds: 3}\n"
        )
        await command("cluster", "create", NAME, "--file", str(spec))
        try:
            await _pods_meet(installation, made)
            taken = await command("machine", "remove", "rack0", check=False)
            assert taken.returncode != 0 and NAME in taken.stderr
            made[0].kill()
            await _pods_are_on(NAME, "default-rack1")
            await made[0].start()
            await command("cluster", "get", NAME, "--wait")
            assert all(node["ready"] for node in cluster(NAME)["status"]["nodes"])
            # One leaves: it is as it was found while the other goes on.
            await command("cluster", "scale", NAME, "--machine", "rack1")
            await _free("rack0")
            await command("machine", "remove", "rack0")
        finally:
            await command("cluster", "delete", NAME, "--yes")
        await _free("rack1")
        await command("machine", "remove", "rack1")
        for machine, found in zip(made, before, strict=True):
            assert await machine.differences(found) == {}


async def _pods_meet(installation: Installation, made: list[Machine]) -> None:
    """Pod to pod across machines, service to pod, pod to the API, and the API server to each kubelet."""
    with Contexts.default().client() as client:
        await deploy_workload(client, NAME, CLOCK, project=PROJECT)
    async with tenant(NAME) as kube:
        nodes = await kube.list(NODES)
        pods, targets = await to_meet(kube)
    assert {node["metadata"]["labels"]["dkos.haneul.dev/preset"] for node in nodes} == {"pm"}
    await _no_tunnel(made)
    for pod in pods:
        for target in targets:
            await _reaches(installation, pod, target, made)


async def _no_tunnel(made: list[Machine]) -> None:
    """Machines of one subnet reach each other's pods by way of each other's own address."""

    async def direct() -> bool:
        routes = [await machine.run("ip", "-4", "route") for machine in made]
        others = [machine.address for machine in reversed(made)]
        return all(f"/24 via {other} dev eth0" in known for known, other in zip(routes, others, strict=True))

    assert cluster(NAME)["spec"]["network"]["tunnel"] == "needed"
    await wait_for(direct, what="routes to the other machine's pods", timeout=120, clock=CLOCK)


async def _reaches(installation: Installation, pod: str, target: str, made: list[Machine]) -> None:
    said = ""

    async def connects() -> bool:
        nonlocal said
        status, said = await connect(installation, NAME, pod, target, seconds=3)
        return status == 0

    # A machine learns the way to another one's pods a moment after that has joined; a minute, if what it watches was
    # ended meanwhile (client-go's reflector waits longer from time to time).
    try:
        await wait_for(connects, what=f"{pod} to reach {target}", timeout=120, clock=CLOCK)
    except DeadlineExceededError as error:
        seen = [f"{machine.name}:\n{await machine.network_seen()}" for machine in made]
        raise AssertionError("\n".join([f"{pod} → {target}: {said}", *seen])) from error


async def _pods_are_on(name: str, node: str) -> None:
    async with tenant(name) as kube:

        async def moved() -> bool:
            pods = [
                pod
                for pod in await kube.list(PODS, "default")
                if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
            ]
            return len(pods) == 3 and {pod["spec"]["nodeName"] for pod in pods} == {node}

        await wait_for(moved, what="the pods to be on the other machine", timeout=90, clock=CLOCK)


async def _free(name: str) -> None:
    async def free() -> bool:
        return (await registered())[name]["status"]["claim"] is None

    await wait_for(free, what=f"{name} to be put back", timeout=120, clock=CLOCK)
