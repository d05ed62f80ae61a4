"""``haneul bench`` put together: a lab of clusters on this host's platform, the peer, the process table.

The lab asks for clusters where the platform's API puts them, after the same admission, and is then a client like any
other: everything that is timed is seen at the cluster's own API server, at its address outside, over TLS verified by
the cluster's authority. Its certificate is signed by the authority that signs people's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Self, cast

from haneul.app.installation import this_host
from haneul.app.reserved import reserved_ranges
from haneul.bench.cli import Outcome
from haneul.bench.dkos import BenchPlan, DkosBench
from haneul.bench.machine import machine_facts
from haneul.bench.plain_kubernetes import PlainProcesses
from haneul.bench.process_usage import HostProcesses
from haneul.bench.readiness import INTERVAL, wait_ready
from haneul.cli.progress import TerminalProgress
from haneul.components.table import COMPONENTS, image_reference
from haneul.dkos.adapters.kube_authorities import KubeAuthorities
from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.admission import TakenRange, admit
from haneul.dkos.model import CLUSTERS, ClusterSpec, Network, NetworkPlugin, NodePool, Phase, project_namespace
from haneul.dkos.quota import QuotaLimits
from haneul.dkos.service import ClientAuthority
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import ConflictError, DeadlineExceededError, NotFoundError, UnavailableError
from haneul.kernel.kube import (
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    KubeAccess,
    KubeApiError,
    KubeClient,
    Manifest,
    Resource,
    WatchEvent,
)
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.pki import LeafProfile, issue_leaf
from haneul.kernel.waiting import wait_for

PROJECT: Final = "bench"
#: The label of the namespace that is ours to empty.
_MARK: Final = "bench.haneul.dev/owned"
#: What is measured is the machine's limit, not the quota's.
_ROOM: Final = QuotaLimits(clusters=10_000, nodes=100_000, cpu=1_000_000, memory_mib=1 << 30)
_WAIT_SECONDS: Final = 180.0
_CREDENTIAL_LIFE: Final = timedelta(hours=2)
#: What the figures of clusters depend on most.
_SHOWN: Final = ("kubernetes", "etcd", "containerd", "cilium")


class PlatformLab:
    """Clusters of the project ``bench``; ``management`` is the management cluster's API as its administrator."""

    def __init__(
        self, management: HttpKubeClient, *, processes: HostProcesses, reserved: Sequence[TakenRange], clock: Clock
    ) -> None:
        self._management = management
        self._processes = processes
        self._reserved = reserved
        self._clock = clock
        self._clusters = KubeClusters(management, clock=clock)
        self._authorities = KubeAuthorities(management)
        self._tenants: dict[str, HttpKubeClient] = {}
        #: When clusters were asked to wake: what their nodes said before that is of before their sleep.
        self._woken: dict[str, datetime] = {}

    async def __aenter__(self) -> Self:
        """Make the project's namespace, or take over that of a run that was killed; people's projects are theirs."""
        namespace = project_namespace(PROJECT)
        found = await self._management.get(NAMESPACES, namespace)
        if found is not None and _MARK not in found["metadata"].get("labels", {}):
            raise ConflictError(
                f"the project {PROJECT}, in which clusters are measured, is somebody's own",
                hint="measure on a platform without a project of this name",
            )
        if found is None:
            labels = {_MARK: "true", "pod-security.kubernetes.io/enforce": "restricted"}
            metadata = {"name": namespace, "labels": labels}
            await self._management.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        await self._clusters.set_quota(PROJECT, _ROOM)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections, and remove the namespace unless clusters are left, which the next run deletes."""
        for tenant in self._tenants.values():
            await tenant.close()
        if not await self._clusters.list(PROJECT):
            await self._clusters.set_quota(PROJECT, QuotaLimits())
            await self._management.delete(NAMESPACES, project_namespace(PROJECT))
            await self._wait_gone(NAMESPACES, project_namespace(PROJECT))

    async def clear(self) -> None:
        """Delete all clusters of the project."""
        names = [cluster.name for cluster in await self._clusters.list(PROJECT)]
        await asyncio.gather(*(self.delete(name) for name in names))

    async def create(self, name: str, network: str, nodes: int) -> None:
        """Ask for a cluster with free ranges."""
        await self.create_from(
            name, ClusterSpec(network=Network(plugin=NetworkPlugin(network)), node_pools=(NodePool(count=nodes),))
        )

    async def create_from(self, name: str, spec: ClusterSpec) -> None:
        """Ask for a cluster by its spec, with free ranges."""
        await self._clusters.create(
            PROJECT, name, lambda others: admit(name, spec, project=PROJECT, others=others, reserved=self._reserved)
        )

    async def wait_api(self, name: str) -> None:
        """Get a credential as soon as there can be one, then ask the API server until it is ready."""
        cluster = await self._clusters.get(PROJECT, name)

        async def authority() -> ClientAuthority | None:
            return await self._authorities.of(cluster)

        signer = await wait_for(
            authority,
            what=f"the authority of {name}",
            timeout=_WAIT_SECONDS,
            clock=self._clock,
            interval=INTERVAL,
            max_interval=INTERVAL,
        )
        profile = LeafProfile("haneul:bench", ("system:masters",), client=True)
        leaf = issue_leaf(signer.pair, profile, now=self._clock.now(), life=_CREDENTIAL_LIFE)
        access = KubeAccess(signer.server, signer.pair.certificate, leaf.certificate, leaf.key)
        self._tenants[name] = HttpKubeClient(access, user_agent="haneul-bench")
        what = f"the API of {name} at {signer.server}"
        await wait_ready(self._tenants[name], what=what, timeout=_WAIT_SECONDS, clock=self._clock)

    async def wait_account(self, name: str) -> None:
        """Watch for the service account ``default``."""
        await self._watch_for(name, SERVICE_ACCOUNTS, "default", lambda seen: seen["metadata"]["name"] == "default")

    async def wait_node(self, name: str) -> None:
        """Watch for a node that is Ready, and said so since the cluster was asked to wake."""
        since = self._woken.get(name)
        await self._watch_for(name, NODES, "", lambda seen: _is_ready(seen, since))

    async def hibernate(self, name: str) -> None:
        """Write the wish down, as the platform's API does, and ask until the cluster sleeps."""
        if (tenant := self._tenants.pop(name, None)) is not None:
            await tenant.close()
        await self._say(name, asleep=True)

        async def asleep() -> bool:
            status = (await self._clusters.get(PROJECT, name)).status
            return status.phase is Phase.ASLEEP

        await wait_for(asleep, what=f"{name} to sleep", timeout=_WAIT_SECONDS, clock=self._clock, max_interval=0.2)

    async def wake(self, name: str) -> None:
        """Write the wish down, as the platform's API does."""
        self._woken[name] = self._clock.now()
        await self._say(name, asleep=False)

    async def _say(self, name: str, *, asleep: bool) -> None:
        cluster = await self._clusters.get(PROJECT, name)
        word = cluster.spec.hibernation.model_copy(update={"asleep": asleep, "asked": self._clock.now()})
        await self._clusters.replace_spec(cluster, cluster.spec.model_copy(update={"hibernation": word}))

    def tenant(self, name: str) -> KubeClient:
        """Return a cluster's own API, once that was waited for."""
        return self._tenants[name]

    async def node_pods(self, name: str) -> dict[str, Manifest]:
        """Return the management cluster's pods that are a cluster's nodes, by the node's name."""
        cluster = await self._clusters.get(PROJECT, name)
        pods = await self._management.list(PODS, cluster.nodes_namespace)
        return {pod["metadata"]["name"].rpartition("-")[0]: pod for pod in pods}

    async def run_pod(self, name: str, pod: str, node: str = "") -> None:
        """Make a pod, on a node if one is named, as soon as its service account allows it, and watch it start."""
        tenant = self._tenants[name]

        async def made() -> bool:
            try:
                await tenant.create(PODS, _pod(pod, node))
            except KubeApiError as error:
                if error.status == 403:
                    return False
                raise
            return True

        what = f"leave to make a pod on {name}"
        await wait_for(
            made, what=what, timeout=_WAIT_SECONDS, clock=self._clock, interval=INTERVAL, max_interval=INTERVAL
        )
        await self._watch_for(name, PODS, "default", lambda seen: seen["metadata"]["name"] == pod and _runs(seen))

    async def delete(self, name: str) -> None:
        """Delete a cluster and wait until its resource and namespaces are gone."""
        if (tenant := self._tenants.pop(name, None)) is not None:
            await tenant.close()
        try:
            cluster = await self._clusters.get(PROJECT, name)
        except NotFoundError:
            return
        await self._management.delete(CLUSTERS, name, project_namespace(PROJECT))
        await self._wait_gone(CLUSTERS, name, project_namespace(PROJECT))
        for namespace in (cluster.masters_namespace, cluster.nodes_namespace):
            await self._wait_gone(NAMESPACES, namespace)

    async def master_processes(self, name: str) -> Sequence[int]:
        """Return the processes of the pods in the cluster's masters namespace."""
        cluster = await self._clusters.get(PROJECT, name)
        pods = await self._management.list(PODS, cluster.masters_namespace)
        return self._processes.of_pods([pod["metadata"]["uid"] for pod in pods])

    async def _watch_for(
        self, name: str, resource: Resource, namespace: str, matches: Callable[[Manifest], bool]
    ) -> None:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                # Closed at once, so that the connection does not stay open until the garbage is collected.
                watch = cast("AsyncGenerator[WatchEvent, None]", self._tenants[name].watch(resource, namespace))
                async with contextlib.aclosing(watch) as events:
                    async for event in events:
                        if event.type != "DELETED" and matches(event.object):
                            return
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"waited {_WAIT_SECONDS:.0f} s for {resource.kind} on cluster {name} of project {PROJECT}"
            ) from error

    async def _wait_gone(self, resource: Resource, name: str, namespace: str = "") -> None:
        async def gone() -> bool:
            try:
                return await self._management.get(resource, name, namespace) is None
            except UnavailableError:
                # A connection lost on a busy machine must not cost the figures of the whole run.
                return False

        what = f"{resource.kind} {name} to be gone"
        await wait_for(gone, what=what, timeout=_WAIT_SECONDS, clock=self._clock, max_interval=0.2)


