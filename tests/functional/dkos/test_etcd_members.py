"""Real etcd members come and go while somebody writes: what was acknowledged is there in the end.

The management cluster is in memory; beside it stands what a kubelet and a controller of StatefulSets would do, with
etcd processes on loopback addresses, made from exactly what is rendered, certificates included.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import random
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from haneul.app.installation import component_store
from haneul.dkos import credentials
from haneul.dkos.adapters import etcd_http
from haneul.dkos.adapters.etcd_http import HttpEtcdMembers
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import decode, etcd_access
from haneul.dkos.etcd_changing import PATIENCE, MemberChanger, gateways
from haneul.dkos.etcd_members import template_digest
from haneul.dkos.etcd_port import EtcdAccess
from haneul.dkos.etcd_slots import component_name, member_name
from haneul.dkos.events import Event
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import Cluster, ClusterSpec, Network
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import (
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Manifest,
    Resource,
)
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import LeafProfile
from haneul.kernel.waiting import wait_for
from tests.processes import end_all

DEADLINE = 240.0
CLOCK = SystemClock()
EVERYWHERE = str(ipaddress.IPv4Address(0))
Writes = Callable[[], Awaitable[Any]]


def program(name: str) -> str:
    try:
        return str(component_store().program(name))
    except HaneulError as error:
        pytest.skip(f"{error.detail}: 'haneul components build etcd'")


class Killed(Exception):  # noqa: N818 - an event, not an error
    """The changer's process ends here."""


class MortalClient(MemoryKubeClient):
    """Ends its process at chosen writes of the changer: before them, or right after."""

    deaths: random.Random | None = None

    async def _mortal(self, write: Writes) -> Any:
        fate = self.deaths.choice(["before", "after", *[""] * 14]) if self.deaths else ""
        if fate == "before":
            raise Killed
        result = await write()
        if fate == "after":
            raise Killed
        return result

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        def write() -> Awaitable[Any]:
            return MemoryKubeClient.patch(self, resource, name, patch, namespace, subresource=subresource)

        result: Manifest = await (write() if subresource else self._mortal(write))
        return result

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None) -> bool:
        def write() -> Awaitable[Any]:
            return MemoryKubeClient.delete(self, resource, name, namespace, grace=grace)

        return bool(await (write() if resource == PODS else self._mortal(write)))


@dataclass
class Program:
    """One etcd process, and the pod that it stands for."""

    process: subprocess.Popen[bytes]
    template: str
    data: Path
    starts: int = 1
    #: Since when it is not ready.
    silent_since: datetime = field(default_factory=lambda: datetime.now(UTC))


