"""One cluster's control loop: look, decide, act, report; again and again, whatever state it finds.

Each cluster has a controller of its own, with its own clients, back-off and tasks: trouble in one touches no other.
Nothing is remembered that could not be seen again, so a controller that was killed at any instant is simply continued
by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets as randomness
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from haneul.dkos import tenant_objects
from haneul.dkos.changing import NodeChanger
from haneul.dkos.control_plane import labels
from haneul.dkos.credentials import decode, operator_access, secret_manifest, token_kubeconfig
from haneul.dkos.events import Event, Look, credentials_renewed, told
from haneul.dkos.gate_keeping import GateKeeping
from haneul.dkos.joining import AnnouncedNode
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import (
    CLUSTERS,
    Cluster,
    ClusterStatus,
    NetworkPlugin,
    NodeProviderName,
    cluster_from_resource,
    project_namespace,
)
from haneul.dkos.node_files import node_files
from haneul.dkos.node_plan import NodePlan, node_statuses, plan_nodes, what_matters
from haneul.dkos.pace import IDLE, Pace, is_settled
from haneul.dkos.ports import JoinGate, NodeAnnouncement, NodeProvider, ProvidedNode
from haneul.dkos.signing import NodeSigner
from haneul.dkos.states import Observation, status_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import (
    CERTIFICATE_REQUESTS,
    LEASES,
    NODES,
    SECRETS,
    KubeAccess,
    KubeClient,
    Manifest,
    resource_of,
)

_log = structlog.get_logger(__name__)

_TOKENS = "bootstrap-tokens"
_RESYNC = timedelta(minutes=10)
_CLIENT_LIFE = timedelta(minutes=30)

ClientFactory = Callable[[KubeAccess], contextlib.AbstractAsyncContextManager[KubeClient]]
#: Takes note of what happened to a cluster; never waits, never fails.
Tell = Callable[[Cluster, Event], None]


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
        tell: Tell,
        gate: JoinGate,
    ) -> None:
        self._management = management
        self._masters = masters
        self._providers = providers
        self._connect = connect
        self._pause_image = pause_image
        self._clock = clock
        self._tell = tell
        self._gate = GateKeeping(gate, read=self._read, observe=self._observe)
        self._last_look: Look | None = None
        self._wake = asyncio.Event()
        self._tenant: KubeClient | None = None
        self._tenant_stack = contextlib.AsyncExitStack()
        self._tenant_until: datetime | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._signer: NodeSigner | None = None
        self._pace = Pace()
        self._settled = False
        self._changer = NodeChanger(providers, clock)
        self._base_done: set[str] = set()
        self._base_applied: NetworkPlugin | None = None
        self._joined: dict[str, str] = {}
        self._resync_at: datetime | None = None
        # What was read or rendered last, as long as it may be used again.
        self._tokens_kept: dict[str, str] = {}
        self._tokens_until = 0.0
        self._announced: tuple[tuple[object, ...], dict[str, NodeAnnouncement]] | None = None

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
        self._settled = is_settled(status)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.after(status, self._clock.monotonic())):
                await self._wake.wait()
        self._wake.clear()

    async def reconcile(self, cluster: Cluster) -> ClusterStatus:
        """Bring the cluster one look closer to its spec; return and record its status."""
        now = self._clock.now()
        if self._resync_at is None or now >= self._resync_at:
            self._masters.forget()
            self._base_done.clear()
            self._base_applied = None
            self._resync_at = now + _RESYNC
        problem = cluster.spec_problem
        if not problem and None in (cluster.spec.network.pods, cluster.spec.network.services):
            problem = "the spec names no ranges; create clusters through the platform's API, which allocates them"
        if problem:
            return await self._report(cluster, Observation(problem=problem))
        masters = await self._masters.observe(cluster)
        serves = any(master.running for master in masters if master.role == "kube-apiserver")
        made = await self._masters.ensure(cluster, all_parts=serves)
        for component in made.renewed:
            self._tell(cluster, credentials_renewed(component))
        tokens = await self._tokens(cluster)
        announced = self._announcements(cluster, made, tokens)
        provided = await self._observe(cluster)
        if serves and await self._make_machines(cluster, announced, provided):
            provided = await self._observe(cluster)
        api_answers, message = await self._reach_tenant(cluster, made, now)
        nodes: Sequence[Manifest] = ()
        plan = plan_nodes(cluster, provided, ())
        change = ""
        barred: Mapping[str, str] = {}
        if api_answers and self._tenant is not None:
            nodes = await self._tenant.list(NODES)
            barred = await self._gate.look(cluster, plan, provided, nodes)
            await self._serve_tenant(self._tenant, cluster, plan, provided, nodes, tokens, barred)
            change = await self._changer.look(self._tenant, cluster, announced, provided, nodes, barred)
        seen = Observation(
            masters=masters,
            api_answers=api_answers,
            api_message=message,
            # Masters that are down say nothing of nodes, which go on without them.
            nodes=node_statuses(plan, provided, nodes, barred)
            if api_answers or not cluster.status.nodes
            else cluster.status.nodes,
            wanted_nodes=cluster.spec.node_count,
            endpoint=made.endpoints.outside,
            change=change,
        )
        return await self._report(cluster, seen, provided)

    async def _report(
        self, cluster: Cluster, seen: Observation, provided: Sequence[ProvidedNode] = ()
    ) -> ClusterStatus:
        now = self._clock.now()
        status = status_of(cluster, seen, now)
        if status != cluster.status:
            body = status.model_dump(mode="json", by_alias=True)
            namespace = project_namespace(cluster.project)
            await self._management.patch(CLUSTERS, cluster.name, {"status": body}, namespace, subresource="status")
        self._tell_changes(cluster, Look(status, seen.masters, {one.name: one.instance for one in provided}, now))
        return status

    def _tell_changes(self, cluster: Cluster, look: Look) -> None:
        """Tell what changed since this controller's last look, or else since the status that another one wrote."""
        before = self._last_look or Look(cluster.status)
        # A machine that is being made anew has no instance for a while; which one was there before is kept in mind.
        machines = {name: instance or before.machines.get(name, "") for name, instance in look.machines.items()}
        look = replace(look, machines=machines)
        for event in told(before, look):
            self._tell(cluster, event)
        self._last_look = look

    async def _tokens(self, cluster: Cluster) -> dict[str, str]:
        """Return each node's bootstrap token; made once, kept with the masters, one node's never another's."""
        wanted = [f"{pool.name}-{number}" for pool in cluster.spec.node_pools for number in range(pool.count)]
        now = self._clock.monotonic()
        if now < self._tokens_until and self._tokens_kept.keys() == set(wanted):
            return self._tokens_kept
        kept = await self._management.get(SECRETS, _TOKENS, cluster.masters_namespace)
        tokens = {name: value.decode() for name, value in decode(kept).items()} if kept else {}
        missing = [name for name in wanted if name not in tokens]
        if missing:
            tokens |= {name: new_bootstrap_token() for name in missing}
            data = {name: value.encode() for name, value in tokens.items()}
            manifest = secret_manifest(cluster.masters_namespace, _TOKENS, data, labels(cluster))
            await self._management.apply(SECRETS, manifest)
        self._tokens_kept = {name: tokens[name] for name in wanted}
        self._tokens_until = now + IDLE
        return self._tokens_kept

    def _announcements(
        self, cluster: Cluster, made: MadeMasters, tokens: Mapping[str, str]
    ) -> dict[str, NodeAnnouncement]:
        """Return what the wanted nodes are made from; rendered anew only if something that goes into it changed."""
        authority = made.authorities.cluster.certificate
        inputs = (cluster.spec, made.endpoints.inside, authority, tokens)
        if self._announced is None or self._announced[0] != inputs:
            announced = {
                name: NodeAnnouncement(
                    name,
                    pool,
                    node_files(cluster, pool, name, pause_image=self._pause_image),
                    token_kubeconfig(made.endpoints.inside, authority, tokens[name]),
                    authority,
                )
                for name, pool in plan_nodes(cluster, (), ()).keep.items()
            }
            self._announced = (inputs, announced)
        return self._announced[1]

    async def _make_machines(
        self, cluster: Cluster, announced: Mapping[str, NodeAnnouncement], provided: Sequence[ProvidedNode]
    ) -> bool:
        """Make what is missing and keep what is as it should be; say whether something was missing.

        A machine that was made from something else waits until its turn comes.
        """
        machines = {machine.name: machine for machine in provided}
        async with asyncio.TaskGroup() as group:
            for name, node in announced.items():
                if not self._changer.outdated(cluster, node, machines.get(name)):
                    group.create_task(self._providers[node.pool.provider].ensure(cluster, node))
        return not announced.keys() <= machines.keys()

    async def _read(self, cluster: Cluster) -> Cluster | None:
        """Return the cluster as it is asked for now, if it is still the same one."""
        found = await self._management.get(CLUSTERS, cluster.name, project_namespace(cluster.project))
        current = None if found is None else cluster_from_resource(found)
        return current if current is not None and current.uid == cluster.uid else None

    async def _observe(self, cluster: Cluster) -> list[ProvidedNode]:
        found: list[ProvidedNode] = []
        for provider in self._providers.values():
            found += await provider.observe(cluster)
        return found

    async def _reach_tenant(self, cluster: Cluster, made: MadeMasters, now: datetime) -> tuple[bool, str]:
        """Connect to the cluster's own API with a fresh short-lived certificate; say whether it answers."""
        if self._tenant is None or self._tenant_until is None or now >= self._tenant_until:
            await self.close()
            access = operator_access(made.authorities, made.endpoints, now)
            self._tenant = await self._tenant_stack.enter_async_context(self._connect(access))
            self._tenant_until = now + _CLIENT_LIFE
            tell = functools.partial(self._tell, cluster)
            self._signer = NodeSigner(
                authority=made.authorities.cluster, clock=self._clock, tell=tell, bars=self._gate.bars
            )
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
        """Look again when a node changed in something that matters; kubelets tell that they live all the time."""
        seen: dict[str, object] = {}
        async for event in tenant.watch(NODES):
            name = event.object["metadata"]["name"]
            matters = None if event.type == "DELETED" else what_matters(event.object)
            if not self._settled or seen.get(name) != matters:
                self.wake()
            seen[name] = matters

    async def _serve_tenant(
        self,
        tenant: KubeClient,
        cluster: Cluster,
        plan: NodePlan,
        provided: Sequence[ProvidedNode],
        nodes: Sequence[Manifest],
        tokens: Mapping[str, str],
        barred: Mapping[str, str],
    ) -> None:
        """Put into the tenant's cluster what its nodes and people need."""
        await self._apply_base(tenant, cluster)
        machines = {machine.name: machine for machine in provided}
        announced = {
            name: AnnouncedNode(
                name,
                f"system:bootstrap:{tokens[name].split('.')[0]}",
                machines[name].address if name in machines else "",
                barred.get(name, ""),
            )
            for name in plan.keep
        }
        if self._signer is not None:
            await self._signer.announce(tenant, announced)
        by_name = {node["metadata"]["name"]: node for node in nodes}
        async with asyncio.TaskGroup() as group:
            for name in plan.keep:
                group.create_task(self._keep_token(tenant, name, machines.get(name), by_name.get(name), tokens[name]))

    async def _apply_base(self, tenant: KubeClient, cluster: Cluster) -> None:
        async def apply(manifest: Manifest) -> None:
            key = f"{manifest['kind']}/{manifest['metadata']['name']}"
            if key not in self._base_done:
                await tenant.apply(resource_of(manifest), manifest)
                self._base_done.add(key)

        if self._base_applied is cluster.spec.network.plugin:
            return
        async with asyncio.TaskGroup() as group:
            for manifest in tenant_objects.base_objects(cluster):
                group.create_task(apply(manifest))
        self._base_applied = cluster.spec.network.plugin

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


def new_bootstrap_token() -> str:
    """Return a fresh bootstrap token: six characters that name it, sixteen that are secret."""
    alphabet = string.ascii_lowercase + string.digits

    def text(length: int) -> str:
        return "".join(randomness.choice(alphabet) for _ in range(length))

    return f"{text(6)}.{text(16)}"
