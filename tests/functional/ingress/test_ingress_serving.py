"""``haneul ingress serve`` between a real API server and a real nginx, through what may happen to each of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.main import command_tree
from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError
from haneul.kernel.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    GATEWAY_CLASSES,
    GATEWAYS,
    HTTP_ROUTES,
    INGRESSES,
    NAMESPACES,
    KubeApiError,
    KubeClient,
    Manifest,
    resource_of,
)
from haneul.kernel.waiting import wait_for
from haneul.trail.adapters.memory_folder import unmount_memory
from tests.functional import kubernetes
from tests.ingress_proxy import PATIENCE, USER, Application, free_address, program
from tests.pebble import pebble
from tests.support import HANEUL
from tests.unit.ingress.gateway_objects import (
    backend,
    gateway,
    gateway_class,
    http_route,
    listener,
    match,
    prefix,
    redirect,
    rule,
)
from tests.unit.ingress.objects import HOST, endpoint, ingress, ingress_class, path, service, slice_of

PROJECT = Path(__file__).parents[3]


def own_address() -> str:
    """Return an address of this machine that a pod could have: the API takes no loopback addresses for endpoints."""
    with socket.socket(type=socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address besides the loopback interface's")
        return str(asked.getsockname()[0])


class Cluster:
    """An API server, and a controller with its nginx in a folder that workers may enter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "api").mkdir()
        self.api = kubernetes.ApiServer(
            folder / "api", arguments={"disable-admission-plugins": "ServiceAccount"}, files={}
        )
        self.kubeconfig = self.api.kubeconfig()
        self.address, self.port = free_address()
        self.config = self.file(
            "first.yaml",
            {
                "cluster": "first",
                "kubeconfig": str(self.kubeconfig),
                "folder": "nginx",
                "http": [f"{self.address}:{self.port}"],
                "https": [f"{self.address}:{self.port + 1}"],
                "addresses": ["192.0.2.10"],
                "hosts": ["*.example.com"],
                "user": "www-data",
                "program": program(),
                "audit": "audit.yaml",
            },
        )
        self.file("audit.yaml", {"store": "records", "keep": "errors"})
        self.nginx = NginxProcesses(folder / "nginx", program=program(), user=USER, clock=SystemClock())
        self.process: asyncio.subprocess.Process | None = None

    def file(self, name: str, document: Any) -> Path:
        (self.folder / name).write_text(yaml.safe_dump(document))
        return self.folder / name

    async def serve(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(HANEUL), "ingress", "serve", "--config", str(self.config), stdout=log, stderr=log
            )

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    async def close(self) -> None:
        """End whoever serves, and nginx, which would go on; what its requests' records are in is let go."""
        if self.process:
            await self.end(signal.SIGKILL)
        await self.nginx.end()
        await unmount_memory(self.folder / "nginx" / "spool")

    async def app(self, path: str = "/", host: str = HOST) -> str:
        """Return which application answers, or the status."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(
                    f"http://{self.address}:{self.port}{path}", headers={"Host": host}, allow_redirects=False
                ) as answer,
            ):
                return str((await answer.json())["app"]) if answer.status == 200 else str(answer.status)
        except aiohttp.ClientConnectionError as error:
            return type(error).__name__

    async def answers(self, app: str, path: str = "/") -> None:
        async def probe() -> bool:
            return await self.app(path) == app

        await self.until(probe, f"{path} to be answered by {app}")

    async def until(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        log = self.folder / "log"
        hint = log.read_text()[-3000:] if log.exists() else ""
        await wait_for(probe, what=what, timeout=PATIENCE, clock=SystemClock(), interval=0.05, hint=hint)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    program()
    folder = Path(tempfile.mkdtemp(prefix="haneul-ingress-"))
    folder.chmod(0o755)
    try:
        yield Cluster(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh(manifest: Manifest) -> Manifest:
    """Return a manifest for an API that gives ids and moments itself."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in ("uid", "creationTimestamp")}
    spec = {key: value for key, value in manifest.get("spec", {}).items() if value != []}
    return {**manifest, "metadata": metadata, **({"spec": spec} if spec else {})}


