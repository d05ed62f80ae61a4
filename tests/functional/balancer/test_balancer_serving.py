"""``haneul balancer serve`` between a real API server and a real HAProxy, whatever happens to any of the three."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.decisions import BALANCED, NO_MEMBERS, NOT_SUPPORTED, WRONG_SETTING
from haneul.balancer.model import Frontend, Listener, Protocol
from haneul.balancer.verdicts import CONDITION, FINALIZER
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import ENDPOINT_SLICES, EVENTS, NAMESPACES, NODES, SERVICES, KubeClient, Manifest
from haneul.kernel.waiting import wait_for
from tests.balancers import Client, Echo, answered, connected, haproxy, network, short_folder
from tests.functional import kubernetes
from tests.support import HANEUL
from tests.unit.balancer.objects import endpoint, node, port, service, slice_of

DEADLINE = 90.0
MANY = 12


class Health:
    """What a kube-proxy answers for a Service with a local policy: whether its node has a pod."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.server: asyncio.Server | None = None

    async def start(self, number: int) -> None:
        self.server = await asyncio.start_server(self._serve, self.host, number)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()


class Ground:
    """An API server, a HAProxy, two nodes that are addresses of this machine, and what keeps them together."""

    def __init__(self, folder: Path, balancer: HaproxyBalancer) -> None:
        self.folder = folder
        self.balancer = balancer
        (folder / "api").mkdir()
        self.api = kubernetes.ApiServer(
            folder / "api", arguments={"disable-admission-plugins": "ServiceAccount"}, files={}
        )
        self.process: asyncio.subprocess.Process | None = None
        self.nodes = {name: f"{network()}.{number}" for name, number in (("n1", 201), ("n2", 202))}
        self.echoes = {name: Echo(name, host=host) for name, host in self.nodes.items()}
        self.healths = [Health(host) for host in self.nodes.values()]
        self.clients: list[Client] = []
        self.kubeconfig = self.api.kubeconfig()
        pools = [
            {"name": "public", "addresses": [f"{network()}.128-{network()}.190"], "projects": ["shop"]},
            {"name": "others", "addresses": [f"{network()}.191"], "projects": ["other"]},
        ]
        self.settings = self.file(
            "balancer.yaml", {"kind": "haproxy", "folder": str(folder / "b"), "maxConnections": 500, "pools": pools}
        )

    def file(self, name: str, document: Any) -> Path:
        (self.folder / name).write_text(yaml.safe_dump(document))
        return self.folder / name

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run the controller until the end of the block, whoever is there to work with."""
        await self.serve()
        try:
            yield
        finally:
            assert self.process
            if self.process.returncode is None:
                self.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(self.process.wait(), 60) == 0, self.log()[-3000:]

    async def serve(self) -> None:
        command = [str(HANEUL), "balancer", "serve", "--kubeconfig", str(self.kubeconfig), "--cluster", "first"]
        command += ["--project", "shop", "--balancer", str(self.settings), "--members", f"{network()}.0/24"]
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, "--resync-seconds", "2", stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await self.process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""

    async def told(self, client: KubeClient, name: str, reason: str) -> Manifest:
        found: Manifest = {}

        async def seen() -> bool:
            nonlocal found
            found = await client.get(SERVICES, name, "shop") or {}
            conditions = found.get("status", {}).get("conditions", [])
            return any((entry["type"], entry["reason"]) == (CONDITION, reason) for entry in conditions)

        await self.until(seen, f"{name} to be told {reason}")
        return found

    async def is_truth(self, client: KubeClient) -> None:
        """Wait until each Service that is there has an address of its own, which is served; and nothing else is."""

        async def probe() -> bool:
            services = await client.list(SERVICES, "shop")
            places = {
                Listener(entry["ip"], Protocol.TCP, ports["port"]): f"shop/{one['metadata']['name']}"
                for one in services
                for entry in (one["status"].get("loadBalancer") or {}).get("ingress") or []
                for ports in one["spec"]["ports"]
            }
            frontends = {listener: one.service for listener, one in (await self.frontends()).items()}
            return len(places) == len(services) and frontends == places

        await self.until(probe, "the balancer to serve just what there is")

    async def frontends(self) -> dict[Listener, Frontend]:
        return {listener: there.frontend for listener, there in (await self.balancer.read()).items()}

    async def answers(self, listener: Listener, name: str) -> None:
        async def probe() -> bool:
            return await answered(listener.address, listener.port) == name

        await self.until(probe, f"{name} to answer at {listener}")

    async def until(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        await wait_for(probe, what=what, timeout=DEADLINE, clock=SystemClock(), interval=0.05, hint=self.log()[-2000:])

    async def end(self) -> None:
        for client in self.clients:
            client.close()
        for echo in self.echoes.values():
            await echo.end()
        for health in self.healths:
            if health.server:
                health.server.close()


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    with short_folder() as folder:
        async with haproxy(folder) as balancer:
            made = Ground(folder, balancer)
            try:
                yield made
            finally:
                await made.end()


def fresh(manifest: Manifest) -> Manifest:
    """Return a manifest for an API that gives ids and addresses itself."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "uid"}
    return {**{key: value for key, value in manifest.items() if key != "status"}, "metadata": metadata}


