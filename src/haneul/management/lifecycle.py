"""`up`, `down` and `status` of this host's part of the management cluster.

`up` is a list of steps, each of which may be repeated: an `up` that was killed at any instant is finished by the next
one, which finds each step done, half done or not begun, and makes it done. What `up` makes is recorded nowhere but in
the things themselves; `down --purge` (:mod:`haneul.management.purge`) removes them by what they are.
"""

from __future__ import annotations

import filecmp
import secrets as randomness
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from haneul.host.services import ServiceManager, ServiceState
from haneul.kernel.clock import Clock
from haneul.kernel.documents import from_yaml
from haneul.kernel.errors import ConflictError, HaneulError
from haneul.kernel.files import write_atomically
from haneul.kernel.kube import DAEMON_SETS, DEPLOYMENTS, NODES, PODS, Manifest, is_ready, resource_of
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.process import run
from haneul.kernel.progress import Progress
from haneul.kernel.waiting import wait_for
from haneul.management import (
    api_server_files,
    cilium,
    kubeadm,
    loopback_guard,
    public_addresses,
    ranges,
    reports,
    runtime,
    secrets_at_rest,
)
from haneul.management.containers import ContainerRuntime, search_path
from haneul.management.host_lock import host_lock
from haneul.management.host_users import HostUsers
from haneul.management.ingress_host import IngressHost
from haneul.management.kernel_settings import raise_kernel_settings
from haneul.management.mount_sharing import share_mounts
from haneul.management.name_server import NameServer
from haneul.management.ports import Artifacts
from haneul.management.renewal import Doing, HostCertificates
from haneul.management.settings import ManagementSettings

_IMAGES = (
    "pause",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "cilium",
)
_PLUGINS = ("loopback", "cilium-cni")
_API_SERVER = Path("/etc/kubernetes/manifests/kube-apiserver.yaml")
_OWNER_MARK = Path("/etc/kubernetes/haneul-owned")


@dataclass(frozen=True)
class HostStatus:
    """What `haneul status` shows of this host."""

    services: tuple[ServiceState, ...]
    api: str
    nodes: tuple[tuple[str, bool], ...]