async def run_dkos_bench(plan: BenchPlan, peer: bool, outcome: Outcome) -> None:
    """Measure clusters on this host's platform; with ``peer``, plain processes of the same programs too."""
    clock, processes = SystemClock(), HostProcesses()
    installation = await this_host()

    def make_peer() -> PlainProcesses:
        return PlainProcesses(installation.store.program, clock=clock)

    async with installation.lifecycle.client() as management:
        outcome.machine |= machine_facts() | versions(*_SHOWN) | {"other clusters": str(await _others(management))}
        async with PlatformLab(
            management, processes=processes, reserved=reserved_ranges(installation.settings), clock=clock
        ) as lab:
            bench = DkosBench(
                lab,
                make_peer=make_peer if peer else None,
                processes=processes,
                clock=clock,
                progress=TerminalProgress(),
            )
            await bench.run(plan, outcome.figures)
            outcome.machine["other clusters"] += f", at the end {await _others(management)}"


def versions(*shown: str) -> dict[str, str]:
    """Return the versions of the components of these names."""
    return {row.name: row.version for row in COMPONENTS if row.name in shown}


async def _others(management: HttpKubeClient) -> int:
    """Return how many clusters run besides those measured: they take their share of the machine."""
    mine = project_namespace(PROJECT)
    return sum(item["metadata"]["namespace"] != mine for item in await management.list(CLUSTERS))


def _pod(name: str, node: str = "") -> Manifest:
    container = {
        "name": "main",
        "image": image_reference("agnhost"),
        "imagePullPolicy": "IfNotPresent",
        "args": ["pause"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
            **({"nodeName": node} if node else {}),
        },
    }


def _runs(pod: Manifest) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Running")


def _is_ready(node: Manifest, since: datetime | None) -> bool:
    for entry in node.get("status", {}).get("conditions", []):
        if entry["type"] == "Ready" and entry["status"] == "True":
            # A Node object outlives its machine; one that slept says what was before.
            return since is None or datetime.fromisoformat(entry["lastHeartbeatTime"]) > since
    return False