async def test_services_are_served_whatever_happens(ground: Ground) -> None:
    async with ground.serving():
        async with kubernetes.connected(ground.api) as client:
            web = await services_come_change_and_go(ground, client)
            await bad_ones_are_told_and_disturb_nobody(ground, client, web)
            await haproxy_is_killed(ground, web)
            await the_controller_is_killed(ground, client)
            before = await ground.frontends()
        await the_api_is_away(ground, web, before)
        await ground.kill()
        await ground.serve()
        await the_api_is_away(ground, web, before)
        async with kubernetes.connected(ground.api) as client:
            await client.delete(SERVICES, "many-0", "shop")
            await ground.is_truth(client)
            assert (await ground.told(client, "web", BALANCED))["status"]["loadBalancer"]["ingress"][0][
                "ip"
            ] == web.address
            await ground.answers(web, "n2")
    # Nobody looks after it any more, and it goes on.
    await ground.answers(web, "n2")


async def services_come_change_and_go(ground: Ground, client: KubeClient) -> Listener:
    await client.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for name, host in ground.nodes.items():
        made = node(name, host)
        status = made.pop("status")
        await client.create(NODES, made)
        await client.patch(NODES, name, {"status": status}, subresource="status")
    await client.create(
        SERVICES,
        fresh(
            service(
                annotations={"health-check-interval": "200ms", "health-check-rise": "1", "drain-time": "1s"},
                externalTrafficPolicy="Local",
            )
        ),
    )
    found = await ground.told(client, "web", NO_MEMBERS)
    assert found["metadata"]["finalizers"] == [FINALIZER]
    [entry] = found["status"]["loadBalancer"]["ingress"]
    assert entry["ip"] == f"{network()}.128"
    web = Listener(entry["ip"], Protocol.TCP, 80)
    for echo, health in zip(ground.echoes.values(), ground.healths, strict=True):
        await echo.start(found["spec"]["ports"][0]["nodePort"])
        await health.start(found["spec"]["healthCheckNodePort"])

    await client.create(ENDPOINT_SLICES, slice_of("web", endpoint("10.1.0.1", "n1", ready=True)))
    await ground.told(client, "web", BALANCED)
    await ground.answers(web, "n1")
    held = await connected(web.address, web.port)
    assert held
    ground.clients.append(held)
    # Its pod begins to end while another one is ready: it leaves, and what it has goes on until it is told off.
    ending = endpoint("10.1.0.1", "n1", ready=False, serving=True, terminating=True)
    await client.apply(ENDPOINT_SLICES, slice_of("web", ending, endpoint("10.1.0.2", "n2", ready=True)))
    await ground.answers(web, "n2")

    async def cut() -> bool:
        return not await held.says("still here")

    await ground.until(cut, "the connection to be cut after its time")
    await client.create(SERVICES, fresh(service("short")))
    await ground.told(client, "short", BALANCED)
    await client.delete(SERVICES, "short", "shop")
    await ground.is_truth(client)
    assert {event["reason"] for event in await client.list(EVENTS, "shop")} >= {NO_MEMBERS, BALANCED}
    return web


async def bad_ones_are_told_and_disturb_nobody(ground: Ground, client: KubeClient, web: Listener) -> None:
    await client.create(SERVICES, fresh(service("wrong", annotations={"algorithm": "fastest"})))
    await client.create(SERVICES, fresh(service("outside", annotations={"address": f"{network()}.191"})))
    both = [port(81), port(53, name="dns", protocol="UDP")]
    await client.create(SERVICES, fresh(service("both", ports=both)))
    assert "algorithm" in str((await ground.told(client, "wrong", WRONG_SETTING))["status"]["conditions"])
    await ground.told(client, "outside", "AddressOutsidePools")
    [entry] = (await ground.told(client, "both", NOT_SUPPORTED))["status"]["loadBalancer"]["ingress"]
    assert [one.get("error", "") for one in entry["ports"]] == ["", f"balancer.haneul.dev/{NOT_SUPPORTED}"]
    await ground.answers(web, "n2")
    assert {one.service for one in (await ground.frontends()).values()} == {"shop/web", "shop/both"}
    for name in ("wrong", "outside", "both"):
        await client.delete(SERVICES, name, "shop")


async def haproxy_is_killed(ground: Ground, web: Listener) -> None:
    """Whoever tends it starts it again, with everything that it had."""
    await ground.balancer.end()
    await ground.answers(web, "n2")


async def the_controller_is_killed(ground: Ground, client: KubeClient) -> None:
    making = asyncio.ensure_future(
        asyncio.gather(*(client.create(SERVICES, fresh(service(f"many-{number}"))) for number in range(MANY)))
    )

    async def some() -> bool:
        return len(await ground.frontends()) > 1

    await ground.until(some, "some of many Services to be served")
    await ground.kill()
    await making
    # Nobody can delete it until its listener is gone, which nobody takes away now.
    await client.delete(SERVICES, "many-1", "shop")
    await ground.serve()
    await ground.is_truth(client)
    assert len(await ground.frontends()) == MANY


async def the_api_is_away(ground: Ground, web: Listener, before: dict[Listener, Frontend]) -> None:
    """The controller says that it holds on, and everything stays."""
    heard = len(ground.log())

    async def waits() -> bool:
        return ground.log()[heard:].count("held up; what is balanced stays") >= 2

    await ground.until(waits, "the controller to say that it holds on")
    assert await ground.frontends() == before
    await ground.answers(web, "n2")