async def make(client: KubeClient, *manifests: Manifest) -> None:
    for manifest in manifests:
        await client.apply(resource_of(manifest), fresh(manifest))


async def run(*arguments: str) -> Result:
    """Run a command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, command_tree(), ["ingress", *arguments])


async def logs(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, command_tree(), ["logs", *arguments])


async def test_a_cluster_is_served_whatever_happens(cluster: Cluster) -> None:
    address = own_address()
    async with Application("one").running(address) as one, Application("two").running(address) as two:
        try:
            async with kubernetes.connected(cluster.api) as client:
                await objects_are_served(cluster, client, address, one)
                await it_is_listed_and_checked(cluster)
                await the_controller_is_killed(cluster, client, address, two)
            await the_controller_stands_still(cluster)
            assert await cluster.app() == "two"
            assert await cluster.end() == 0
            assert await cluster.app() == "two"
            await errors_were_kept(cluster)
            assert (await run("stop", "--config", str(cluster.config))).exit_code == 0
            assert await cluster.nginx.master() is None
            assert not (cluster.folder / "nginx" / "spool").is_mount()
        finally:
            await cluster.close()


async def objects_are_served(cluster: Cluster, client: KubeClient, address: str, app: Application) -> None:
    await make(client, {"apiVersion": "v1", "kind": NAMESPACES.kind, "metadata": {"name": "shop"}})
    await make(client, ingress_class(), service(), slice_of("web", endpoint(address), port=app.port))
    await make(client, ingress("web", path("/"), path("/none", service="none")))
    await make(client, ingress("theirs", host="www.example.org"))
    await cluster.serve()
    await cluster.answers("one")
    await cluster.answers("503", "/none")
    assert await cluster.app(host="www.example.org") == "404"

    async def told() -> bool:
        reasons = {(found["regarding"]["name"], found["reason"]) for found in await client.list(EVENTS, "shop")}
        return {("web", "BackendMissing"), ("theirs", "HostRefused")} <= reasons

    await cluster.until(told, "both to be told what is wrong")

    async def status() -> bool:
        found = await client.get(INGRESSES, "web", "shop") or {}
        return bool(found.get("status", {}).get("loadBalancer", {}).get("ingress") == [{"ip": "192.0.2.10"}])

    await cluster.until(status, "the status to be written")


async def it_is_listed_and_checked(cluster: Cluster) -> None:
    config = str(cluster.config)
    done = await run("list", "--config", config, "-o", "json")
    assert done.exit_code == 0, repr(done.exception)
    rows = {row["path"]: row for row in json.loads(done.stdout)}
    assert (rows["/"]["backend"], rows["/"]["endpoints"], rows["/none"]["backend"]) == ("shop/web:http", 1, "")
    done = await run("check", "--config", config, "-o", "json")
    assert isinstance(done.exception, ConflictError)
    assert {row["reason"] for row in json.loads(done.stdout)} == {"BackendMissing", "HostRefused"}


async def the_controller_is_killed(cluster: Cluster, client: KubeClient, address: str, app: Application) -> None:
    master = await cluster.nginx.master()
    await cluster.end(signal.SIGKILL)
    assert await cluster.app() == "one"
    await make(client, slice_of("web", endpoint(address), port=app.port))
    await cluster.serve()
    await cluster.answers("two")
    assert await cluster.nginx.master() == master


def definitions() -> list[Manifest]:
    """Return the definitions of the Gateway API's kinds, of the release that ``components/gateway-api`` pins."""
    listed = subprocess.run(
        ["go", "mod", "download", "-json", "sigs.k8s.io/gateway-api"],
        cwd=PROJECT / "components" / "gateway-api",
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    if listed.returncode:
        pytest.skip(f"the Gateway API's module cannot be had: {listed.stderr}")
    folder = Path(json.loads(listed.stdout)["Dir"]) / "config" / "crd" / "standard"
    names = ("gatewayclasses", "gateways", "httproutes", "referencegrants")
    return [yaml.safe_load((folder / f"gateway.networking.k8s.io_{name}.yaml").read_text()) for name in names]


async def test_routes_are_served_from_when_the_cluster_knows_their_kinds(cluster: Cluster) -> None:
    address = own_address()
    async with Application("one").running(address) as one, kubernetes.connected(cluster.api) as client:
        try:
            await make(client, {"apiVersion": "v1", "kind": NAMESPACES.kind, "metadata": {"name": "shop"}})
            await make(client, ingress_class(), service(), slice_of("web", endpoint(address), port=one.port))
            await make(client, ingress("web"))
            await cluster.serve()
            await cluster.answers("one")
            for definition in definitions():
                await client.apply(CUSTOM_RESOURCE_DEFINITIONS, definition)
            await routes_come(cluster, client)
            await they_are_told(cluster, client)
            await they_go(cluster, client)
        finally:
            await cluster.close()


async def routes_come(cluster: Cluster, client: KubeClient) -> None:
    route = http_route(
        "web",
        rule(match("/api", headers={"X-Is": "it"}), to=["web", backend("none", weight=0)]),
        rule(match("/old"), to=[], filters=[redirect(path=prefix("/new"), statusCode=301)]),
        hosts=["routes.example.com"],
    )
    objects = [gateway_class(), gateway("web", listener("http", "*.example.com"), listener("odd", port=81)), route]

    async def taken() -> bool:
        try:
            await make(client, *objects)
        except KubeApiError as error:
            # The API server takes a moment to know what it was just told.
            assert error.status == 404, error.detail
            return False
        return True

    await cluster.until(taken, "the objects to be taken")

    async def served() -> bool:
        return await cluster.app("/old/x", host="routes.example.com") == "301"

    await cluster.until(served, "the route to be served")
    assert await cluster.app("/api", host="routes.example.com") == "404"
    assert await cluster.app() == "one"


async def they_are_told(cluster: Cluster, client: KubeClient) -> None:
    async def told() -> bool:
        found = await client.get(HTTP_ROUTES, "web", "shop") or {}
        parents = found.get("status", {}).get("parents") or [{}]
        said = {one["type"]: (one["status"], one["reason"]) for one in parents[0].get("conditions", [])}
        return said == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "BackendNotFound")}

    await cluster.until(told, "the route to be told")

    async def programmed() -> bool:
        found = await client.get(GATEWAYS, "web", "shop") or {}
        status = found.get("status", {})
        listeners = {
            one["name"]: (one["attachedRoutes"], *(entry["status"] for entry in one["conditions"]))
            for one in status.get("listeners", [])
        }
        return bool(
            status.get("addresses") == [{"type": "IPAddress", "value": "192.0.2.10"}]
            and listeners
            == {"http": (1, "True", "True", "True", "False"), "odd": (0, "False", "False", "True", "False")}
        )

    await cluster.until(programmed, "the Gateway to be told")
    found = await client.get(GATEWAY_CLASSES, "haneul") or {}
    [condition] = found["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Accepted", "True")
    done = await run("list", "--config", str(cluster.config), "-o", "json")
    assert done.exit_code == 0, repr(done.exception)
    rows = {(row["kind"], row["path"]) for row in json.loads(done.stdout)}
    assert rows == {("Ingress", "/"), ("HTTPRoute", "/api"), ("HTTPRoute", "/old")}


