"""The ingress of clusters on this host: an nginx for each, without rights, kept running whoever is gone."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from haneul.app.ingress_hosts import GrantedHosts
from haneul.app.ingress_worker import Ground, HostKeeper, IngressWork, PlatformAuthority, grantee, place_of
from haneul.app.platform import PlatformFiles
from haneul.app.record_worker import RecordWorker
from haneul.dkos.address_claims import given_address
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.readers import INGRESS
from haneul.host.processes import command_line
from haneul.host.supervisord import Supervisord
from haneul.ingress.controller import Pace
from haneul.ingress.reach import OPENING_LABEL
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    CONFIG_MAPS,
    INGRESSES,
    NAMESPACES,
    SERVICES,
    KubeAccess,
    KubeClient,
    Manifest,
    Resource,
    resource_of,
)
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import issue_authority
from haneul.management.ingress_host import IngressFiles
from tests.followed import FollowedCluster
from tests.ingress_proxy import PATIENCE, Application, free_address, program, until
from tests.unit.ingress.objects import endpoint, ingress, ingress_class, service, slice_of

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

    def begin(self) -> RecordWorker:
        work = IngressWork(
            self.ground,
            self.services,
            self.management,
            connect=self.connect,
            authority=PlatformAuthority(self.files),
            clock=CLOCK,
            pace=PACE,
        )
        self.worker = RecordWorker(work, self, clock=CLOCK)
        return self.worker

    @contextlib.asynccontextmanager
    async def connect(self, access: KubeAccess) -> AsyncIterator[KubeClient]:
        yield self.tenant

    async def forget(self, uid: str) -> None:
        self.forgotten.append(uid)

    async def tell(self, uid: str, trouble: str) -> None:
        """Nobody is over any budget here."""

    async def pid(self) -> int:
        name = place_of(self.record, self.ground).service.name
        return next((state.pid or 0 for state in await self.services.states() if state.name == name), 0)

    async def asked(self, host: str = HOST, *, secure: bool = True) -> str:
        """Return which application answers, or the status, or the error."""
        context = ssl.create_default_context(cafile=str(self.files.authority))
        port = self.port + 1 if secure else self.port
        url = f"http{'s' if secure else ''}://{self.address}:{port}/"
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

    async def answers(self, wanted: str, host: str = HOST, *, secure: bool = True) -> None:
        async def probe() -> bool:
            return await self.asked(host, secure=secure) == wanted

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


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
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
        for state in await made.services.states():
            await made.services.remove(state.name)
        await made.services.shut_down()
        shutil.rmtree(folder)


async def test_a_cluster_is_served_by_an_nginx_without_rights_until_it_is_deleted(platform: Platform) -> None:
    tenant, node = platform.tenant, free_address()[0]
    await tenant.with_namespaces()
    await tenant.put(ingress_class("haneul", default=True))
    async with on_a_node_port(Application("one"), node) as tenant.port:
        platform.record = replace(platform.record, nodes=(node,))
        await platform.begin().know(platform.record)
        await nothing_runs_for_nothing(platform)
        await tenant.put(service(selector={"app": "web"}), slice_of("web", endpoint("10.0.0.1")))
        await tenant.put(ingress("web", host=HOST, class_name=None), ingress("theirs", host="www.example.org"))
        await platform.answers("one")
        await platform.answers("308", secure=False)
        await platform.answers("404", host="www.example.org", secure=False)
        await it_has_no_rights(platform)
        await it_comes_back_alone(platform)
        await hosts_are_granted(platform)
        await a_killed_supervisor_takes_nothing_with_it(platform)
        await it_rests_and_ends(platform)


async def nothing_runs_for_nothing(platform: Platform) -> None:
    async def looked_at() -> bool:
        return platform.tenant.looks >= 1

    await until(looked_at, "the cluster to be looked at")
    assert await platform.pid() == 0


async def it_has_no_rights(platform: Platform) -> None:
    place = place_of(platform.record, platform.ground)
    status = Path(f"/proc/{await platform.pid()}/status").read_text()
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
    assert set(fields["Uid"]) == set(fields["Gid"]) == {str(place.user)}
    assert {int(fields[name][0], 16) for name in ("CapPrm", "CapBnd", "CapAmb")} == {1 << 10}
    assert fields["NoNewPrivs"] == ["1"]
    theirs = [path for path in place.folder.rglob("*") if path.stat().st_uid == place.user]
    assert {path.relative_to(place.folder).parts[0] for path in theirs} == {"run"}
    assert {path.stat().st_mode & 0o007 for path in (place.folder, *place.folder.glob("private/*"))} == {0}


async def it_comes_back_alone(platform: Platform) -> None:
    """Neither whoever tells it what to serve nor the cluster is needed for that."""
    assert platform.worker
    await platform.worker.close()
    platform.tenant.away = True
    assert await platform.asked() == "one"
    before = await platform.pid()
    os.kill(before, signal.SIGKILL)

    async def another() -> bool:
        return await platform.pid() not in (0, before)

    await until(another, "nginx to be started again")
    await platform.answers("one")
    platform.tenant.away = False
    await platform.begin().know(platform.record)


async def hosts_are_granted(platform: Platform) -> None:
    work = IngressWork(
        platform.ground,
        platform.services,
        platform.management,
        connect=platform.connect,
        authority=PlatformAuthority(platform.files),
        clock=CLOCK,
    )
    work.granted.grant("www.example.org", grantee(platform.record))
    # Whoever begins anew knows of it at once; one that works looks at grants now and then.
    assert platform.worker
    await platform.worker.close()
    await platform.begin().know(platform.record)
    await platform.answers("one", host="www.example.org")


async def a_killed_supervisor_takes_nothing_with_it(platform: Platform) -> None:
    """The worker, a host service itself, neither starts it nor ends anything; `down` then finds nginx."""
    assert platform.worker
    before = await platform.pid()
    supervisor = int((platform.folder / "run/supervisor.pid").read_text())
    await platform.worker.close()
    os.kill(supervisor, signal.SIGKILL)

    async def gone() -> bool:
        return command_line(supervisor) == ()

    await until(gone, "supervisord to be gone")
    keeper = HostKeeper(platform.manager(begins=False), place_of(platform.record, platform.ground).service)
    with pytest.raises(UnavailableError, match="supervisord does not answer"):
        await keeper.resume()
    assert await platform.asked() == "one"
    await platform.services.shut_down()
    assert command_line(before) == ()
    assert await platform.asked() != "one"
    await platform.begin().know(platform.record)
    await platform.answers("one")


async def it_rests_and_ends(platform: Platform) -> None:
    assert platform.worker
    asleep = replace(platform.record, standing=Standing.ASLEEP, nodes=())
    await platform.worker.know(asleep)
    await platform.answers("503")
    # After a `down` and an `up`, neither of which asks what sleeps.
    await platform.worker.close()
    await platform.services.stop(place_of(platform.record, platform.ground).service.name)
    assert await platform.pid() == 0
    await platform.begin().know(asleep)
    await platform.answers("503")
    assert platform.worker
    await platform.worker.know(platform.record)
    await platform.answers("one")
    ours = await platform.tenant.list(SERVICES, labels=OPENING_LABEL)
    await platform.tenant.delete(INGRESSES, "web", "shop")
    await platform.tenant.delete(INGRESSES, "theirs", "shop")
    assert len(ours) == 1

    async def closed() -> bool:
        return not await platform.tenant.list(SERVICES, labels=OPENING_LABEL) and await platform.pid() == 0

    await until(closed, "the opening and nginx to go")
    await platform.management.apply(NAMESPACES, {"metadata": {"name": INGRESS.name}})
    address = await given_address(platform.management, replace(INGRESS, addresses="10.198.0.0/28"), "uid-of-first")
    assert address == "10.198.0.1"
    await platform.worker.know(replace(platform.record, standing=Standing.DELETED, access=None, nodes=()))

    async def forgotten() -> bool:
        return platform.forgotten == ["uid-of-first"]

    await until(forgotten, "the record to go")
    assert not place_of(platform.record, platform.ground).folder.exists()
    assert await platform.management.list(CONFIG_MAPS, INGRESS.name) == []
    # Nobody has what it was granted, whoever gets its name.
    assert GrantedHosts(platform.ground.files.hosts, zone=platform.ground.zone).all() == {}
