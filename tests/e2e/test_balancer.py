"""A Service with an address of its own on real clusters: who reaches it, whoever is dead, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import aiohttp
import pytest

from haneul.app.demo import balance_workload, deploy_workload, kill_masters, workload_service
from haneul.app.installation import Installation
from haneul.chaos.prober import Prober, any_of, at
from haneul.cli.context import Contexts
from haneul.host.ownership import all_processes
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import PODS, SERVICES, KubeClient
from haneul.kernel.waiting import wait_for
from tests.e2e.names import reaches, until_resolved
from tests.e2e.tenants import PROJECT, connect, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
NAME = "balanced"


@pytest.fixture
async def balanced(project: str) -> AsyncIterator[str]:
    """A cluster with one node and three replicas of a workload; the address outside at which these answer."""
    await asyncio.to_thread(haneul, "cluster", "create", NAME, "--memory", "1024", "-p", project)
    try:
        with Contexts.default().client() as client:
            await deploy_workload(client, NAME, CLOCK, project=PROJECT)
            yield await balance_workload(client, NAME, CLOCK, project=PROJECT)
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", project, check=False)


async def said(address: str) -> str:
    """Return which pod answers at an address, or nothing; each question is a connection of its own."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"http://{address}/hostname") as answer,
        ):
            return await answer.text() if answer.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError):
        return ""


async def until_answers(address: str, *, replicas: int = 1) -> None:
    pods: set[str] = set()

    async def enough() -> bool:
        pods.add(await said(address))
        return len(pods - {""}) >= replicas

    await wait_for(enough, what=f"{replicas} replicas to answer at {address}", timeout=60, clock=CLOCK, interval=0.02)


async def until_silent(address: str) -> None:
    async def nobody() -> bool:
        return not await said(address)

    await wait_for(nobody, what=f"nobody to answer at {address}", timeout=60, clock=CLOCK)


async def address_of(kube: KubeClient, name: str) -> str:
    """Return the address that a Service was given, once it has one."""

    async def given() -> str:
        seen = await kube.get(SERVICES, name, "default") or {}
        ingress = (seen.get("status", {}).get("loadBalancer") or {}).get("ingress") or [{}]
        return str(ingress[0].get("ip", ""))

    return await wait_for(given, what=f"the Service {name} to get an address", timeout=60, clock=CLOCK)


def rows() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(haneul("balancer", "list", "-o", "json").stdout)
    return [row for row in found if row["owner"].startswith(f"{PROJECT}/{NAME}/")]


def worker() -> int:
    """Return the process that runs all clusters' controllers."""
    (found,) = [
        process.pid
        for process in all_processes().values()
        if "haneul.app.main" in process.arguments and process.arguments[-3:-1] == ("serve", "balancer")
    ]
    return found


async def test_an_address_outlives_masters_and_worker_and_ends_with_its_service_and_cluster(
    balanced: str, installation: Installation
) -> None:
    domain = f"{NAME}.{PROJECT}.{installation.settings.zone}"
    assert any(ip_address(balanced) in ip_network(one) for one in installation.settings.balancer_networks)
    await until_answers(balanced, replicas=3)
    await until_resolved(installation, f"web.default.lb.{domain}", ("NOERROR", [balanced]))
    assert [row["service"] for row in await asyncio.to_thread(rows)] == ["default/web"]
    await asyncio.to_thread(haneul, "balancer", "check", balanced)

    async with tenant(NAME) as kube, aiohttp.ClientSession() as session:
        async with Prober(clock=CLOCK) as prober:
            ledger = prober.ask("the workload", any_of(session, at(f"http://{balanced}/hostname")))
            before = worker()
            os.kill(before, signal.SIGKILL)
            assert await kill_masters(installation, PROJECT, NAME) >= 4

            async def down() -> bool:
                try:
                    await kube.raw_get("/readyz")
                except HaneulError:
                    return True
                return False

            async def back() -> bool:
                return not await down()

            await wait_for(down, what="the killed API to go", timeout=15, clock=CLOCK, interval=0.02)
            assert await said(balanced)
            await wait_for(back, what="the masters to be back", timeout=90, clock=CLOCK)
        assert ledger.tally().asked > 20
        assert ledger.tally().failed == 0, ledger

        # Whoever goes on after the worker that was killed does what is asked for now.
        second = workload_service("LoadBalancer")
        second["metadata"]["name"] = "second"
        await kube.apply(SERVICES, second)
        other = await address_of(kube, "second")
        assert other != balanced
        await until_answers(other)
        await kube.delete(SERVICES, "second", "default")
        await until_silent(other)
        await until_resolved(installation, f"second.default.lb.{domain}", ("NXDOMAIN", []))
        assert await said(balanced)

    await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", PROJECT)
    await until_silent(balanced)

    async def withdrawn() -> bool:
        return not await asyncio.to_thread(rows)

    await wait_for(withdrawn, what="everything of the cluster to be withdrawn", timeout=60, clock=CLOCK)
    await until_resolved(installation, f"web.default.lb.{domain}", ("NXDOMAIN", []))


async def test_pods_reach_another_cluster_s_address_by_name_also_on_the_other_network(
    shop: str, lab: str, installation: Installation
) -> None:
    with Contexts.default().client() as client:
        pods = {name: await deploy_workload(client, name, CLOCK, project=PROJECT) for name in (shop, lab)}
        addresses = {name: await balance_workload(client, name, CLOCK, project=PROJECT) for name in (shop, lab)}
    for here, there in ((shop, lab), (lab, shop)):
        for target in (addresses[there], f"web.default.lb.{there}.{PROJECT}.{installation.settings.zone}"):

            async def reached(pod: str = pods[here], target: str = target) -> bool:
                return await reaches(pod, target)

            await wait_for(reached, what=f"a pod of {here} to reach {target}", timeout=60, clock=CLOCK)
    address = addresses[lab]
    # The host's own programs, such as its kubelet, are at none of these addresses.
    async with tenant(shop) as kube:
        name = next(one["metadata"]["name"] for one in await kube.list(PODS, "default"))
    status, output = await connect(installation, shop, name, f"{address}:10250", seconds=3)
    assert status != 0, output
    # What is no load balancer's any more has no address.
    for name in (shop, lab):
        async with tenant(name) as kube:
            await kube.apply(SERVICES, workload_service())
            await until_silent(addresses[name])