async def they_go(cluster: Cluster, client: KubeClient) -> None:
    await client.delete(GATEWAYS, "web", "shop")

    async def forgotten() -> bool:
        found = await client.get(HTTP_ROUTES, "web", "shop") or {}
        return bool(found.get("status", {}).get("parents") == [])

    await cluster.until(forgotten, "the route's status to be cleared")

    async def closed() -> bool:
        return await cluster.app("/old/x", host="routes.example.com") == "404"

    await cluster.until(closed, "the route to go")
    assert await cluster.app() == "one"


async def the_controller_stands_still(cluster: Cluster) -> None:
    """nginx waits for nobody who reads what was seen; whoever reads on later has it all the same."""
    assert cluster.process
    cluster.process.send_signal(signal.SIGSTOP)
    for number in range(20):
        assert await cluster.app(f"/still/{number}") == "two"
    assert await cluster.app("/none") == "503"
    cluster.process.send_signal(signal.SIGCONT)

    async def remembered() -> bool:
        done = await logs("ingress", "first", "--config", str(cluster.config), "-o", "json")
        paths = {record["request"]["uri"] for record in json.loads(done.stdout)} if done.exit_code == 0 else set()
        return {"/none", *(f"/still/{number}" for number in range(20))} <= paths

    await cluster.until(remembered, "requests to be remembered")