class Host:
    """What makes etcd processes of StatefulSets, and deletes data when a job says so."""

    def __init__(self, client: MemoryKubeClient, folder: Path, namespace: str) -> None:
        self.client = client
        self.folder = folder
        self.namespace = namespace
        self.programs: dict[str, Program] = {}
        self.etcd = program("etcd")

    async def sync(self) -> None:
        sets = {one["metadata"]["name"]: one for one in await self.client.list(STATEFUL_SETS, self.namespace)}
        for name in [name for name in self.programs if not sets.get(name, {}).get("spec", {}).get("replicas")]:
            self.end(name)
            await self.client.delete(PODS, f"{name}-0", self.namespace)
        for name, manifest in sets.items():
            if manifest["spec"]["replicas"]:
                await self._run(name, manifest)
        for job in await self.client.list(JOBS):
            if not job.get("status"):
                target = job["spec"]["template"]["spec"]["containers"][0]["args"][-1].removeprefix("/clusters/")
                shutil.rmtree(self.folder / target, ignore_errors=True)
                metadata, status = job["metadata"], {"status": {"succeeded": 1}}
                await self.client.patch(JOBS, metadata["name"], status, metadata["namespace"], subresource="status")
        for deployment in await self.client.list(DEPLOYMENTS, self.namespace):
            await self._roll_out(deployment)

    def end(self, name: str, *, kill: bool = False) -> None:
        process = self.programs.pop(name).process
        if kill:
            process.kill()
            process.wait(60)
        else:
            end_all(process)

    def close(self) -> None:
        for name in list(self.programs):
            self.end(name, kill=True)

    async def _run(self, name: str, manifest: Manifest) -> None:
        template, running = template_digest(manifest), self.programs.get(name)
        if running is not None and running.template != template:
            await asyncio.to_thread(self.end, name)
            running = None
        if running is None:
            self.programs[name] = await self._start(name, manifest, template)
        elif running.process.poll() is not None:
            again = await self._start(name, manifest, template)
            self.programs[name] = replace(again, starts=running.starts + 1, silent_since=running.silent_since)
        address = await self.address(name)
        started, ready = await asyncio.gather(_answers(address, "livez"), _answers(address, "readyz"))
        now = self.programs[name]
        now.silent_since = datetime.now(UTC) if ready else now.silent_since
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": now.silent_since.isoformat()}
        pod = {"metadata": {"name": f"{name}-0", "namespace": self.namespace}}
        pod["metadata"]["labels"] = manifest["spec"]["template"]["metadata"]["labels"]
        await self.client.apply(PODS, pod)
        status = {"conditions": [condition], "containerStatuses": [{"started": started}], "podIP": address}
        await self.client.patch(PODS, f"{name}-0", {"status": status}, self.namespace, subresource="status")
        seen = {"observedGeneration": manifest["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1}
        seen |= {"readyReplicas": int(ready)}
        await self.client.patch(STATEFUL_SETS, name, {"status": seen}, self.namespace, subresource="status")

    async def _start(self, name: str, manifest: Manifest, template: str) -> Program:
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        address = await self.address(name)
        keys, data = self.folder / f"pki-{name}", self.folder / container["volumeMounts"][1]["subPath"]
        for folder in (keys, data):
            folder.mkdir(parents=True, exist_ok=True)
        for file, content in decode(await self.client.get(SECRETS, name, self.namespace) or {}).items():
            (keys / file).write_bytes(content)
        arguments = [
            argument.replace("/etc/haneul/pki", str(keys)).replace("=/data/", f"={data}/").replace(EVERYWHERE, address)
            for argument in container["args"]
        ]
        return Program(self._execute(name, arguments), template, data)

    def _execute(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            # What was written survives the end of a process, which is all that happens here.
            options = ("--logger=zap", "--unsafe-no-fsync")
            return subprocess.Popen([self.etcd, *arguments, *options], stdout=log, stderr=log)

    async def address(self, name: str) -> str:
        for service in await self.client.list(SERVICES, self.namespace):
            if service["spec"]["selector"].get("statefulset.kubernetes.io/pod-name") == f"{name}-0":
                return str(service["spec"]["clusterIP"])
        raise AssertionError(f"{name} has no service")

    async def _roll_out(self, deployment: Manifest) -> None:
        name, wanted = deployment["metadata"]["name"], deployment["spec"]["replicas"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        for number in range(4):
            where = {"name": f"{name}-{number}", "namespace": self.namespace, "labels": labels}
            if number < wanted:
                await self.client.apply(PODS, {"metadata": where})
            else:
                await self.client.delete(PODS, where["name"], self.namespace)
        seen = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), wanted)
        seen |= {"observedGeneration": deployment["metadata"]["generation"]}
        await self.client.patch(DEPLOYMENTS, name, {"status": seen}, self.namespace, subresource="status")


async def _answers(address: str, path: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=1)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{address}:2381/{path}") as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


class Client(HttpEtcdMembers):
    """A client as API servers are one: it uses the members that it is told of, and tries another when one fails."""

    async def put(self, key: str, value: str) -> None:
        await self._ask("kv/put", {"key": _encoded(key), "value": _encoded(value)})

    async def all(self) -> dict[str, str]:
        found = await self._ask("kv/range", {"key": _encoded("/"), "range_end": _encoded("0")})
        return {_decoded(entry["key"]): _decoded(entry["value"]) for entry in found.get("kvs", [])}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


@dataclass
class Lab:
    """A cluster's etcd, what changes it and who writes to it."""

    client: MortalClient
    host: Host
    cluster: Cluster
    told: list[Event] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    made: MadeMasters | None = None

    def want(self, masters: int) -> None:
        spec = self.cluster.spec.model_copy(update={"masters": masters})
        self.cluster = self.cluster.model_copy(update={"spec": spec})

    def changer(self, connect: Any = HttpEtcdMembers) -> tuple[Masters, MemberChanger]:
        """Return what a new process would have: nothing remembered."""
        images = Images(*["image"] * 7)
        masters = Masters(self.client, images=images, outside_address="127.0.0.1", data="/data", clock=CLOCK)
        changer = MemberChanger(self.client, masters, connect=connect, toolbox="toolbox", data="/data", clock=CLOCK)
        return masters, changer

    async def look(self, masters: Masters, changer: MemberChanger) -> str:
        made = self.made = await masters.ensure(self.cluster)
        seen = await masters.observe(self.cluster)
        words = await changer.look(self.cluster, made, seen, lambda _, event: self.told.append(event))
        etcd = next(master for master in seen if master.role == "etcd")
        return words or etcd.message

    async def settle(self, *, mortal: random.Random | None = None) -> None:
        """Look until all is as wanted; with ``mortal``, whoever looks is killed again and again."""
        processes = self.changer()
        last = ""

        async def settled() -> bool:
            nonlocal processes, last
            self.client.deaths = mortal
            try:
                last = await self.look(*processes)
            except Killed:
                processes = self.changer(_mortal_connection(mortal))
                return False
            except HaneulError as error:
                last = str(error)
                return False
            finally:
                self.client.deaths = None
                await self.host.sync()
            return not last and not self.processes_differ()

        try:
            await wait_for(settled, what="the members", timeout=DEADLINE, clock=CLOCK, interval=0.05, max_interval=0.05)
        except HaneulError as error:
            logs = [path.read_text()[-1500:] for path in self.host.folder.glob("*.log")]
            raise AssertionError(f"{error}: {last}\n" + "\n\n".join(logs)) from error

    def processes_differ(self) -> bool:
        return len(self.host.programs) != self.cluster.spec.masters

    def access(self) -> EtcdAccess:
        assert self.made is not None
        return etcd_access(self.made.keyring, gateways(self.made), datetime.now(UTC))

    @contextlib.asynccontextmanager
    async def writer(self) -> AsyncIterator[None]:
        """Write one after the other, to the members that are known by then; what is acknowledged is kept in mind."""
        done = asyncio.Event()

        async def write() -> None:
            number = len(self.acknowledged)
            while not done.is_set():
                made = self.made
                async with Client(self.access()) as client:
                    while self.made is made and not done.is_set():
                        with contextlib.suppress(HaneulError):
                            await client.put(f"/{number:06d}", str(number))
                            self.acknowledged[f"/{number:06d}"] = str(number)
                            number += 1
                        # Others want the processor too.
                        await asyncio.sleep(0.005)

        task = asyncio.create_task(write())
        try:
            yield
        finally:
            done.set()
            await task

    async def check(self) -> None:
        """Every member has all that was ever acknowledged."""
        access = self.access()
        for url in access.urls:
            # What is written meanwhile may come after the answer.
            acknowledged = dict(self.acknowledged)
            async with Client(EtcdAccess((url,), *_keys(access))) as client:
                found = await client.all()
            missing = {key for key, value in acknowledged.items() if found.get(key) != value}
            assert not missing, f"{url} lacks {sorted(missing)[:5]} of {len(acknowledged)}"


def _keys(access: EtcdAccess) -> tuple[bytes, bytes, bytes]:
    return access.authority, access.client_certificate, access.client_key


def _mortal_connection(deaths: random.Random | None) -> Any:
    """Return a connection whose process may end right after etcd was told something."""

    class Mortal(HttpEtcdMembers):
        async def _ask(self, what: str, body: dict[str, Any]) -> Any:
            result = await super()._ask(what, body)
            if deaths and what.startswith("cluster/member/") and not what.endswith("list") and deaths.random() < 0.5:
                raise Killed
            return result

    return Mortal


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    # Pods call from addresses that are in no certificate, as these do: from 127.0.0.1.
    monkeypatch.setattr(
        credentials,
        "_etcd_server",
        lambda address: LeafProfile("etcd", (), (), (address,), server=True, client=True),
    )
    monkeypatch.setattr(etcd_http, "_CONNECT_SECONDS", 1.0)
    network = ipaddress.IPv4Network(f"127.{10 + secrets.randbelow(240)}.{secrets.randbelow(250)}.0/24")
    client = MortalClient(services=network)
    await client.create(NODES, {"metadata": {"name": "host-a"}})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await client.patch(NODES, "host-a", ready, subresource="status")
    await client.create(NAMESPACES, {"metadata": {"name": "haneul-system"}})
    spec = ClusterSpec(network=Network(pods="10.0.64.0/18", services="10.128.16.0/20"))
    cluster = Cluster(project="shop", name="web", uid="uid-of-web", generation=1, created=datetime.now(UTC), spec=spec)
    lab = Lab(client, Host(client, tmp_path, cluster.masters_namespace), cluster)
    try:
        await lab.settle()
        yield lab
    finally:
        lab.host.close()


async def test_members_become_three_and_one_again_under_load(lab: Lab) -> None:
    founder = lab.host.programs["etcd"].process.pid
    async with lab.writer():
        lab.want(3)
        await lab.settle()
        assert set(lab.host.programs) == {component_name(index) for index in range(3)}
        await lab.check()
        kept = lab.host.programs["etcd"].process.pid
        assert kept != founder, "who began alone learns not to be"
        lab.want(1)
        await lab.settle()
    assert set(lab.host.programs) == {"etcd"}
    assert lab.host.programs["etcd"].process.pid == kept, "who stays is not restarted"
    assert len(lab.acknowledged) > 20
    await lab.check()
    folder = lab.host.folder / lab.cluster.uid
    assert [path.name for path in folder.iterdir()] == [member_name(0)], "the others' data is deleted"


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_changer_that_is_killed_between_any_two_steps_is_gone_on_for(lab: Lab, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - when to die is no secret
    async with lab.writer():
        for wanted in (3, 1, 3):
            lab.want(wanted)
            await lab.settle(mortal=chance)
    await lab.check()
    async with HttpEtcdMembers(lab.access()) as etcd:
        found = await etcd.membership()
    assert [one.learner for one in found.members] == [False] * 3


@pytest.mark.parametrize("place", [0, 2])
async def test_a_member_whose_data_is_lost_never_votes_without_and_is_replaced(lab: Lab, place: int) -> None:
    lab.want(3)
    await lab.settle()
    name = component_name(place)
    async with HttpEtcdMembers(lab.access()) as etcd:
        before = {one.id for one in (await etcd.membership()).members}
    async with lab.writer():
        folder = lab.host.programs[name].data
        lab.host.end(name, kill=True)
        shutil.rmtree(folder)

        async def refused() -> bool:
            await lab.host.sync()
            address = await lab.host.address(name)
            assert not await _answers(address, "readyz"), "it serves without its data"
            return lab.host.programs[name].starts > 2

        await wait_for(refused, what="the member to refuse to start", timeout=60, clock=CLOCK, max_interval=0.1)
        lab.host.programs[name].silent_since -= PATIENCE + timedelta(seconds=5)
        await lab.settle()
    async with HttpEtcdMembers(lab.access()) as etcd:
        after = {one.id for one in (await etcd.membership()).members}
    assert len(after) == 3 and len(before & after) == 2
    assert "MemberLost" in {event.reason.value for event in lab.told}
    await lab.check()


async def test_without_a_majority_nothing_is_changed_and_with_it_all_goes_on(lab: Lab) -> None:
    lab.want(3)
    await lab.settle()
    async with lab.writer():

        async def written() -> bool:
            return len(lab.acknowledged) > 5

        await wait_for(written, what="some writes", timeout=60, clock=CLOCK)
    for name in ("etcd-1", "etcd-2"):
        lab.host.end(name, kill=True)
    lab.want(1)
    masters, changer = lab.changer()
    # Nobody starts them meanwhile.
    sets = json.dumps(await lab.client.list(STATEFUL_SETS, lab.cluster.masters_namespace), sort_keys=True)
    for _ in range(2):
        assert "majority" in await lab.look(masters, changer)
    assert json.dumps(await lab.client.list(STATEFUL_SETS, lab.cluster.masters_namespace), sort_keys=True) == sets
    await lab.settle()
    await lab.check()