class Lifecycle:
    """This host's part of the management cluster."""

    def __init__(
        self, settings: ManagementSettings, *, artifacts: Artifacts, services: ServiceManager, clock: Clock
    ) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._services = services
        self._clock = clock
        self.containers = ContainerRuntime(settings, artifacts=artifacts, services=services, clock=clock)
        self.name_server = NameServer(settings, services=services, clock=clock)
        self.ingress = IngressHost(settings, services=services)
        doing = Doing(self._kubeadm, self._restart_kubelet, self.client)
        self.certificates = HostCertificates(settings, doing, clock=clock)
        self.users = HostUsers(settings, clock=clock)

    async def up(self, progress: Progress) -> None:
        """Bring the management cluster up, from whatever state it is in. The caller holds the host's lock."""
        settings = self._settings
        settings.state.mkdir(parents=True, exist_ok=True)
        settings.state.chmod(0o700)
        # Tenants' etcd members, which are not root, make their folders here; nobody else gets past the folder above.
        settings.clusters.mkdir(exist_ok=True)
        settings.clusters.chmod(0o777)
        with progress.stage("prepare the host", expected_seconds=1):
            ranges.check(settings)
            public_addresses.check(settings)
            self._claim_host()
            ranges.keep(settings)
            secrets_at_rest.ensure_key(settings, randomness.token_bytes)
            api_server_files.write(settings)
            raise_kernel_settings(settings.state / "kernel-settings.json")
            await self._prepare_mounts()
            self._install_plugins()
            await self.ingress.open()
        with progress.stage("start the container runtime", expected_seconds=3):
            await self.containers.start()
        with progress.stage("load images", expected_seconds=25) as stage:
            for name in _IMAGES:
                stage.note(name)
                await self.containers.load_image(name)
        with progress.stage("start the management cluster", expected_seconds=15) as stage:
            await self._start_kubernetes()
            stage.note("the API server")
            await self._wait_for_api()
            for phase in kubeadm.PHASES_AFTER_KUBELET:
                stage.note(" ".join(phase))
                await self._kubeadm_phase(phase)
            stage.note("the kubelet and the controllers to report what runs")
            await self._wait_for_reports()
            async with self.client() as client:
                await secrets_at_rest.encrypt_older_secrets(settings, client, clock=self._clock)
        with progress.stage("start the network", expected_seconds=25) as stage:
            await self.apply(cilium.manifests(settings, image=self._artifacts.image_reference("cilium")))
            stage.note("Cilium's agent compiles its BPF programs")
            await self._wait_for_network()
        # Last, for clusters run without it: they come back also where it cannot start.
        with progress.stage("start the DNS server", expected_seconds=2):
            await self.name_server.start()

    async def down(self, progress: Progress) -> None:
        """Stop everything that runs; what it knows stays on disk for the next `up`.

        The caller holds the host's lock.
        """
        with progress.stage("stop the kubelet", expected_seconds=2):
            await self._services.stop("certificates")
            await self.ingress.stop()
            await self._services.stop("kubelet")
        with progress.stage("stop all pods", expected_seconds=10):
            await self.containers.stop_pods()
        with progress.stage("stop the host services", expected_seconds=5):
            await self._services.stop("containerd")
            await self._services.shut_down()
            await self.ingress.close()
            await public_addresses.remove()
            await loopback_guard.remove()

    async def status(self) -> HostStatus:
        """Return what is seen of this host, without waiting for anything long."""
        states = tuple(await self._services.states())
        try:
            async with self.client() as client:
                await client.raw_get("/readyz")
                nodes = tuple((node["metadata"]["name"], is_ready(node)) for node in await client.list(NODES))
                return HostStatus(states, "ready", nodes)
        except (HaneulError, FileNotFoundError) as error:
            return HostStatus(states, f"does not answer ({error})", ())

    def client(self) -> HttpKubeClient:
        """Return a client of the management cluster's API as its administrator."""
        return HttpKubeClient(access_from_kubeconfig(self._settings.admin_kubeconfig))

    async def apply(self, manifests: Sequence[Manifest]) -> None:
        """Apply manifests of built-in kinds, in order."""
        async with self.client() as client:
            for manifest in manifests:
                await client.apply(resource_of(manifest), manifest)

    def _claim_host(self) -> None:
        """Take the places that Kubernetes hard-codes, unless somebody else's installation lives there."""
        folder = _OWNER_MARK.parent
        if folder.exists() and any(folder.iterdir()) and not _OWNER_MARK.exists():
            raise ConflictError(
                f"{folder} belongs to another Kubernetes installation on this host",
                hint="remove that installation ('kubeadm reset' and delete the folder) or use another host",
            )
        write_atomically(_OWNER_MARK, "Made by 'haneul up'; 'haneul down --purge' removes this folder.\n")

    async def _prepare_mounts(self) -> None:
        """Cilium's mounts must reach its pods: the root has to share, bpf's file system has to be there."""
        await share_mounts(self._settings.state / "private-mounts.json")
        if (await run(["mountpoint", "-q", "/sys/fs/bpf"], timeout=10, check=False)).status != 0:
            await run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], timeout=10)
            write_atomically(self._settings.state / "mounted-bpf", "")

    def _install_plugins(self) -> None:
        folder = self._settings.state / "cni" / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        (self._settings.state / "cni" / "net.d").mkdir(parents=True, exist_ok=True)
        for name in _PLUGINS:
            source, target = self._artifacts.program(name), folder / name
            if not target.exists() or not filecmp.cmp(source, target, shallow=False):
                temporary = target.with_name(f".{name}")
                shutil.copy(source, temporary)
                temporary.rename(target)

    async def _start_kubernetes(self) -> None:
        settings = self._settings
        versions = {
            name: self._artifacts.image_reference(name).rsplit(":v", 1)[1] for name in ("etcd", "kube-apiserver")
        }
        write_atomically(
            settings.kubeadm_file,
            kubeadm.configuration(settings, kubernetes=versions["kube-apiserver"], etcd=versions["etcd"]),
            mode=0o600,
        )
        # kubeadm reads the folder in every phase, also in those that write nothing that is patched.
        (settings.state / "kubeadm-patches").mkdir(exist_ok=True)
        # A host that was off for a year has certificates that ended, and one that was cut off while they were renewed
        # has a key of another: kubeadm would refuse to go on with such.
        restart_kubelet = await self.certificates.renew_files()
        for phase in kubeadm.PHASES_OF_FILES:
            await self._kubeadm_phase(phase)
        self.certificates.keep_administrator()
        self.users.ensure()
        self.certificates.write_patches()
        for phase in kubeadm.PHASES_BEFORE_KUBELET:
            await self._kubeadm_phase(phase)
        # kubeadm lets everybody read it and keeps the mode that it finds.
        runtime.KUBELET_CONFIGURATION.chmod(0o600)
        if restart_kubelet:
            await self._services.stop("kubelet")
        await self._start_kubelet()

    async def renew(self) -> None:
        """Renew this host's certificates that are due; does nothing, and waits for nobody, if none is."""
        # First, as these live the shortest, and nothing has to be started anew for them.
        self.users.ensure()
        if not self.certificates.pending():
            return
        with host_lock(self._settings.state, "haneul renew", clock=self._clock):
            await self.certificates.renew()

    async def _start_kubelet(self) -> None:
        program = self._artifacts.program("kubelet")
        await self._services.ensure(
            runtime.kubelet_service(self._settings, program=program, search_path=search_path(self._artifacts))
        )

    async def _restart_kubelet(self) -> None:
        await self._services.stop("kubelet")
        await self._start_kubelet()

    async def _kubeadm_phase(self, phase: tuple[str, ...]) -> None:
        await self._kubeadm(["init", "phase", *phase, "--config", str(self._settings.kubeadm_file)])

    async def _kubeadm(self, arguments: Sequence[str]) -> None:
        await run(
            [str(self._artifacts.program("kubeadm")), *arguments],
            env={"PATH": search_path(self._artifacts)},
            timeout=150,
        )

    async def _wait_for_api(self) -> None:
        async with self.client() as client:

            async def ready() -> bool:
                try:
                    await client.raw_get("/readyz")
                    pod = await client.get(PODS, f"kube-apiserver-{self._settings.host_name}", "kube-system")
                except HaneulError:
                    return False
                # One that is about to be replaced would be gone in the middle of what follows.
                return reports.replaced(pod, from_yaml(_API_SERVER.read_text()))

            await wait_for(
                ready,
                what="the management API server to answer",
                timeout=120,
                clock=self._clock,
                hint=f"look at {self._settings.logs}/kubelet.log and at /var/log/pods",
            )

    async def _wait_for_reports(self) -> None:
        """Wait until what the API says of this host's pods and of the platform is about now, not about before."""
        async with self.client() as client:

            async def current() -> bool:
                running = await self.containers.running()
                pods = await client.list(PODS)
                owners = [
                    owner
                    for namespace in self._settings.namespaces
                    for kind in (DEPLOYMENTS, DAEMON_SETS)
                    for owner in await client.list(kind, namespace)
                ]
                outdated = reports.outdated_pods(pods, host=self._settings.host_name, running=running)
                return not outdated and not reports.outdated_counts(owners, pods)

            await wait_for(
                current,
                what="the kubelet and the controllers to report what runs",
                timeout=90,
                clock=self._clock,
                hint=f"look at {self._settings.logs}/kubelet.log",
            )

    async def _wait_for_network(self) -> None:
        async with self.client() as client:

            async def ready() -> bool:
                agents = await client.get(DAEMON_SETS, "cilium", "kube-system")
                status = (agents or {}).get("status", {})
                nodes = await client.list(NODES)
                wanted = status.get("desiredNumberScheduled", 0)
                return (
                    0 < wanted == status.get("numberReady", 0)
                    and status.get("observedGeneration") == (agents or {})["metadata"]["generation"]
                    and all(is_ready(node) for node in nodes)
                )

            await wait_for(
                ready,
                what="Cilium's agents and the nodes to be ready",
                timeout=180,
                clock=self._clock,
                hint="look at the logs of the pods in the namespace kube-system",
            )
