"""One cluster's control loop: look, decide, act, report; again and again, whatever state it finds.

Each cluster has a controller of its own, with its own clients, back-off and tasks: trouble in one touches no other.
Nothing is remembered that could not be seen again, so a controller that was killed at any instant is simply continued
by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets as randomness
import string
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from haneul.dkos import tenant_objects
from haneul.dkos.control_plane import labels
from haneul.dkos.credentials import decode, operator_access, secret_manifest, token_kubeconfig
from haneul.dkos.joining import AnnouncedNode
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import (
    CLUSTERS,
    Cluster,
    ClusterStatus,
    NodePool,
    NodeProviderName,
    project_namespace,
)
from haneul.dkos.node_files import PROVIDER_LABEL, node_files
from haneul.dkos.node_plan import NodePlan, node_statuses, plan_nodes
from haneul.dkos.ports import NodeAnnouncement, NodeProvider, ProvidedNode
from haneul.dkos.signing import NodeSigner
from haneul.dkos.states import Observation, status_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import (
    CERTIFICATE_REQUESTS,
    LEASES,
    NODES,
    PODS,
    SECRETS,
    KubeAccess,
    KubeClient,
    Manifest,
    resource_of,
)

_log = structlog.get_logger(__name__)

_TOKENS = "bootstrap-tokens"
_QUICK, _IDLE = 0.2, 15.0
_RESYNC = timedelta(minutes=10)
_CLIENT_LIFE = timedelta(minutes=30)
_DRAIN = timedelta(seconds=60)

ClientFactory = Callable[[KubeAccess], contextlib.AbstractAsyncContextManager[KubeClient]]


class ClusterController:
    """Makes and keeps one cluster."""

    def __init__(
        self,
        *,
        management: KubeClient,
        masters: Masters,
        providers: Mapping[NodeProviderName, NodeProvider],
        connect: ClientFactory,
        pause_image: str,
        clock: Clock,
    ) -> None:
        self._management = management
        self._masters = masters
        self._providers = providers
        self._connect = connect
        self._pause_image = pause_image
        self._clock = clock
        self._wake = asyncio.Event()
        self._tenant: KubeClient | None = None
        self._tenant_stack = contextlib.AsyncExitStack()
        self._tenant_until: datetime | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._signer: NodeSigner | None = None
        self._base_done: set[str] = set()
        self._joined: dict[str, str] = {}
        self._draining: dict[str, datetime] = {}
        self._resync_at: datetime | None = None

    def wake(self) -> None:
        """Look again soon: something about the cluster changed."""
        self._wake.set()

    async def close(self) -> None:
        """End the controller's tasks and connections."""
        await self._stop_watching()
        await self._tenant_stack.aclose()
        self._tenant = None

    async def _stop_watching(self) -> None:
        for task in self._watches:
            task.cancel()
        for outcome in await asyncio.gather(*self._watches, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.error("a watch ended by an error", exc_info=outcome)
        self._watches.clear()

    async def pause(self, status: ClusterStatus) -> None:
        """Wait until something happens, or until it is time to look again anyway."""
        settled = all(condition.status == "True" for condition in status.conditions)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE if settled else _QUICK):
                await self._wake.wait()
        self._wake.clear()

    async def reconcile(self, cluster: Cluster) -> ClusterStatus:
        """Bring the cluster one look closer to its spec; return and record its status."""
        now = self._clock.now()
        if self._resync_at is None or now >= self._resync_at:
            self._masters.forget()
            self._base_done.clear()
            self._resync_at = now + _RESYNC
        problem = cluster.spec_problem
        if not problem and None in (cluster.spec.network.pods, cluster.spec.network.services):
            problem = "the spec names no ranges; create clusters through the platform's API, which allocates them"
        if problem:
            return await self._report(cluster, Observation(problem=problem))
        masters = await self._masters.observe(cluster)
        serves = any(master.running for master in masters if master.role == "kube-apiserver")
        made = await self._masters.ensure(cluster, all_parts=serves)
        tokens = await self._tokens(cluster)
        if serves:
            await self._announce_machines(cluster, made, tokens)
        api_answers, message = await self._reach_tenant(made, now)
        nodes: Sequence[Manifest] = ()
        provided = await self._observe(cluster)
        if api_answers and self._tenant is not None:
            nodes = await self._tenant.list(NODES)
            plan = plan_nodes(cluster, provided, [node["metadata"]["name"] for node in nodes])
            await self._serve_tenant(self._tenant, cluster, made, plan, provided, nodes, tokens)
        plan = plan_nodes(cluster, provided, ())
        seen = Observation(
            masters=masters,
            api_answers=api_answers,
            api_message=message,
            # Masters that are down say nothing of nodes, which go on without them.
            nodes=node_statuses(plan, provided, nodes)
            if api_answers or not cluster.status.nodes
            else cluster.status.nodes,
            wanted_nodes=cluster.spec.node_count,
            endpoint=made.endpoints.outside,
        )
        return await self._report(cluster, seen)

    async def _report(self, cluster: Cluster, seen: Observation) -> ClusterStatus:
        status = status_of(cluster, seen, self._clock.now())
        if status != cluster.status:
            body = status.model_dump(mode="json", by_alias=True)
            namespace = project_namespace(cluster.project)
            await self._management.patch(CLUSTERS, cluster.name, {"status": body}, namespace, subresource="status")
        return status

    async def _tokens(self, cluster: Cluster) -> dict[str, str]:
        """Return each node's bootstrap token; made once, kept with the masters, one node's never another's."""
        wanted = [name for pool in cluster.spec.node_pools for name in pool.node_names]
        kept = await self._management.get(SECRETS, _TOKENS, cluster.masters_namespace)
        tokens = {name: value.decode() for name, value in decode(kept).items()} if kept else {}
        missing = [name for name in wanted if name not in tokens]
        if missing:
            tokens |= {name: new_bootstrap_token() for name in missing}
            data = {name: value.encode() for name, value in tokens.items()}
            manifest = secret_manifest(cluster.masters_namespace, _TOKENS, data, labels(cluster))
            await self._management.apply(SECRETS, manifest)
        return {name: tokens[name] for name in wanted}

    async def _announce_machines(self, cluster: Cluster, made: MadeMasters, tokens: Mapping[str, str]) -> None:
        authority = made.authorities.cluster.certificate
        async with asyncio.TaskGroup() as group:
            for name, pool in plan_nodes(cluster, (), ()).keep.items():
                announcement = NodeAnnouncement(
                    name,
                    pool,
                    node_files(cluster, pool, name, pause_image=self._pause_image),
                    token_kubeconfig(_server(made, pool), authority, tokens[name]),
                    authority,
                )
                group.create_task(self._providers[pool.provider].ensure(cluster, announcement))

    async def _observe(self, cluster: Cluster) -> list[ProvidedNode]:
        found: list[ProvidedNode] = []
        for provider in self._providers.values():
            found += await provider.observe(cluster)
        return found

    async def _reach_tenant(self, made: MadeMasters, now: datetime) -> tuple[bool, str]:
        """Connect to the cluster's own API with a fresh short-lived certificate; say whether it answers."""
        if self._tenant is None or self._tenant_until is None or now >= self._tenant_until:
            await self.close()
            access = operator_access(made.authorities, made.endpoints, now)
            self._tenant = await self._tenant_stack.enter_async_context(self._connect(access))
            self._tenant_until = now + _CLIENT_LIFE
            self._signer = NodeSigner(authority=made.authorities.cluster, clock=self._clock)
        try:
            await self._tenant.raw_get("/readyz")
        except HaneulError as error:
            return False, f"({error.detail.splitlines()[-1]})" if error.detail else ""
        if not self._watches or any(task.done() for task in self._watches):
            # A watch ends only by an error that nobody foresaw; it is begun again, and looks at everything anew.
            await self._stop_watching()
            tasks = (self._watch_requests(self._tenant), self._watch_nodes(self._tenant))
            self._watches = [asyncio.create_task(task) for task in tasks]
        return True, ""

    async def _watch_requests(self, tenant: KubeClient) -> None:
        async for event in tenant.watch(CERTIFICATE_REQUESTS):
            if self._signer is None:
                continue
            if event.type == "DELETED":
                self._signer.forget(event.object)
            else:
                try:
                    await self._signer.answer(tenant, event.object)
                except HaneulError as error:
                    # The signer keeps it and tries again at the next look.
                    _log.warning("certificate request not answered", error=str(error))

    async def _watch_nodes(self, tenant: KubeClient) -> None:
        async for _ in tenant.watch(NODES):
            self.wake()

    async def _serve_tenant(
        self,
        tenant: KubeClient,
        cluster: Cluster,
        made: MadeMasters,
        plan: NodePlan,
        provided: Sequence[ProvidedNode],
        nodes: Sequence[Manifest],
        tokens: Mapping[str, str],
    ) -> None:
        """Put into the tenant's cluster what its nodes and people need; take out what no pool wants."""
        await self._apply_base(tenant, cluster, made)
        machines = {machine.name: machine for machine in provided}
        announced = {
            name: AnnouncedNode(
                name,
                f"system:bootstrap:{tokens[name].split('.')[0]}",
                machines[name].address if name in machines else "",
            )
            for name in plan.keep
        }
        if self._signer is not None:
            await self._signer.announce(tenant, announced)
        by_name = {node["metadata"]["name"]: node for node in nodes}
        async with asyncio.TaskGroup() as group:
            for name in plan.keep:
                group.create_task(self._keep_token(tenant, name, machines.get(name), by_name.get(name), tokens[name]))
            for name in plan.drop:
                group.create_task(self._drop(tenant, cluster, name))

    async def _apply_base(self, tenant: KubeClient, cluster: Cluster, made: MadeMasters) -> None:
        async def apply(manifest: Manifest) -> None:
            key = f"{manifest['kind']}/{manifest['metadata']['name']}"
            if key not in self._base_done:
                await tenant.apply(resource_of(manifest), manifest)
                self._base_done.add(key)

        async with asyncio.TaskGroup() as group:
            for manifest in tenant_objects.base_objects(cluster, made.endpoints):
                group.create_task(apply(manifest))

    async def _keep_token(
        self, tenant: KubeClient, name: str, machine: ProvidedNode | None, node: Manifest | None, token: str
    ) -> None:
        """A node's token is valid from when its machine is made until that machine has joined."""
        if machine is None or not machine.instance or self._joined.get(name) == machine.instance:
            return
        if node is not None and await self._has_joined(tenant, name, machine):
            await tenant.delete(SECRETS, tenant_objects.token_secret_name(token), "kube-system")
            self._joined[name] = machine.instance
            return
        key = f"token/{name}/{machine.instance}"
        if key not in self._base_done:
            await tenant.apply(SECRETS, tenant_objects.bootstrap_token(token, name, self._clock.now()))
            self._base_done.add(key)

    async def _has_joined(self, tenant: KubeClient, name: str, machine: ProvidedNode) -> bool:
        """Only this machine can have renewed its lease after it started."""
        lease = await tenant.get(LEASES, name, "kube-node-lease")
        renewed = (lease or {}).get("spec", {}).get("renewTime")
        return bool(renewed and machine.started and datetime.fromisoformat(renewed) > machine.started)

    async def _drop(self, tenant: KubeClient, cluster: Cluster, name: str) -> None:
        """Take a node out: no new pods, those on a machine end in peace, then its machine, then its object."""
        node = await tenant.get(NODES, name)
        if node is not None:
            await tenant.patch(NODES, name, {"spec": {"unschedulable": True}})
            if not await self._drained(tenant, node):
                return
        for provider in self._providers.values():
            await provider.remove(cluster, name)
        await tenant.delete(NODES, name)
        self._joined.pop(name, None)
        self._draining.pop(name, None)

    async def _drained(self, tenant: KubeClient, node: Manifest) -> bool:
        """Ask the pods of a machine to end, with the time that each asked for; say whether that is over.

        A machine that is silent, or whose pods take too long, is not waited for. Sandbox nodes end as one.
        """
        metadata = node["metadata"]
        name, labels_of_node = metadata["name"], metadata.get("labels", {})
        ready = any(
            entry["type"] == "Ready" and entry["status"] == "True"
            for entry in node.get("status", {}).get("conditions", [])
        )
        if labels_of_node.get(PROVIDER_LABEL) != NodeProviderName.SSH or not ready:
            return True
        now = self._clock.now()
        until = self._draining.setdefault(name, now + _DRAIN)
        pods = [pod for pod in await tenant.list(PODS) if pod["spec"].get("nodeName") == name]
        left = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        for pod in left:
            if "deletionTimestamp" not in pod["metadata"]:
                await tenant.delete(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"])
        return not left or now >= until


def _server(made: MadeMasters, pool: NodePool) -> str:
    """Machines stand outside the management cluster, where its service addresses lead nowhere."""
    return made.endpoints.outside if pool.provider is NodeProviderName.SSH else made.endpoints.inside


def new_bootstrap_token() -> str:
    """Return a fresh bootstrap token: six characters that name it, sixteen that are secret."""
    alphabet = string.ascii_lowercase + string.digits

    def text(length: int) -> str:
        return "".join(randomness.choice(alphabet) for _ in range(length))

    return f"{text(6)}.{text(16)}"
