"""A cluster's control loop against API servers in memory: it converges, rests, and is continued after any end.

The management API here has one thing more than memory: programs start, that is, each Deployment and StatefulSet of a
cluster has a ready pod. The tenant's API has nodes that join when their machines run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haneul.app.benchmark_checks import ClusterExaminer
from haneul.app.firewall_gate import FirewallJoinGate
from haneul.compliance.adapters.memory_looks import MemoryLooks
from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.adapters.memory_etcd import MemoryEtcd
from haneul.dkos.adapters.memory_nodes import MemoryNodes
from haneul.dkos.backup.record import NAMESPACE as BACKUP_NAMESPACE
from haneul.dkos.backup.recording import BackupRecords
from haneul.dkos.cluster_records import ClusterRecords
from haneul.dkos.control_plane import Images, labels
from haneul.dkos.controller import ClusterController, new_bootstrap_token
from haneul.dkos.credentials import decode
from haneul.dkos.door import WAKER_NAMESPACE, Door, Wakers
from haneul.dkos.etcd_changing import MemberChanger
from haneul.dkos.events import Event
from haneul.dkos.keyring import Keyring, keyring_from
from haneul.dkos.masters import Masters
from haneul.dkos.model import (
    CLUSTERS,
    EXAMINATION_MARK,
    BackupStatus,
    Cluster,
    ClusterStatus,
    ConditionType,
    NodePool,
    NodeProviderName,
    Phase,
    RestoreRequest,
    cluster_from_resource,
    project_namespace,
)
from haneul.dkos.naming import Naming
from haneul.dkos.node_changes import DRAIN_LIFE
from haneul.dkos.ports import NodeAnnouncement
from haneul.dkos.readers import Reader
from haneul.dkos.restore_jobs import RestoreSettings, restore_job
from haneul.dkos.rotation import Step
from haneul.dkos.states import waits_on
from haneul.dkos.teardown import tear_down
from haneul.dkos.turns import Turns
from haneul.firewall.adapters.memory import MemoryApprovals, MemoryFirewall
from haneul.firewall.gatekeeper import Gatekeeper
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.errors import DeadlineExceededError, UnavailableError
from haneul.kernel.kube import (
    CERTIFICATE_REQUESTS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    LEASES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    KubeAccess,
    KubeApiError,
    KubeClient,
    Manifest,
    Resource,
    WatchEvent,
)
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.waiting import wait_for

KINDS: tuple[Resource, ...] = (NAMESPACES, NODES, PODS, SECRETS, SERVICES, CONFIG_MAPS, PERSISTENT_VOLUMES, JOBS)
KINDS += (PERSISTENT_VOLUME_CLAIMS, DEPLOYMENTS, STATEFUL_SETS, NETWORK_POLICIES, ROLES, ROLE_BINDINGS)
KINDS += (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, LEASES, CERTIFICATE_REQUESTS, CLUSTERS, ENDPOINT_SLICES)
READY = {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"state": {"running": {}}}]}
STARTED = {**READY, "containerStatuses": [{"started": True, "state": {"running": {}}}]}


class Calls:
    """Counts calls to APIs and can hold the n-th for ever, as for a process that is ended there."""

    def __init__(self) -> None:
        self.count = 0
        self.hold_at = 0
        self.held = asyncio.Event()
        #: What happens before each call, which is told its number.
        self.before: Callable[[int], Awaitable[None]] | None = None

    async def pass_through(self) -> None:
        self.count += 1
        if self.before is not None:
            await self.before(self.count)
        if self.hold_at and self.count >= self.hold_at:
            self.held.set()
            await asyncio.Event().wait()

    async def end(self, work: Awaitable[Any]) -> bool:
        """Do work until the call that is held, and end it there as a kill does; say whether it was through before."""
        task, held = asyncio.ensure_future(work), asyncio.create_task(self.held.wait())
        await asyncio.wait((task, held), return_when=asyncio.FIRST_COMPLETED)
        through = task.done()
        task.cancel()
        held.cancel()
        await asyncio.gather(task, held, return_exceptions=True)
        return through


class Wire:
    """A Kubernetes client through which every call is counted and which can be cut."""

    def __init__(self, api: MemoryKubeClient, calls: Calls) -> None:
        self._api = api
        self._calls = calls
        self.cut = False
        self.starting = False
        #: How often it was asked whether it is ready.
        self.asked = 0

    async def __aenter__(self) -> KubeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def _ready(self) -> None:
        if self.cut:
            raise UnavailableError("the Kubernetes API does not answer: connection refused")
        await self._calls.pass_through()

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        await self._ready()
        return await self._api.get(resource, name, namespace)

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        await self._ready()
        return await self._api.list(resource, namespace, labels=labels, fields=fields)

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        await self._ready()
        return await self._api.apply(resource, manifest, subresource=subresource)

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        await self._ready()
        return await self._api.create(resource, manifest, subresource=subresource)

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        await self._ready()
        return await self._api.patch(resource, name, patch, namespace, subresource=subresource)

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None) -> bool:
        await self._ready()
        return await self._api.delete(resource, name, namespace, grace=grace)

    def watch(self, resource: Resource, namespace: str = "", *, labels: str = "") -> AsyncIterator[WatchEvent]:
        return self._api.watch(resource, namespace, labels=labels)

    async def raw_get(self, path: str) -> str:
        self.asked += 1
        await self._ready()
        if self.starting:
            raise KubeApiError("not yet", status=500, reason="InternalError")
        return await self._api.raw_get(path)


@dataclass
class World:
    """Everything outside the controller: two API servers, machines and time."""

    images: Images
    clock: VirtualClock
    management: MemoryKubeClient = field(init=False)
    tenant: MemoryKubeClient = field(init=False)
    nodes: MemoryNodes = field(init=False)
    metal: MemoryNodes = field(init=False)
    calls: Calls = field(default_factory=Calls)
    told: list[Event] = field(default_factory=list)
    wakers: Wakers = field(default_factory=Wakers)
    wire: Wire = field(init=False)
    #: Of the controller that was started last.
    management_wire: Wire = field(init=False)
    turns: Turns = field(default_factory=Turns)
    etcd: MemoryEtcd = field(default_factory=MemoryEtcd)
    approvals: MemoryApprovals = field(default_factory=MemoryApprovals)
    firewall: MemoryFirewall = field(default_factory=MemoryFirewall)
    examinations: MemoryLooks = field(default_factory=MemoryLooks)
    backups: dict[str, BackupStatus] = field(default_factory=dict)
    naming: Naming | None = None
    readers: tuple[Reader, ...] = ()

    def __post_init__(self) -> None:
        self.management = MemoryKubeClient(clock=self.clock)
        self.tenant = MemoryKubeClient(clock=self.clock)
        self.nodes = MemoryNodes(self.clock)
        self.metal = MemoryNodes(self.clock)
        self.wire = Wire(self.tenant, self.calls)

    async def ask(self, cluster: Cluster) -> None:
        """Bring the cluster's resource into the management cluster, with all that is there before it."""
        for name in (
            project_namespace(cluster.project),
            "haneul-system",
            WAKER_NAMESPACE,
            BACKUP_NAMESPACE,
            *(reader.name for reader in self.readers),
        ):
            await self.management.apply(NAMESPACES, {"metadata": {"name": name}})
        await self.management.apply(NODES, {"metadata": {"name": "host-a"}})
        await self.management.patch(NODES, "host-a", {"status": {"capacity": {"cpu": "1"}}}, subresource="status")
        metadata = {"name": cluster.name, "namespace": project_namespace(cluster.project)}
        spec = cluster.spec.model_dump(mode="json", by_alias=True)
        await self.management.apply(CLUSTERS, {"metadata": metadata, "spec": spec})

    async def cluster(self, like: Cluster) -> Cluster:
        """Return the cluster as it is stored now."""
        stored = await self.management.get(CLUSTERS, like.name, project_namespace(like.project))
        assert stored is not None
        return cluster_from_resource(stored)

    @contextlib.asynccontextmanager
    async def controller(self) -> AsyncIterator[ClusterController]:
        """Start a controller that remembers nothing."""
        management = self.management_wire = Wire(self.management, self.calls)

        def connect(_: KubeAccess) -> Wire:
            return self.wire

        masters = Masters(
            management,
            images=self.images,
            outside_address="192.0.2.10",
            data="/data",
            clock=self.clock,
            naming=self.naming,
        )
        controller = ClusterController(
            management=management,
            masters=masters,
            members=MemberChanger(
                management,
                masters,
                connect=self.etcd.connect,
                toolbox=self.images.toolbox,
                data="/data",
                clock=self.clock,
            ),
            providers={NodeProviderName.SANDBOX: self.nodes, NodeProviderName.SSH: self.metal},
            door=Door(management, self.wakers),
            specs=KubeClusters(management, clock=self.clock),
            connect=connect,
            pause_image="haneul.local/pause:v1",
            clock=self.clock,
            tell=lambda _, event: self.told.append(event),
            turns=self.turns,
            gate=FirewallJoinGate(Gatekeeper(self.approvals, self.firewall)),
            examiner=ClusterExaminer(management, self.examinations, clock=self.clock),
            records=BackupRecords(management, clock=self.clock),
            restore=RestoreSettings("haneul.local/platform:v1", "/data", "/backups"),
            backup=self.backups.get,
            readers=ClusterRecords(management, self.readers, naming=self.naming, clock=self.clock),
        )
        try:
            yield controller
        finally:
            await controller.close()

    async def move(self, cluster: Cluster) -> None:
        """Let the programs of masters start, machines join, and a second pass."""
        self.clock.advance(1)
        for resource in (DEPLOYMENTS, STATEFUL_SETS):
            for program in await self.management.list(resource, cluster.masters_namespace):
                await self._start(program)
        await self._spread_roots(cluster)
        for machine in await self.nodes.observe(cluster):
            assert machine.started is not None
            await self.tenant.apply(NODES, {"metadata": {"name": machine.name}})
            await self.tenant.patch(NODES, machine.name, {"status": READY}, subresource="status")
            renewed = (self.clock.now() + timedelta(seconds=1)).isoformat()
            lease = {"metadata": {"name": machine.name, "namespace": "kube-node-lease"}}
            await self.tenant.apply(LEASES, {**lease, "spec": {"renewTime": renewed}})

    async def _start(self, program: Manifest) -> None:
        metadata, template = program["metadata"], program["spec"]["template"]["metadata"]
        namespace, wanted = metadata["namespace"], program["spec"]["replicas"]
        for number in range(wanted, wanted + 3):
            await self.management.delete(PODS, f"{metadata['name']}-{number}", namespace)
        for number in range(wanted):
            name = f"{metadata['name']}-{number}"
            await self.management.apply(
                PODS, {"metadata": {"name": name, "namespace": namespace, "labels": template["labels"]}}
            )
            await self.management.patch(
                PODS, name, {"status": self.pod_status(program)}, namespace, subresource="status"
            )
        if not wanted:
            return
        seen = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), wanted)
        status = {"status": seen | {"observedGeneration": metadata["generation"]}}
        resource = STATEFUL_SETS if program["kind"] == "StatefulSet" else DEPLOYMENTS
        await self.management.patch(resource, metadata["name"], status, namespace, subresource="status")

    def pod_status(self, program: Manifest) -> Manifest:
        """Return the status of a program's pods."""
        return STARTED

    async def _spread_roots(self, cluster: Cluster) -> None:
        """Do what a tenant's controller manager does: each namespace gets what its pods trust the API server by."""
        made = await self.management.get(SECRETS, "kube-controller-manager", cluster.masters_namespace)
        for namespace in await self.tenant.list(NAMESPACES) if made else ():
            metadata = {"name": "kube-root-ca.crt", "namespace": namespace["metadata"]["name"]}
            data = {"ca.crt": decode(made or {})["ca.crt"].decode()}
            await self.tenant.apply(CONFIG_MAPS, {"metadata": metadata, "data": data})

    async def settle(self, controller: ClusterController, like: Cluster, looks: int = 4) -> ClusterStatus:
        """Look and move until nothing is left to do."""
        status = ClusterStatus()
        for _ in range(looks):
            status = await controller.reconcile(await self.cluster(like))
            await self.move(await self.cluster(like))
        return status

    def copied(self) -> Self:
        """Return a world that is as this one is now; whoever is at work in this one is not in the other."""
        alone: dict[int, Any] = {id(self.calls): Calls(), id(self.turns): Turns()}
        alone |= {id(api._watchers): [] for api in (self.management, self.tenant)}
        return copy.deepcopy(self, alone)

    async def ended(self, work: Awaitable[Any], then: Callable[[Self, int], Awaitable[None]], *, every: int = 1) -> int:
        """Let ``work`` be killed at each of its calls, and once after all; return how many there were.

        It is done but once: each time, ``then`` goes on in a copy of the world as the one that was killed leaves it.
        """

        async def kill(number: int) -> None:
            if number % every == 0:
                await then(self.copied(), number)

        self.calls = self.wire._calls = Calls()
        self.calls.before = kill
        await work
        self.calls.before = None
        await then(self.copied(), self.calls.count + 1)
        return self.calls.count

    async def objects(self, *, versions: bool = False) -> dict[str, Any]:
        """Return all objects by name, without what differs by chance; with their versions if asked for."""
        found: dict[str, Any] = {}
        for place, api in (("management", self.management), ("tenant", self.tenant)):
            for resource in KINDS:
                for manifest in await api.list(resource):
                    metadata = manifest["metadata"]
                    name = f"{place} {resource.plural} {metadata.get('namespace', '')}/{metadata['name']}"
                    found[name] = metadata["resourceVersion"] if versions else _sure(manifest)
        return found


