"""The DKOS operator as a program: kopf watches the clusters, a controller of its own works for each.

kopf brings the watch with its reconnections, the finalizer that keeps a deleted cluster until it is torn down, and a
daemon for each cluster; see docs/decisions/0003-operator-framework.md. Everything that decides lives in
:mod:`haneul.dkos`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import platform
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kopf
import structlog

from haneul.app.benchmark_checks import ClusterExaminer
from haneul.app.firewall_gate import FirewallJoinGate, GatewaySettings, firewall_backend
from haneul.compliance.adapters.kube_looks import KubeLooks
from haneul.dkos.adapters.etcd_http import HttpEtcdMembers
from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.adapters.kube_events import KubeEvents
from haneul.dkos.adapters.kube_machines import KubeKeys, KubeMachines
from haneul.dkos.adapters.node_pack import NodePack, pack
from haneul.dkos.adapters.sandbox_nodes import SandboxNodes
from haneul.dkos.adapters.ssh_machines import SshMachines
from haneul.dkos.adapters.ssh_nodes import SshNodes
from haneul.dkos.authentication import IssuerTrust
from haneul.dkos.backup.record import NAMESPACE as BACKUP_NAMESPACE
from haneul.dkos.backup.record import RECORD_LABELS, catalogue_from
from haneul.dkos.backup.recording import BackupRecords
from haneul.dkos.cluster_records import ClusterRecords
from haneul.dkos.control_plane import CLUSTER_LABEL, Images
from haneul.dkos.controller import ClusterController
from haneul.dkos.door import Door, Wakers, watch_requests
from haneul.dkos.etcd_changing import MemberChanger
from haneul.dkos.event_recorder import EventRecorder
from haneul.dkos.events import teardown_failed
from haneul.dkos.image_hub import ImageHub
from haneul.dkos.masters import EXAMINATION, Masters
from haneul.dkos.model import CLUSTERS, BackupStatus, Cluster, NodeProviderName, cluster_from_resource
from haneul.dkos.naming import Naming
from haneul.dkos.readers import Reader
from haneul.dkos.restore_jobs import RestoreSettings
from haneul.dkos.teardown import tear_down
from haneul.dkos.tenant_objects import CILIUM_RESOURCES
from haneul.dkos.turns import Turns
from haneul.firewall.adapters.kube_approvals import APPROVALS, CLUSTER_UID, KubeApprovals
from haneul.firewall.gatekeeper import Gatekeeper
from haneul.kernel.clock import SystemClock
from haneul.kernel.documents import from_yaml
from haneul.kernel.errors import HaneulError, HostNotReadyError
from haneul.kernel.kube import CONFIG_MAPS, PODS, KubeAccess, KubeClient, Manifest, Resource
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0
_RELEASE_SECONDS = 60.0
_LOOK_SECONDS = 2.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class OperatorSettings:
    """How the operator reaches the management cluster and what it makes clusters from."""

    access: KubeAccess
    images: Images
    pause_image: str
    outside_address: str
    #: Folder with Cilium's resource definitions; the operator's pod mounts it.
    cilium_definitions: Path
    data: str = "/var/lib/haneul/clusters"
    backups: str = "/var/lib/haneul/backups"
    #: The platform's own image, which restores run.
    platform_image: str = ""
    #: Folder with the unpacked node images by version, whose files machines get; the operator's pod mounts them.
    node_trees: Path = Path("/opt/haneul/nodes")
    #: Where kopf answers liveness probes, such as ``http://0.0.0.0:8080/healthz``; nowhere by default.
    health: str | None = None
    #: The platform's issuer, where tenants' API servers trust it.
    trust: IssuerTrust | None = None
    #: The gateway whose rules are kept for nodes that reach external resources; by default they are written down only.
    gateway: GatewaySettings | None = None
    #: Where clusters have their names, if somebody publishes them.
    naming: Naming | None = None
    #: Who works for clusters outside of them.
    readers: tuple[Reader, ...] = ()
    #: Where nodes pull images, besides everywhere else.
    hub: ImageHub | None = None


class Operator:
    """All clusters' controllers."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._management = HttpKubeClient(settings.access, user_agent="haneul-operator")
        self._recorder = EventRecorder(KubeEvents(self._management), clock=self._clock)
        backend = firewall_backend(settings.gateway, self._management)
        self._gate = FirewallJoinGate(Gatekeeper(KubeApprovals(self._management), backend))
        self._examiner = ClusterExaminer(self._management, KubeLooks(self._management, EXAMINATION), clock=self._clock)
        self._controllers: dict[str, ClusterController] = {}
        self._specs = KubeClusters(self._management, clock=self._clock)
        self._records = BackupRecords(self._management, clock=self._clock)
        self._readers = ClusterRecords(
            self._management, settings.readers, naming=settings.naming, quotas=self._specs, clock=self._clock
        )
        self._backups: dict[str, BackupStatus] = {}
        self._wakers = Wakers()
        # Sleeping clusters that somebody asks for.
        self._requested: set[str] = set()
        self._turns = Turns()
        self._cilium_definitions = cilium_definitions(settings.cilium_definitions)
        self._machines = SshMachines(
            KubeMachines(self._management),
            KubeKeys(self._management),
            architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
            clock=self._clock,
        )
        self._packs: dict[str, NodePack] = {}
        self._packing = asyncio.Lock()
        self._ssh_nodes = SshNodes(self._machines, pack=self._node_pack, clock=self._clock)
        # A cluster is either kept or torn down, never both at once.
        self._locks: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            # Should one end by an error that nobody foresaw, so does the other, and the pod starts anew.
            async with asyncio.TaskGroup() as group:
                works = (
                    self._dispatch(PODS, CLUSTER_LABEL),
                    self._dispatch(APPROVALS, CLUSTER_UID),
                    self._recorder.run(),
                    self._machines.watch_checks(),
                    self._wakers.run(self._management, self._wake_all),
                    watch_requests(self._management, self._note_request),
                    self._watch_backups(),
                )
                beside = [group.create_task(work) for work in works]
                await self._ssh_nodes.resume()
                await kopf.operator(
                    registry=self._registry(),
                    clusterwide=True,
                    standalone=True,
                    liveness_endpoint=self._settings.health,
                )
                for task in beside:
                    task.cancel()
        finally:
            await self._ssh_nodes.close()
            await self._management.close()

    async def _node_pack(self, version: str) -> NodePack:
        """Return the files that machines of a version get; looked at once, when the first machine needs them."""
        async with self._packing:
            if version not in self._packs:
                self._packs[version] = await asyncio.to_thread(pack, self._settings.node_trees / version)
            return self._packs[version]

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        resource = (CLUSTERS.group, CLUSTERS.version, CLUSTERS.plural)

        @kopf.on.startup(registry=registry)
        def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
            settings.persistence.finalizer = f"{CLUSTERS.group}/teardown"
            settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=CLUSTERS.group)
            settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=CLUSTERS.group)
            settings.posting.enabled = False
            settings.watching.server_timeout = 240
            # A look that is under way when its cluster is deleted ends in a moment. kopf would see that only after the
            # backoff of the cancellation, and the teardown would wait for half a minute.
            settings.background.instant_exit_timeout = _LOOK_SECONDS
            settings.batching.worker_limit = None

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return _connection(self._settings.access)

        @kopf.daemon(*resource, registry=registry, id="keep", cancellation_backoff=30, cancellation_timeout=20)
        async def keep(body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
            await self._keep(body, stopped)

        @kopf.on.event(*resource, registry=registry, id="wake")
        def wake(uid: str, **_: Any) -> None:
            if controller := self._controllers.get(uid):
                controller.wake()

        @kopf.on.delete(*resource, registry=registry, id="teardown", backoff=1.0)
        async def delete(body: kopf.Body, **_: Any) -> None:
            await in_own_task(self._tear_down(cluster_from_resource(dict(body))))

        return registry

    async def _keep(self, body: kopf.Body, stopped: kopf.DaemonStopped) -> None:
        uid = str(body["metadata"]["uid"])
        backoff = _BACKOFF_FIRST
        async with self._controller(uid) as controller:
            while not stopped:
                try:
                    cluster = cluster_from_resource(dict(body))
                    async with self._lock(uid):
                        if stopped or cluster.deleting:
                            return
                        status = await in_own_task(controller.reconcile(cluster))
                except* HaneulError as errors:
                    _log.warning("cluster not reconciled", cluster=uid, errors=[str(e) for e in errors.exceptions])
                    await stopped.wait(backoff)
                    backoff = min(backoff * 2, _BACKOFF_LAST)
                else:
                    backoff = _BACKOFF_FIRST
                    await controller.pause(status)

    @contextlib.asynccontextmanager
    async def _controller(self, uid: str) -> AsyncIterator[ClusterController]:
        settings = self._settings
        masters = Masters(
            self._management,
            images=settings.images,
            outside_address=settings.outside_address,
            data=settings.data,
            clock=self._clock,
            trust=settings.trust,
            naming=settings.naming,
            hub=settings.hub,
        )
        controller = ClusterController(
            management=self._management,
            masters=masters,
            members=MemberChanger(
                self._management,
                masters,
                connect=HttpEtcdMembers,
                toolbox=settings.images.toolbox,
                data=settings.data,
                clock=self._clock,
            ),
            providers={
                NodeProviderName.SANDBOX: SandboxNodes(self._management, settings.images),
                NodeProviderName.SSH: self._ssh_nodes,
            },
            door=Door(self._management, self._wakers),
            specs=self._specs,
            connect=lambda access: HttpKubeClient(access, user_agent="haneul-operator"),
            pause_image=settings.pause_image,
            clock=self._clock,
            tell=self._recorder.tell,
            turns=self._turns,
            cilium_definitions=self._cilium_definitions,
            gate=self._gate,
            examiner=self._examiner,
            records=self._records,
            restore=RestoreSettings(settings.platform_image, settings.data, settings.backups),
            backup=self._backups.get,
            readers=self._readers,
            hub=settings.hub,
        )
        self._controllers[uid] = controller
        if uid in self._requested:
            controller.request()
        try:
            yield controller
        finally:
            self._controllers.pop(uid, None)
            await controller.close()

    async def _tear_down(self, cluster: Cluster) -> None:
        async with self._lock(cluster.uid):
            try:
                await self._readers.end(cluster)
                # Machines that cannot be reached do not hold the cluster's end up; they are put back once they can be.
                await self._ssh_nodes.release(cluster, seconds=_RELEASE_SECONDS)
                await tear_down(
                    self._management,
                    cluster,
                    toolbox=self._settings.images.toolbox,
                    data=self._settings.data,
                    clock=self._clock,
                    tell=functools.partial(self._recorder.tell, cluster),
                )
                await self._gate.leave(cluster)
                await self._records.end(cluster)
            except HaneulError as error:
                self._recorder.tell(cluster, teardown_failed(error.detail))
                raise kopf.TemporaryError(str(error), delay=2) from error
        self._locks.pop(cluster.uid, None)

    async def _watch_backups(self) -> None:
        """Keep in mind how each cluster's backup stands; controllers say so with their next look."""
        async for event in self._management.watch(CONFIG_MAPS, BACKUP_NAMESPACE, labels=RECORD_LABELS):
            catalogue = catalogue_from(event.object)
            if catalogue is None:
                continue
            if event.type == "DELETED" or catalogue.deleted is not None:
                self._backups.pop(catalogue.uid, None)
            else:
                self._backups[catalogue.uid] = catalogue.status

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _wake_all(self) -> None:
        """Have all controllers look: each sleeping cluster names the wakers."""
        for controller in self._controllers.values():
            controller.wake()

    def _note_request(self, uid: str, asked: bool) -> None:
        """Keep in mind which sleeping clusters are asked for, also before their controllers begin."""
        if not asked:
            self._requested.discard(uid)
            return
        self._requested.add(uid)
        if controller := self._controllers.get(uid):
            controller.request()

    async def _dispatch(self, resource: Resource, label: str) -> None:
        """Wake a cluster's controller whenever an object that names the cluster in a label changes."""
        client: KubeClient = self._management
        async for event in client.watch(resource, labels=label):
            if controller := self._controllers.get(event.object["metadata"]["labels"][label]):
                controller.wake()


def cilium_definitions(folder: Path) -> list[Manifest]:
    """Return the definitions of the resources without which no agent of Cilium goes on, from upstream's files."""
    found = {file.stem: file for file in folder.rglob("*.yaml")}
    if missing := [plural for plural in CILIUM_RESOURCES if plural not in found]:
        raise HostNotReadyError(
            f"{folder} has no definition of {', '.join(missing)}", hint="'haneul components build' makes Cilium's image"
        )
    # Half a megabyte: the loader in C takes a tenth of the time, which is time until the operator starts.
    return [from_yaml(found[plural].read_text()) for plural in CILIUM_RESOURCES]


def _connection(access: KubeAccess) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=access.server,
        ca_data=access.authority,
        certificate_data=access.client_certificate or None,
        private_key_data=access.client_key or None,
        token=Path(access.token_file).read_text().strip() if access.token_file else None,
        priority=100,
    )
