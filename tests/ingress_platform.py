"""A platform's ingress for tests: a host with its services, one tenant's cluster, and the worker between them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from haneul.app.ingress_hosts import GrantedHosts
from haneul.app.ingress_worker import Ground, IngressWork, place_of
from haneul.app.platform import PlatformAuthority, PlatformFiles
from haneul.app.platform_trail import ClusterTrails
from haneul.app.record_worker import RecordWorker
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.host.supervisord import Supervisord
from haneul.ingress.controller import Pace
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import SERVICES, KubeAccess, KubeClient, Manifest, Resource, resource_of
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import issue_authority
from haneul.management.ingress_host import IngressFiles
from haneul.trail.adapters.memory_folder import unmount_memory
from tests.followed import FollowedCluster
from tests.ingress_proxy import PATIENCE, Application, free_address, program, until

CLOCK = SystemClock()
ZONE = "k8s.example"
HOST = f"web.first.shop.{ZONE}"
PACE = Pace(gather=0.0, between_reloads=0.0, resync=3600.0, look=3600.0, first_backoff=0.05, last_backoff=0.2)
#: Every user of a proxy is of a number that no other test's is, as its address is.
RANGE = "127.0.0.0/8"


class Tenant(FollowedCluster):
    """A cluster whose nodes pass on to one application, whatever port a Service is opened at."""

    port = 0

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        spec = manifest.get("spec") or {}
        if resource == SERVICES and spec.get("type") == "NodePort":
            ports = [{**port, "nodePort": self.port} for port in spec["ports"]]
            manifest = {**manifest, "spec": {**spec, "ports": ports}}
        return await super().apply(resource, manifest, subresource=subresource)

    async def put(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            metadata = {key: value for key, value in manifest["metadata"].items() if key != "uid"}
            await self.apply(resource_of(manifest), {**manifest, "metadata": metadata})


class Platform:
    """A host with its services, one tenant, and the worker between them, which may end and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address, self.port = free_address()
        state = folder / "state"
        self.services = self.manager(begins=True)
        self.files = PlatformFiles(state)
        authority = issue_authority("test platform", now=CLOCK.now())
        state.mkdir(mode=0o700)
        self.files.authority.write_bytes(authority.certificate)
        self.files.authority_key.touch(mode=0o600)
        self.files.authority_key.write_bytes(authority.key)
        self.ground = Ground(IngressFiles(state), RANGE, ZONE, program=program(), ports=(self.port, self.port + 1))
        self.tenant = Tenant()
        self.management = MemoryKubeClient()
        self.record = ClusterRecord(
            "uid-of-first",
            "shop",
            "first",
            f"first.shop.{ZONE}",
            Standing.FOLLOWED,
            KubeAccess("https://first", b"ca", b"crt", b"key"),
            nodes=(),
            address=self.address,
        )
        self.forgotten: list[str] = []
        self.trails = ClusterTrails(self.ground.files, clock=CLOCK, look=0.1)
        self.worker: RecordWorker | None = None

    def manager(self, *, begins: bool) -> Supervisord:
        return Supervisord(
            state=self.folder / "state",
            runtime=self.folder / "run",
            logs=self.folder / "logs",
            clock=CLOCK,
            patience=10,
            begins=begins,
        )

    @property
    def granted(self) -> GrantedHosts:
        return GrantedHosts(self.ground.files.hosts, zone=ZONE)

    @property
    def spool(self) -> Path:
        return place_of(self.record, self.ground).folder / "spool"

    def begin(self) -> RecordWorker:
        work = IngressWork(
            self.ground,
            self.services,
            self.management,
            connect=self.connect,
            authority=PlatformAuthority(self.files),
            clock=CLOCK,
            trails=self.trails,
            pace=PACE,
        )
        self.worker = RecordWorker(work, self, clock=CLOCK)
        return self.worker

    @contextlib.asynccontextmanager
    async def connect(self, access: KubeAccess, _: str) -> AsyncIterator[KubeClient]:
        yield self.tenant

    async def forget(self, uid: str) -> None:
        self.forgotten.append(uid)

    async def tell(self, uid: str, trouble: str) -> None:
        """Nobody is over any budget here."""

    async def pid(self) -> int:
        name = place_of(self.record, self.ground).service.name
        return next((state.pid or 0 for state in await self.services.states() if state.name == name), 0)

    async def asked(self, host: str = HOST, *, secure: bool = True, path: str = "/", trust: Path | None = None) -> str:
        """Return which application answers, or the status, or the error; ``trust`` is for the platform's authority."""
        context = ssl.create_default_context(cafile=str(trust or self.files.authority))
        port = self.port + 1 if secure else self.port
        url = f"http{'s' if secure else ''}://{self.address}:{port}{path}"
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(force_close=True, ssl=context)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(url, headers={"Host": host}, server_hostname=host, allow_redirects=False) as answer,
            ):
                return str((await answer.json())["app"]) if answer.status == 200 else str(answer.status)
        except aiohttp.ClientConnectionError as error:
            return type(error).__name__

    async def answers(self, wanted: str, host: str = HOST, *, secure: bool = True, trust: Path | None = None) -> None:
        async def probe() -> bool:
            return await self.asked(host, secure=secure, trust=trust) == wanted

        await until(probe, f"{host} to be answered by {wanted}")


@contextlib.asynccontextmanager
async def on_a_node_port(app: Application, address: str) -> AsyncIterator[int]:
    """Run an application at a port that an API server could give; where one is taken, at another."""
    async with contextlib.AsyncExitStack() as stack:
        for number in random.sample(range(30000, 32768), 20):
            with contextlib.suppress(OSError):
                await stack.enter_async_context(app.running(address, port=number))
                break
        else:
            pytest.fail("no port for a node is free")
        yield number


@contextlib.asynccontextmanager
async def a_platform() -> AsyncIterator[Platform]:
    """Yield a platform that ends with the block, with all that it started."""
    program()
    if os.geteuid() != 0:
        pytest.skip("proxies get users of their own from root")
    folder = Path(tempfile.mkdtemp(prefix="haneul-"))
    made = Platform(folder)
    try:
        yield made
    finally:
        if made.worker:
            await made.worker.close()
        await made.trails.close()
        for state in await made.services.states():
            await made.services.remove(state.name)
        await made.services.shut_down()
        await unmount_memory(made.spool)
        shutil.rmtree(folder)