def _sure(manifest: Manifest) -> Any:
    """Return the part of a manifest that is the same in every run."""
    if manifest["kind"] == "Secret":
        return sorted(manifest["data"])
    spec = manifest.get("spec", {})
    template = spec.get("template", {}).get("spec", {})
    return template or {key: value for key, value in spec.items() if key != "renewTime"}


@pytest.fixture
def world(images: Images, native: Cluster) -> World:
    return World(images, VirtualClock(native.created))


async def test_cluster_becomes_ready_from_nothing(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        first = await controller.reconcile(await world.cluster(native))
        assert (first.phase, first.nodes[0].message) == (Phase.CREATING, "its machine is being made")
        status = await world.settle(controller, native)
    assert status.phase is Phase.READY
    assert [node.name for node in status.nodes] == ["big-0", "default-0", "default-1"]
    assert status.milestones.keys() == {"api", "node", "ready"}
    assert (await world.cluster(native)).status == status


async def test_nodes_do_not_wait_for_the_record_of_the_backup(
    world: World, native: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        reading = world.management_wire.get

        async def no_records(resource: Resource, name: str, namespace: str = "") -> Manifest | None:
            if namespace == BACKUP_NAMESPACE:
                raise UnavailableError("the Kubernetes API does not answer in time")
            return await reading(resource, name, namespace)

        monkeypatch.setattr(world.management_wire, "get", no_records)
        world.wire.starting = True
        await controller.reconcile(await world.cluster(native))
        world.wire.starting = False
        for _ in range(4):
            with contextlib.suppress(UnavailableError):
                await controller.reconcile(await world.cluster(native))
        names = {machine.name for machine in await world.nodes.observe(await world.cluster(native))}
        tokens = [
            one for one in await world.tenant.list(SECRETS, "kube-system") if "bootstrap" in one["metadata"]["name"]
        ]
        assert (len(names), len(tokens)) == (3, 3)
        monkeypatch.setattr(world.management_wire, "get", reading)
        assert (await world.settle(controller, native)).phase is Phase.READY
        assert len(await world.management.list(SECRETS, BACKUP_NAMESPACE)) == 1


async def test_a_life_is_told_and_a_look_that_changes_nothing_tells_nothing(world: World, native: Cluster) -> None:
    def reasons() -> list[str]:
        found = [event.reason.value for event in world.told]
        world.told.clear()
        return found

    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        # In memory the tenant's API answers before anything runs.
        creation = ["SpecAccepted", "ApiAnswers", "MastersReady", *["NodeReady"] * 3, "ClusterReady"]
        assert reasons() == creation
        # What the watch of clusters shows may be older than what this controller wrote.
        await controller.reconcile((await world.cluster(native)).model_copy(update={"status": ClusterStatus()}))
        assert reasons() == []
        await world.nodes.remove(await world.cluster(native), "default-1")
        world.clock.advance(5)
        await world.settle(controller, native)
        assert "NodeReplaced" in reasons()
    async with world.controller() as another:
        await another.reconcile(await world.cluster(native))
        assert reasons() == []


async def test_a_cluster_starts_when_the_one_before_it_is_ready(world: World, native: Cluster) -> None:
    second = native.model_copy(update={"name": "second", "uid": ""})
    await world.ask(native)
    await world.ask(second)
    async with world.controller() as first_one, world.controller() as second_one:
        await first_one.reconcile(await world.cluster(native))
        waiting = await second_one.reconcile(await world.cluster(second))
        assert "its turn: another cluster" in waits_on(waiting)
        assert await world.management.get(NAMESPACES, second.masters_namespace) is None
        await world.settle(first_one, native)
        await second_one.reconcile(await world.cluster(second))
        assert await world.management.get(NAMESPACES, second.masters_namespace) is not None


async def test_the_rest_is_made_as_soon_as_the_api_server_listens(world: World, native: Cluster) -> None:
    async def made() -> set[str]:
        programs = await world.management.list(DEPLOYMENTS, native.masters_namespace)
        return {program["metadata"]["name"] for program in programs}

    await world.ask(native)
    async with world.controller() as controller:
        world.wire.cut = world.wire.starting = True
        for _ in range(3):
            await controller.reconcile(await world.cluster(native))
        cluster = await world.cluster(native)
        assert await made() == {"kube-apiserver"}
        assert await world.nodes.observe(cluster) == []
        world.wire.cut = False
        for _ in range(2):
            await controller.reconcile(await world.cluster(native))
        assert await made() == {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
        assert len(await world.nodes.observe(cluster)) == 3


async def test_ready_cluster_is_left_alone(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        before = await world.objects(versions=True)
        await controller.reconcile(await world.cluster(native))
        assert await world.objects(versions=True) == before
        world.clock.advance(timedelta(minutes=11).total_seconds())
        await controller.reconcile(await world.cluster(native))
        assert await world.objects(versions=True) == before
    async with world.controller() as another:
        await another.reconcile(await world.cluster(native))
        assert await world.objects(versions=True) == before


async def test_joined_nodes_tokens_are_gone_from_the_tenant_s_cluster(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await controller.reconcile(await world.cluster(native))
        cluster = await world.cluster(native)
        for resource in (DEPLOYMENTS, STATEFUL_SETS):
            for program in await world.management.list(resource, cluster.masters_namespace):
                await world._start(program)
        await controller.reconcile(cluster)
        tokens = await world.tenant.list(SECRETS, "kube-system")
        assert len(tokens) == 3
        assert {entry["type"] for entry in tokens} == {"bootstrap.kubernetes.io/token"}
        await world.settle(controller, native)
    assert await world.tenant.list(SECRETS, "kube-system") == []


async def test_silent_tenant_api_is_a_condition_and_no_error(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        world.wire.cut = True
        status = await controller.reconcile(await world.cluster(native))
        assert status.phase is Phase.DEGRADED
        assert "connection refused" in waits_on(status)
        failed = [condition.type.value for condition in status.conditions if condition.status != "True"]
        # What the masters last said of the nodes still stands: the nodes go on without them.
        assert failed == ["ApiAnswers"]
        assert len(await world.nodes.observe(await world.cluster(native))) == 3
        world.wire.cut = False
        assert (await controller.reconcile(await world.cluster(native))).phase is Phase.READY


async def test_a_look_that_was_asked_for_is_answered_by_what_is_seen_then(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        store = KubeClusters(world.management, clock=world.clock)
        world.wire.cut = True
        asked = await store.request_look(native.project, native.name, "after the power cut")
        assert (asked.status.phase, asked.status.look_answered) == (Phase.READY, "")
        await controller.reconcile(asked)
        seen = (await world.cluster(native)).status
        assert (seen.phase, seen.look_answered) == (Phase.DEGRADED, "after the power cut")


async def test_a_cluster_is_examined_once_for_each_request_and_never_unasked(world: World, native: Cluster) -> None:
    await world.ask(native)
    store = KubeClusters(world.management, clock=world.clock)
    async with world.controller() as controller:
        await world.settle(controller, native)
        await controller.reconcile(await store.request_look(native.project, native.name, "a plain look"))
        assert await world.examinations.read(native.masters_namespace) is None
        asked = await store.request_look(native.project, native.name, f"first{EXAMINATION_MARK}")
        await controller.reconcile(asked)
        look = await world.examinations.read(native.masters_namespace)
        assert look is not None
        assert look.asked == asked.look_requested
        world.clock.advance(5)
        await controller.reconcile(await world.cluster(native))
        assert await world.examinations.read(native.masters_namespace) == look


async def test_a_silent_cluster_is_examined_as_far_as_its_masters_go(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        world.wire.cut = True
        store = KubeClusters(world.management, clock=world.clock)
        await controller.reconcile(await store.request_look(native.project, native.name, f"now{EXAMINATION_MARK}"))
        look = await world.examinations.read(native.masters_namespace)
        assert look is not None
        seen = {outcome.id: outcome.seen for outcome in look.outcomes}
        assert seen["5.1.1"].endswith("the cluster's API server does not answer")


async def test_spec_that_cannot_be_is_shown_and_nothing_is_made(world: World, native: Cluster) -> None:
    await world.ask(native)
    no_ranges = native.spec.model_copy(update={"network": native.spec.network.model_copy(update={"pods": None})})
    async with world.controller() as controller:
        cluster = (await world.cluster(native)).model_copy(update={"spec": no_ranges})
        status = await controller.reconcile(cluster)
        assert "names no ranges" in waits_on(status)
        broken = (await world.cluster(native)).model_copy(update={"spec_problem": "version: not a string"})
        assert waits_on(await controller.reconcile(broken)) == "version: not a string"
    assert await world.management.get(NAMESPACES, native.masters_namespace) is None


async def test_scaling_drops_the_highest_and_keeps_the_others(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        before = {machine.name: machine.instance for machine in await world.nodes.observe(await world.cluster(native))}
        pools = tuple(pool.model_copy(update={"count": 1}) for pool in native.spec.node_pools)
        await world.ask(native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})}))
        status = await world.settle(controller, native)
    after = {machine.name: machine.instance for machine in await world.nodes.observe(await world.cluster(native))}
    assert after == {name: before[name] for name in ("big-0", "default-0")}
    assert {node["metadata"]["name"] for node in await world.tenant.list(NODES)} == {"big-0", "default-0"}
    assert status.phase is Phase.READY


def _of_machines(native: Cluster, *names: str) -> Cluster:
    pool = NodePool(name="metal", provider=NodeProviderName.SSH, machines=names, count=len(names))
    return native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": (pool,)})})


async def test_machines_reach_the_api_server_from_outside(
    world: World, native: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[NodeAnnouncement] = []

    async def ensure(_: Cluster, node: NodeAnnouncement) -> None:
        announced.append(node)

    monkeypatch.setattr(world.metal, "ensure", ensure)
    cluster = _of_machines(native, "rack1")
    await world.ask(cluster)
    async with world.controller() as controller:
        status = await world.settle(controller, cluster)
    server = status.endpoint
    assert server.startswith("https://192.0.2.10:")
    assert announced[0].name == "metal-rack1" and server.encode() in announced[0].bootstrap_kubeconfig
    endpoint = await world.tenant.get(ENDPOINT_SLICES, "kubernetes", "default")
    assert endpoint is not None
    assert f"https://{endpoint['endpoints'][0]['addresses'][0]}:{endpoint['ports'][0]['port']}" == server
    api = await world.management.get(DEPLOYMENTS, "kube-apiserver", cluster.masters_namespace)
    assert api is not None
    assert "--endpoint-reconciler-type=none" in api["spec"]["template"]["spec"]["containers"][0]["args"]


async def test_what_an_older_api_server_announces_of_itself_does_not_stay(world: World, native: Cluster) -> None:
    cluster = _of_machines(native, "rack1")
    await world.ask(cluster)
    async with world.controller() as controller:
        await world.settle(controller, cluster)
        right = await world.tenant.get(ENDPOINT_SLICES, "kubernetes", "default")
        assert right is not None
        inside = {"endpoints": [{"addresses": ["10.193.0.7"], "conditions": {"ready": True}}]}
        await world.tenant.patch(ENDPOINT_SLICES, "kubernetes", inside, "default")
        await controller.reconcile(await world.cluster(cluster))
        again = await world.tenant.get(ENDPOINT_SLICES, "kubernetes", "default")
        assert again is not None and again["endpoints"] == right["endpoints"]


async def test_machine_that_leaves_is_emptied_first_and_not_waited_for_without_end(
    world: World, native: Cluster
) -> None:
    both, one = _of_machines(native, "rack1", "rack2"), _of_machines(native, "rack2")
    await world.ask(both)
    where = {"name": "web", "namespace": "default"}
    async with world.controller() as controller:
        await world.settle(controller, both)
        for machine in await world.metal.observe(await world.cluster(both)):
            await world.tenant.apply(NODES, {"metadata": {"name": machine.name}})
            await world.tenant.patch(NODES, machine.name, {"status": READY}, subresource="status")
        # A finalizer stands for the time that a pod asked for.
        pod = {"metadata": {**where, "finalizers": ["test/grace"]}, "spec": {"nodeName": "metal-rack1"}}
        await world.tenant.apply(PODS, pod)
        shrunk = (await world.cluster(both)).model_copy(update={"spec": one.spec})
        for _ in range(2):
            await controller.reconcile(shrunk)
        node = await world.tenant.get(NODES, "metal-rack1")
        ending = await world.tenant.get(PODS, "web", "default")
        assert node is not None and node["spec"]["unschedulable"]
        assert ending is not None and "deletionTimestamp" in ending["metadata"]
        assert len(await world.metal.observe(shrunk)) == 2
        world.clock.advance(DRAIN_LIFE.total_seconds())
        await controller.reconcile(shrunk)
        assert [machine.name for machine in await world.metal.observe(shrunk)] == ["metal-rack2"]
        assert await world.tenant.get(NODES, "metal-rack1") is None


async def test_node_s_certificate_request_is_signed_and_a_stranger_s_denied(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        tokens = await world.management.get(SECRETS, "bootstrap-tokens", native.masters_namespace)
        assert tokens is not None
        user = "system:bootstrap:" + decode(tokens)["big-0"].decode().split(".")[0]
        for name, node in (("own", "big-0"), ("foreign", "default-0"), ("unknown", "other-9")):
            await world.tenant.create(CERTIFICATE_REQUESTS, _request(name, node, user))

        async def answered() -> list[Manifest]:
            requests = await world.tenant.list(CERTIFICATE_REQUESTS)
            return requests if all(entry.get("status") for entry in requests) else []

        requests = await wait_for(answered, what="answers", timeout=30, clock=SystemClock(), interval=0.001)

        def signed() -> dict[str, Any]:
            return {entry["metadata"]["name"]: entry["status"] for entry in requests}

        async def all_signed() -> bool:
            found = await world.tenant.get(CERTIFICATE_REQUESTS, "own")
            return bool(found and found["status"].get("certificate"))

        await wait_for(all_signed, what="the certificate", timeout=30, clock=SystemClock(), interval=0.001)
    assert {name: status["conditions"][0]["type"] for name, status in signed().items()} == {
        "own": "Approved",
        "foreign": "Denied",
        "unknown": "Denied",
    }
    own = await world.tenant.get(CERTIFICATE_REQUESTS, "own")
    assert own is not None
    leaf = x509.load_pem_x509_certificate(base64.b64decode(own["status"]["certificate"]))
    assert leaf.not_valid_after_utc - world.clock.now() <= timedelta(days=7)


async def test_request_that_nobody_can_parse_does_not_end_the_signing(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        garbage = _request("garbage", "big-0", "system:node:big-0")
        garbage["spec"]["request"] = base64.b64encode(b"garbage").decode()
        await world.tenant.create(CERTIFICATE_REQUESTS, garbage)
        await world.tenant.create(CERTIFICATE_REQUESTS, _request("right", "big-0", "system:node:big-0"))

        async def signed() -> bool:
            found = await world.tenant.get(CERTIFICATE_REQUESTS, "right")
            return bool(found and found.get("status", {}).get("certificate"))

        await wait_for(signed, what="the certificate", timeout=30, clock=SystemClock(), interval=0.001)


def _request(name: str, node: str, user: str) -> Manifest:
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)).sign(key, hashes.SHA256())
    return {
        "metadata": {"name": name},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "username": user,
            "usages": ["digital signature", "client auth"],
            "request": base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode(),
        },
    }


async def _converge(world: World, like: Cluster) -> dict[str, Any]:
    async with world.controller() as controller:
        status = await world.settle(controller, like)
    assert status.phase is Phase.READY, waits_on(status)
    return await world.objects()


async def test_controller_that_ends_at_any_call_is_continued_by_the_next(images: Images, cilium: Cluster) -> None:
    # One node is enough to meet every kind of call, and keeps the number of ends at which to die small.
    cilium = cilium.model_copy(update={"spec": cilium.spec.model_copy(update={"node_pools": (NodePool(),)})})
    begin = World(images, VirtualClock(cilium.created))
    await begin.ask(cilium)
    expected = await _converge(begin.copied(), cilium)

    async def then(world: World, number: int) -> None:
        kept = await world.management.get(SECRETS, "authorities", cilium.masters_namespace)
        tokens = await world.management.get(SECRETS, "bootstrap-tokens", cilium.masters_namespace)
        machines = await world.nodes.observe(await world.cluster(cilium))
        found = await _converge(world, cilium)
        assert found == expected, f"ended at call {number}"
        # What was handed out is never replaced: neither authorities, nor tokens, nor machines.
        assert kept in (None, await world.management.get(SECRETS, "authorities", cilium.masters_namespace))
        assert tokens in (None, await world.management.get(SECRETS, "bootstrap-tokens", cilium.masters_namespace))
        assert set(machines) <= set(await world.nodes.observe(await world.cluster(cilium)))

    assert await begin.ended(_converge(begin, cilium), then) > 60


# New authorities.


async def _ask_for_new_authorities(world: World, like: Cluster, grace: int) -> None:
    cluster = await world.cluster(like)
    asked = {"revision": cluster.spec.authorities.revision + 1, "graceSeconds": grace}
    patch = {"spec": {"authorities": asked}}
    await world.management.patch(CLUSTERS, like.name, patch, project_namespace(like.project))


async def _kept(world: World, like: Cluster) -> Keyring:
    secret = await world.management.get(SECRETS, "authorities", like.masters_namespace)
    assert secret is not None
    return keyring_from(decode(secret))


async def test_authorities_are_replaced_step_by_step_on_demand(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        secret = {"metadata": {"name": "password", "namespace": "default"}, "data": {"p": "eA=="}}
        await world.tenant.create(SECRETS, secret)
        before = await _kept(world, native)
        machines = {machine.name: machine for machine in await world.nodes.observe(await world.cluster(native))}
        await _ask_for_new_authorities(world, native, grace=60)
        steps: list[str] = []
        phases: list[Phase] = []
        for _ in range(40):
            status = await controller.reconcile(await world.cluster(native))
            phases.append(status.phase)
            condition = next(c for c in status.conditions if c.type is ConditionType.AUTHORITIES_CURRENT)
            if not steps or steps[-1] != condition.reason:
                steps.append(condition.reason)
            if condition.reason == "AuthoritiesCurrent":
                break
            await world.move(await world.cluster(native))
            world.clock.advance(4)
    assert steps == [
        "SpreadingTrust",
        "SigningAnew",
        "ReplacingNodes",
        "IssuingAnew",
        "OldAuthoritiesTrusted",
        "WithdrawingTrust",
        "AuthoritiesCurrent",
    ]
    # It is a change, and a cluster that only waits for what is held by others is ready.
    assert set(phases) == {Phase.UPDATING, Phase.READY}
    after = await _kept(world, native)
    assert (after.record.era, after.new) == (1, None)
    assert after.old.cluster.certificate != before.old.cluster.certificate
    replaced = {machine.name: machine for machine in await world.nodes.observe(await world.cluster(native))}
    assert replaced.keys() == machines.keys()
    assert all(machine.era == 1 and machine.instance != machines[name].instance for name, machine in replaced.items())
    for secret in await world.management.list(SECRETS, native.masters_namespace):
        assert before.old.cluster.certificate.strip() not in b"".join(decode(secret).values()), secret["metadata"]


async def test_authorities_near_their_end_are_replaced_without_being_asked(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        status = await world.settle(controller, native)
        before = await _kept(world, native)
        assert status.authorities_expire == before.expires
        world.clock.advance((before.expires - world.clock.now() - timedelta(days=366)).total_seconds())
        await world.settle(controller, native)
        assert (await _kept(world, native)).record == before.record
        world.clock.advance(timedelta(days=2).total_seconds())
        for _ in range(40):
            await world.settle(controller, native, looks=1)
            world.clock.advance(300)
        after = await _kept(world, native)
    assert (after.record.era, after.record.step) == (1, Step.STEADY)
    assert after.expires > before.expires + timedelta(days=3000)


async def test_replacement_waits_where_a_node_does_not_come_back(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        await _ask_for_new_authorities(world, native, grace=0)
        while (await _kept(world, native)).record.step is not Step.NODES:
            await controller.reconcile(await world.cluster(native))
            await world.move(await world.cluster(native))
        # From here on no machine joins any more, and what was heard of them is of before.
        world.clock.advance(5)
        for _ in range(10):
            status = await controller.reconcile(await world.cluster(native))
            world.clock.advance(1)
        assert (await _kept(world, native)).record.step is Step.NODES
        condition = next(c for c in status.conditions if c.type is ConditionType.AUTHORITIES_CURRENT)
        assert "waiting for big-0, default-0, default-1" in condition.message


async def test_old_authorities_are_withdrawn_only_once_no_pod_is_told_of_them(world: World, native: Cluster) -> None:
    await world.ask(native)
    await world.tenant.apply(NAMESPACES, {"metadata": {"name": "default"}})
    async with world.controller() as controller:
        await world.settle(controller, native)
        old = (await _kept(world, native)).old.cluster.certificate.decode().strip()
        await _ask_for_new_authorities(world, native, grace=0)
        for _ in range(40):
            if (await _kept(world, native)).record.step is Step.WITHDRAW:
                break
            await world.settle(controller, native, looks=1)
            world.clock.advance(4)
        behind = await world.tenant.get(CONFIG_MAPS, "kube-root-ca.crt", "default")
        assert behind is not None and old in behind["data"]["ca.crt"]
        for _ in range(3):
            # Everything runs with the new ones; what pods trust is not published anew yet.
            await world.settle(controller, native, looks=1)
            where = {"name": "kube-root-ca.crt", "namespace": "default"}
            await world.tenant.apply(CONFIG_MAPS, {"metadata": where, "data": behind["data"]})
            world.clock.advance(15)
        status = await controller.reconcile(await world.cluster(native))
        condition = next(c for c in status.conditions if c.type is ConditionType.AUTHORITIES_CURRENT)
        assert condition.message.endswith("waiting for kube-root-ca.crt of default")
        await world.settle(controller, native)
        assert (await _kept(world, native)).record.step is Step.STEADY


async def test_replacement_that_ends_at_any_call_is_continued_by_the_next(images: Images, native: Cluster) -> None:
    native = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": (NodePool(),)})})

    async def finish(world: World) -> int:
        async with world.controller() as controller:
            for _ in range(30):
                await controller.reconcile(await world.cluster(native))
                await world.move(await world.cluster(native))
                keyring = await _kept(world, native)
                if (keyring.record.era, keyring.record.step) == (1, Step.STEADY):
                    break
            status = await world.settle(controller, native, looks=2)
            assert status.phase is Phase.READY
            return (await _kept(world, native)).record.era

    async def then(world: World, number: int) -> None:
        assert await finish(world) == 1, f"ended at call {number}"

    begin = World(images, VirtualClock(native.created))
    await begin.ask(native)
    await _converge(begin, native)
    await _ask_for_new_authorities(begin, native, grace=0)
    # Every call would take long; a prime step meets each kind of call, as they come in turns.
    await begin.ended(finish(begin), then, every=11)


# Taking a cluster away.


@contextlib.asynccontextmanager
async def job_controller(api: MemoryKubeClient) -> AsyncIterator[None]:
    """Let every job succeed."""

    async def work() -> None:
        async for event in api.watch(JOBS):
            if event.type == "ADDED":
                metadata = event.object["metadata"]
                status = {"status": {"succeeded": 1}}
                await api.patch(JOBS, metadata["name"], status, metadata["namespace"], subresource="status")

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _two_clusters(images: Images, native: Cluster, cilium: Cluster) -> tuple[World, Cluster]:
    """Return a world with two ready clusters, and the first of them."""
    world = World(images, VirtualClock(native.created))
    for like in (cilium, native):
        await world.ask(like)
        async with world.controller() as controller:
            await world.settle(controller, like)
            for node in await world.tenant.list(NODES):
                await world.tenant.delete(NODES, node["metadata"]["name"])
    return world, await world.cluster(native)


async def _others(world: World, gone: Cluster) -> dict[str, str]:
    """Return the versions of what is another cluster's or nobody's."""
    own = labels(gone)["dkos.haneul.dev/cluster"]
    found = {}
    for resource in KINDS:
        for manifest in await world.management.list(resource):
            metadata = manifest["metadata"]
            if metadata.get("labels", {}).get("dkos.haneul.dev/cluster") != own or _is_backup_record(manifest):
                name = f"{resource.plural} {metadata.get('namespace')}/{metadata['name']}"
                found[name] = metadata["resourceVersion"]
    return found


async def _owned(world: World, cluster: Cluster) -> list[str]:
    selector = f"dkos.haneul.dev/cluster={cluster.uid}"
    found = [await world.management.list(resource, labels=selector) for resource in KINDS]
    return [entry["metadata"]["name"] for entries in found for entry in entries if not _is_backup_record(entry)]


def _is_backup_record(manifest: Manifest) -> bool:
    """Say whether it is what outlives a cluster, so that its deletion can be undone."""
    metadata = manifest["metadata"]
    uid = metadata.get("labels", {}).get("dkos.haneul.dev/cluster")
    # No pod and no Job has such a name: of these, none is to outlive it.
    return (metadata.get("namespace"), metadata["name"]) == (BACKUP_NAMESPACE, f"backup-{uid}")


def _tear(
    client: KubeClient, cluster: Cluster, clock: VirtualClock, tell: Callable[[Event], None] | None = None
) -> Awaitable[None]:
    return tear_down(
        client, cluster, toolbox="haneul.local/toolbox:v1", data="/data", clock=clock, tell=tell or list[Event]().append
    )


async def test_teardown_takes_all_that_is_the_cluster_s_and_only_that(
    images: Images, native: Cluster, cilium: Cluster
) -> None:
    world, gone = await _two_clusters(images, native, cilium)
    before = await _others(world, gone)
    assert await _owned(world, gone)
    async with job_controller(world.management):
        await _tear(world.management, gone, world.clock)
        assert await _owned(world, gone) == []
        assert await _others(world, gone) == before
        await _tear(world.management, gone, world.clock)
    assert await _others(world, gone) == before


async def test_a_host_that_is_no_more_holds_up_no_teardown(images: Images, native: Cluster, cilium: Cluster) -> None:
    world, gone = await _two_clusters(images, native, cilium)
    await world.management.delete(NODES, "host-a")
    told: list[Event] = []
    async with job_controller(world.management):
        await _tear(world.management, gone, world.clock, told.append)
    assert await _owned(world, gone) == []
    assert any("host-a stays there" in event.message for event in told)


async def test_teardown_that_ends_at_any_call_is_continued(images: Images, native: Cluster, cilium: Cluster) -> None:
    begin, gone = await _two_clusters(images, native, cilium)
    before = await _others(begin, gone)
    number = 0
    while True:
        number += 1
        world = begin.copied()
        calls = Calls()
        calls.hold_at = number
        async with job_controller(world.management):
            ended = await calls.end(_tear(Wire(world.management, calls), gone, world.clock))
            await _tear(world.management, gone, world.clock)
        assert await _owned(world, gone) == [], f"ended at call {number}"
        assert await _others(world, gone) == before
        if ended:
            break
    assert number > 8


class Ordered(Wire):
    """A wire that keeps which Jobs and pods of restores were there when the deletion of data began."""

    left: list[str] | None = None

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        if manifest["metadata"]["name"].startswith("wipe-"):
            there = [*await self.list(JOBS, BACKUP_NAMESPACE), *await self.list(PODS, BACKUP_NAMESPACE)]
            self.left = [entry["metadata"]["name"] for entry in there]
        return await super().apply(resource, manifest, subresource=subresource)


async def test_teardown_ends_the_jobs_of_a_restore_before_it_deletes_the_data(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
    cluster, told = await world.cluster(native), list[Event]()
    settings = RestoreSettings("haneul.local/platform:v1", "/data", "/backups")
    # One of a restore that was given up, too: its number is another one.
    for number, step in ((1, "place"), (2, "prepare")):
        spec = cluster.spec.model_copy(update={"restore": RestoreRequest(number=number, revision=7)})
        job = restore_job(cluster.model_copy(update={"spec": spec}), step, "host-a", "https://192.0.2.7:2380", settings)
        await world.management.apply(JOBS, job)
        pod = {"name": f"{job['metadata']['name']}-x", "namespace": BACKUP_NAMESPACE}
        # Whose host takes its time to end it.
        await world.management.apply(PODS, {"metadata": {**pod, "labels": labels(cluster), "finalizers": ["a/host"]}})

    async def host() -> None:
        async for event in world.management.watch(PODS, BACKUP_NAMESPACE):
            if "deletionTimestamp" in event.object["metadata"] and event.type == "MODIFIED":
                name = event.object["metadata"]["name"]
                await world.management.patch(PODS, name, {"metadata": {"finalizers": None}}, BACKUP_NAMESPACE)

    client = Ordered(world.management, Calls())
    task = asyncio.create_task(host())
    async with job_controller(world.management):
        await _tear(client, cluster, world.clock, told.append)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert client.left == []
    assert await _owned(world, cluster) == []
    assert "waiting for the jobs of its restore to end" in [event.message for event in told]


async def test_teardown_tells_what_it_waits_for_and_its_end(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
    cluster, told = await world.cluster(native), list[Event]()
    async with job_controller(world.management):
        await _tear(world.management, cluster, world.clock, told.append)
    assert [(event.reason.value, event.message) for event in told] == [
        ("Deleting", "the cluster is being deleted: its nodes, its masters, then its data"),
        ("TeardownWaits", f"waiting for the nodes to end (namespace {cluster.nodes_namespace})"),
        ("TeardownWaits", f"waiting for the masters to end (namespace {cluster.masters_namespace})"),
        ("TeardownWaits", "waiting for the data on host-a to be deleted"),
        ("Deleted", "all that was made for the cluster is gone"),
    ]
    told.clear()
    await _tear(world.management, cluster, world.clock, told.append)
    # What is gone already is waited for no more.
    assert [event.reason.value for event in told] == ["Deleting", "Deleted"]


async def test_teardown_says_on_what_it_waited(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
    with pytest.raises(DeadlineExceededError, match="data on host-a"):
        await _tear(world.management, await world.cluster(native), world.clock)


async def test_teardown_of_what_was_never_made_does_nothing(world: World, native: Cluster, now: datetime) -> None:
    await world.ask(native)
    before = await world.objects(versions=True)
    await _tear(world.management, await world.cluster(native), world.clock)
    assert await world.objects(versions=True) == before


def test_bootstrap_tokens_look_as_kubernetes_wants_and_differ() -> None:
    tokens = {new_bootstrap_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", token) for token in tokens)