async def errors_were_kept(cluster: Cluster) -> None:
    done = await logs("search", "first", "--config", str(cluster.config), "-o", "json")
    assert done.exit_code == 0, repr(done.exception)
    assert {(record["request"]["uri"], record["response"]["status"]) for record in json.loads(done.stdout)} == {
        ("/none", 503)
    }


async def test_an_issuer_of_the_file_certifies_hosts(cluster: Cluster) -> None:
    address = own_address()
    folder = cluster.folder / "pebble"
    folder.mkdir()
    async with (
        pebble(folder, address=cluster.address, http_port=cluster.port) as authority,
        Application("one").running(address) as one,
        kubernetes.connected(cluster.api) as client,
    ):
        acme = {"directory": authority.directory, "termsOfServiceAgreed": True, "authorities": str(authority.trust)}
        cluster.file("first.yaml", {**yaml.safe_load(cluster.config.read_text()), "acme": acme})
        (folder / "root.pem").write_bytes(await authority.root())
        context = ssl.create_default_context(cafile=str(folder / "root.pem"))
        try:
            await make(client, {"apiVersion": "v1", "kind": NAMESPACES.kind, "metadata": {"name": "shop"}})
            await make(client, ingress_class(), service(), slice_of("web", endpoint(address), port=one.port))
            await make(client, ingress("web", annotations={"haneul.dev/certificate": "acme"}))
            await cluster.serve()

            async def trusted() -> bool:
                try:
                    _, writer = await asyncio.open_connection(
                        cluster.address, cluster.port + 1, ssl=context, server_hostname=HOST
                    )
                except (ssl.SSLError, ConnectionError):
                    return False
                writer.close()
                return True

            await cluster.until(trusted, "the host to have a certificate that clients trust")
            await cluster.answers("308")
        finally:
            await cluster.close()


async def test_manifests_are_checked_before_they_are_applied(cluster: Cluster) -> None:
    prefix = "nginx.ingress.kubernetes.io/"
    good = ingress("good", annotations={f"{prefix}proxy-body-size": "8m"}, class_name="nginx")
    file = cluster.folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all([{"kind": "List", "items": [good]}, None, service()]))
    done = await run("check", "--config", str(cluster.config), str(file), "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, []), repr(done.exception)
    bad = ingress("bad", annotations={f"{prefix}server-snippet": "}"}, class_name="nginx")
    file.write_text(yaml.safe_dump_all([good, bad]))
    done = await run("check", "--config", str(cluster.config), str(file), "-o", "json")
    assert isinstance(done.exception, ConflictError)
    rows = json.loads(done.stdout)
    assert ("bad", "AnnotationRefused") in {(row["name"], row["reason"]) for row in rows}
    assert any("server-snippet" in row["message"] for row in rows)
