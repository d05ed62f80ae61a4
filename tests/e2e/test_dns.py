"""Names of a real cluster, asked for from its pods and from outside, whoever is dead; and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest

from haneul.app.demo import deploy_workload, kill_masters
from haneul.app.installation import Installation
from haneul.cli.context import Contexts
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import SERVICES
from haneul.kernel.waiting import wait_for
from tests.e2e.names import reaches, until_resolved
from tests.e2e.tenants import PROJECT, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
NAME = "named"


@pytest.fixture
async def named(project: str) -> AsyncIterator[str]:
    """A cluster with one node and three replicas of a workload; the address at which these answer from outside."""
    await asyncio.to_thread(haneul, "cluster", "create", NAME, "--memory", "1024", "-p", project)
    try:
        with Contexts.default().client() as client:
            yield await deploy_workload(client, NAME, CLOCK, project=PROJECT)
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", project, check=False)


async def until_reached(pod: str, host: str) -> None:
    """Wait until a pod reaches the workload by a name: one question may be lost on its way, as anywhere."""
    await wait_for(lambda: reaches(pod, host), what=f"a pod to reach {host}", timeout=30, clock=CLOCK)


async def pid_of(installation: Installation, service: str) -> int:
    states = {state.name: state for state in await installation.services.states()}
    return states[service].pid or 0


async def test_names_outlive_masters_and_servers_and_end_with_their_cluster(
    named: str, installation: Installation
) -> None:
    domain = f"{NAME}.{PROJECT}.{installation.settings.zone}"
    full = f"web.default.svc.{domain}"
    async with tenant(NAME) as kube:
        service = await kube.get(SERVICES, "web", "default")
        assert service is not None
        address = service["spec"]["clusterIP"]
        await until_resolved(installation, full, ("NOERROR", [address]))
        kubernetes = await kube.get(SERVICES, "kubernetes", "default")
        assert kubernetes is not None
        own = ("NOERROR", [kubernetes["spec"]["clusterIP"]])
        await until_resolved(installation, f"kubernetes.default.svc.{domain}", own)
        pointer = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        await until_resolved(installation, pointer, ("NOERROR", [f"{full}."]), kind="PTR")

        async def told() -> bool:
            seen = await kube.get(SERVICES, "web", "default") or {}
            conditions = seen.get("status", {}).get("conditions", [])
            return [entry["status"] for entry in conditions if entry["type"] == "dns.haneul.dev/Published"] == ["True"]

        await wait_for(told, what="the Service's receipt", timeout=30, clock=CLOCK)

        for host in ("web", "web.default", "web.default.svc", full):
            await until_reached(named, host)
        assert not await reaches(named, "nobody.default.svc")

        # Masters that are dead are missed by no name, neither in pods nor outside.
        assert await kill_masters(installation, PROJECT, NAME) >= 4

        async def down() -> bool:
            try:
                await kube.raw_get("/readyz")
            except HaneulError:
                return True
            return False

        await wait_for(down, what="the killed API to go", timeout=15, clock=CLOCK, interval=0.02)
        await until_reached(named, "web.default.svc")
        await until_resolved(installation, full, ("NOERROR", [address]))

        async def back() -> bool:
            return not await down()

        await wait_for(back, what="the masters to be back", timeout=90, clock=CLOCK)

    # Each program of the DNS server comes back by itself, with all that it had.
    for name in ("dns-zones", "dns"):
        before = await pid_of(installation, name)
        os.kill(before, signal.SIGKILL)

        async def another(name: str = name, before: int = before) -> bool:
            return await pid_of(installation, name) not in (0, before)

        await wait_for(another, what=f"{name} to be started again", timeout=30, clock=CLOCK)
    await until_resolved(installation, full, ("NOERROR", [address]))
    await until_reached(named, "web")

    await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", PROJECT)
    await until_resolved(installation, full, ("NXDOMAIN", []))
    await until_resolved(installation, pointer, ("NXDOMAIN", []), kind="PTR")
    shown = await asyncio.to_thread(haneul, "dns", "list", "--below", domain, "-o", "json")
    assert json.loads(shown.stdout) == []
