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
from haneul.dkos.backup.recording import BackupRecords
from haneul.dkos.changing import Changing, NodeChanger
from haneul.dkos.cluster_records import ClusterRecords
from haneul.dkos.control_plane import labels
from haneul.dkos.credentials import decode, node_kubeconfig, operator_access, secret_manifest
from haneul.dkos.door import Door
from haneul.dkos.etcd_changing import MemberChanger
from haneul.dkos.events import Look, Tell, credentials_renewed, told
from haneul.dkos.gate_keeping import GateKeeping
from haneul.dkos.hibernation import Level
from haneul.dkos.image_hub import ImageHub
from haneul.dkos.joining import AnnouncedNode
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import (
    CLUSTERS,
    SLEEP_PHASES,
    BackupStatus,
    Cluster,
    ClusterStatus,
    NetworkPlugin,
    NodePool,
    NodeProviderName,
    Phase,
    RestoreState,
    cluster_from_resource,
    project_namespace,
)
from haneul.dkos.node_files import node_files
from haneul.dkos.node_plan import NodePlan, node_statuses, plan_nodes, what_matters
from haneul.dkos.pace import IDLE, Pace, is_settled
from haneul.dkos.ports import Examiner, JoinGate, NodeAnnouncement, NodeProvider, ProvidedNode, SpecWriter
from haneul.dkos.restore_jobs import RestoreSettings
from haneul.dkos.restoring import Restoring
from haneul.dkos.rotating import AuthorityRotation
from haneul.dkos.signing import NodeSigner
from haneul.dkos.sleeping import Sleeping
from haneul.dkos.states import MasterState, Observation, has_answered, status_of
from haneul.dkos.turns import Turns
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import (
    CERTIFICATE_REQUESTS,
    ENDPOINT_SLICES,
    LEASES,
    NODES,
    SECRETS,
    KubeAccess,
    KubeApiError,
    KubeClient,
    Manifest,
    resource_of,
)

_log = structlog.get_logger(__name__)

_TOKENS = "bootstrap-tokens"
_RESYNC = timedelta(minutes=10)
_CLIENT_LIFE = timedelta(minutes=30)
_BACKUP_EVERY = timedelta(minutes=1)

ClientFactory = Callable[[KubeAccess], contextlib.AbstractAsyncContextManager[KubeClient]]


class ClusterController:
    """Makes and keeps one cluster."""

    def __init__(
        self,
        *,
        management: KubeClient,
        masters: Masters,
        providers: Mapping[NodeProviderName, NodeProvider],
        door: Door,
        specs: SpecWriter,
        connect: ClientFactory,
        pause_image: str,
        clock: Clock,
        tell: Tell,
        turns: Turns,
        members: MemberChanger,
        cilium_definitions: Sequence[Manifest] = (),
        gate: JoinGate,
        examiner: Examiner,
        records: BackupRecords,
        restore: RestoreSettings,
        backup: Callable[[str], BackupStatus | None] = lambda _: None,
        readers: ClusterRecords,
        hub: ImageHub | None = None,
    ) -> None:
        """``cilium_definitions`` are what Cilium's operator would define: one after the other, a second each.

        ``backup`` says how the backup of the cluster with a uid stands. ``readers`` tells those who work for the
        cluster outside of it. From ``hub`` nodes pull images.
        """
        self._management = management
        self._masters = masters
        self._providers = providers
        self._sleeping = Sleeping(management, masters=masters, providers=providers, door=door, specs=specs, tell=tell)
        self._records = records
        self._readers = readers
        self._hub = hub
        self._backup = backup
        self._restoring = Restoring(
            management, masters=masters, providers=providers, records=records, settings=restore, tell=tell
        )
        self._connect = connect
        self._pause_image = pause_image
        self._clock = clock
        self._tell = tell
        self._gate = GateKeeping(gate, read=self._read, observe=self._observe, clock=clock)
        self._examiner = examiner
        self._turns = turns
        self._members = members
        self._cilium_definitions = cilium_definitions
        self._uid = ""
        self._begun = False
        self._at_once = 0
        self._listens = False
        self._last_look: Look | None = None
        self._wake = asyncio.Event()
        self._tenant: KubeClient | None = None
        self._tenant_stack = contextlib.AsyncExitStack()
        self._tenant_until: datetime | None = None
        #: What the connection was made from: who signed the certificate, and who is trusted.
        self._tenant_keys: tuple[bytes, bytes] | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._signer: NodeSigner | None = None
        self._pace = Pace()
        self._settled = False
        self._changer = NodeChanger(providers, clock)
        self._base_done: set[str] = set()
        self._base_applied: tuple[object, ...] = ()
        self._joined: dict[str, str] = {}
        self._resync_at: datetime | None = None
        self._rotation = AuthorityRotation(masters, clock=clock)
        # What was read or rendered last, as long as it may be used again.
        self._tokens_kept: dict[str, str] = {}
        self._tokens_until = 0.0
        self._announced: tuple[tuple[object, ...], dict[str, NodeAnnouncement]] | None = None
        #: How often something was heard of the cluster, and how much of that a sleeping one was looked at after.
        self._news = 1
        self._news_seen = 0

    def wake(self) -> None:
        """Look again soon: something about the cluster changed."""
        self._news += 1
        self._wake.set()

    def request(self) -> None:
        """Somebody asks for the cluster's API, though it sleeps."""
        self._sleeping.request()
        self.wake()

    async def close(self) -> None:
        """End the controller's tasks and connections."""
        self._turns.done(self._uid)
        await self._disconnect()

    async def _disconnect(self) -> None:
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
        if self._sleeping.is_outdated(cluster):
            return cluster.status
        now = self._clock.now()
        if self._resync_at is None or now >= self._resync_at:
            self._forget()
            self._resync_at = now + _RESYNC
        problem = cluster.spec_problem
        if not problem and None in (cluster.spec.network.pods, cluster.spec.network.services):
            problem = "the spec names no ranges; create clusters through the platform's API, which allocates them"
        if problem:
            status = await self._report(cluster, Observation(problem=problem))
            await self._gate.close(cluster)
            return status
        if (rest := await self._restore_or_sleep(cluster, now)) is not None:
            return rest
        if before := await self._clusters_before(cluster):
            return await self._report(cluster, Observation(starting_before=before, nodes=cluster.status.nodes))
        masters = await self._masters.observe(cluster)
        # What else is made would only take the processor from the API server, which is all that it waits for. From when
        # that listens until it is ready it mostly waits itself.
        serves = self._listens or has_answered(cluster.status)
        made = await self._masters.ensure(cluster, rest=serves)
        waking = cluster.status.phase in SLEEP_PHASES
        is_open = not waking or await self._sleeping.open(cluster, made, masters)
        for component in made.renewed:
            self._tell(cluster, credentials_renewed(component))
        masters_change = await self._change_masters(cluster, made, masters)
        tokens = await self._tokens(cluster)
        announced = self._announcements(cluster, made, tokens)
        provided = await self._observe(cluster)
        if serves and await self._make_machines(cluster, announced, provided):
            provided = await self._observe(cluster)
        await self._readers.locate(cluster, provided)
        # Before its door is open, the waker would hold this connection too, and the look with it.
        api_answers, message = await self._reach_tenant(cluster, made, now) if is_open else (False, "")
        tenant = self._tenant if api_answers else None
        plan = plan_nodes(cluster, provided, ())
        nodes, barred = await self._look_at_gate(tenant, cluster, plan, provided)
        change = Changing()
        if tenant is not None:
            await self._restoring.replace_lost(cluster, list(plan.keep), provided, nodes)
            await self._serve_tenant(tenant, cluster, made, plan, provided, nodes, tokens, barred)
            change = await self._changer.look(tenant, cluster, announced, provided, nodes, barred)
            # Last, as no node waits for it.
            await self._records.follow(cluster, made)
            await self._readers.follow(cluster, made, provided)
        rotation = await self._rotation.look(
            cluster,
            made,
            tenant,
            waiting_nodes=self._nodes_of_other_eras(plan, provided, made.keyring.machine_era, barred),
        )
        if cluster.examination_requested:
            await self._examiner.examine(cluster, announced, tenant)
        seen = Observation(
            masters=masters,
            api_answers=api_answers,
            api_message=message,
            # Masters that are down say nothing of nodes, which go on without them.
            nodes=node_statuses(plan, provided, nodes, barred)
            if api_answers or waking or not cluster.status.nodes
            else cluster.status.nodes,
            wanted_nodes=cluster.spec.node_count,
            endpoint=made.endpoints.outside,
            rotation=rotation,
            authorities_expire=made.keyring.expires,
            change=change.progress,
            masters_change=masters_change,
            stopped=change.stopped,
            upgrade=made.upgrade,
            nodes_version=made.nodes_version,
            trouble=await self._readers.trouble(cluster),
        )
        return await self._report(cluster, seen, provided)

    async def _change_masters(self, cluster: Cluster, made: MadeMasters, masters: Sequence[MasterState]) -> str:
        """Bring the etcd members closer to what is asked for, once the cluster answers; return what is under way."""
        if not has_answered(cluster.status):
            return ""
        try:
            return await self._members.look(cluster, made, masters, self._tell)
        except HaneulError as error:
            # What else there is to do for the cluster does not wait for its etcd; the next look tries again.
            _log.warning("etcd members not changed", cluster=cluster.uid, error=str(error))
            return f"changing the etcd members is tried again: {error.detail}"

    async def _restore_or_sleep(self, cluster: Cluster, now: datetime) -> ClusterStatus | None:
        """Do what comes before keeping the cluster: its data first, then its sleep; None if it is to be kept."""
        if cluster.restore_is_due:
            return await self._restore(cluster, now)
        if await self._sleeping.follow_schedule(cluster, now):
            return cluster.status
        return await self._sleep(cluster, now) if cluster.spec.hibernation.asleep else None

    async def _clusters_before(self, cluster: Cluster) -> int:
        """Return how many clusters are to start before this one; none once it has begun or has answered."""
        self._uid = cluster.uid
        if has_answered(cluster.status):
            self._turns.done(cluster.uid)
            return 0
        if self._begun:
            return 0
        if not self._at_once:
            # Each start keeps about one processor busy.
            hosts = await self._management.list(NODES)
            self._at_once = max(1, sum(int(host["status"]["capacity"]["cpu"]) for host in hosts))
        before = self._turns.ask(
            cluster.uid,
            at_once=self._at_once,
            now=self._clock.monotonic(),
            wake=self._wake.set,
            from_sleep=cluster.status.phase in SLEEP_PHASES,
        )
        self._begun = before == 0
        return before

    async def _report(
        self, cluster: Cluster, seen: Observation, provided: Sequence[ProvidedNode] = ()
    ) -> ClusterStatus:
        now = self._clock.now()
        status = status_of(cluster, seen, now)
        if status.phase is Phase.READY and cluster.status.phase in SLEEP_PHASES:
            # Before it is said to be ready: whoever goes on after this process ended looks at the phase.
            await self._sleeping.awake(cluster)
        status = await self._restoring.settle(cluster, status)
        machines = {one.name: one.instance for one in provided}
        return await self._write(cluster, Look(status, seen.masters, machines, now))

    async def _write(self, cluster: Cluster, look: Look) -> ClusterStatus:
        """Write the status down if it changed, and tell what changed."""
        look = replace(look, status=_with_backup(look.status, self._backup(cluster.uid)))
        if look.status != cluster.status:
            body = look.status.model_dump(mode="json", by_alias=True)
            namespace = project_namespace(cluster.project)
            await self._management.patch(CLUSTERS, cluster.name, {"status": body}, namespace, subresource="status")
        self._tell_changes(cluster, look)
        return look.status

    def _forget(self) -> None:
        """Make everything again at this look, in case somebody else changed it; hold nothing that can be read again."""
        self._masters.forget()
        self._sleeping.forget()
        self._records.forget(self._uid)
        self._readers.forget(self._uid)
        self._base_done.clear()
        self._base_applied = ()
        self._tokens_kept, self._tokens_until = {}, 0.0
        self._announced = None

    async def _restore(self, cluster: Cluster, now: datetime) -> ClusterStatus:
        """Bring a restore one step further; what was known of the cluster's API is of the state before."""
        self._turns.done(cluster.uid)
        status = await self._restoring.look(cluster, now)
        await self._readers.locate(cluster, await self._observe(cluster))
        if status.restore.state in (RestoreState.PREPARED, RestoreState.PLACED):
            await self._disconnect()
            self._forget()
            self._joined.clear()
            self._listens = False
        return await self._write(cluster, Look(status, at=now))

    async def _sleep(self, cluster: Cluster, now: datetime) -> ClusterStatus:
        """Bring the cluster one step closer to sleep, or leave it asleep."""
        self._turns.done(cluster.uid)
        news = self._news
        # Before its API ends: who asks for it then wakes it.
        await self._readers.rest(cluster)

        async def reach(made: MadeMasters) -> KubeClient | None:
            answers, _ = await self._reach_tenant(cluster, made, now)
            return self._tenant if answers else None

        rest = await self._sleeping.look(cluster, now, changed=news != self._news_seen, reach=reach)
        if rest.level < Level.NODES:
            await self._disconnect()
            self._listens = False
            # No node of it is there any more, and its addresses may be others' soon.
            await self._gate.close(cluster)
        else:
            await self._gate.look(cluster, plan_nodes(cluster, (), ()), await self._observe(cluster), None)
        if rest.status.phase is Phase.ASLEEP:
            await self._records.rest(cluster)
            self._rest()
        status = await self._write(cluster, Look(rest.status, at=now))
        # Only now: what a look that failed was about is still to be looked at.
        self._news_seen = news
        return status

    def _rest(self) -> None:
        """Hold nothing while the cluster sleeps, but what says that nothing is to be done."""
        self._masters.forget()
        self._announced, self._signer = None, None
        self._tokens_kept, self._tokens_until = {}, 0.0
        self._joined.clear()
        self._base_done.clear()
        self._base_applied = ()
        self._begun = False

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
        wanted = [name for pool in cluster.spec.node_pools for name in pool.node_names]
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
        authority = made.keyring.trusted("cluster")
        inputs = (cluster.spec, made.endpoints, authority, made.keyring.machine_era, tokens, made.nodes_version)
        if self._announced is None or self._announced[0] != inputs:
            announced = {
                name: NodeAnnouncement(
                    name,
                    pool,
                    node_files(
                        cluster,
                        pool,
                        name,
                        pause_image=self._pause_image,
                        naming=self._readers.naming,
                        hub=self._hub,
                    ),
                    node_kubeconfig(_server(made, pool), tokens[name]),
                    authority,
                    made.nodes_version,
                    made.keyring.machine_era,
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

    async def _look_at_gate(
        self, tenant: KubeClient | None, cluster: Cluster, plan: NodePlan, provided: Sequence[ProvidedNode]
    ) -> tuple[Sequence[Manifest], Mapping[str, str]]:
        """Return the cluster's Node objects, and what bars each gated node.

        The gate looks whatever the tenant's API server does: a cluster that does not answer keeps no way open.
        """
        try:
            nodes = None if tenant is None else await tenant.list(NODES)
        except HaneulError:
            await self._gate.look(cluster, plan, provided, None)
            raise
        return nodes or (), await self._gate.look(cluster, plan, provided, nodes)

    async def _read(self, cluster: Cluster) -> Cluster | None:
        """Return the cluster as it is asked for now, if it is still the same one."""
        found = await self._management.get(CLUSTERS, cluster.name, project_namespace(cluster.project))
        current = None if found is None else cluster_from_resource(found)
        return current if current is not None and current.uid == cluster.uid else None

    async def _observe(self, cluster: Cluster) -> list[ProvidedNode]:
        found = await asyncio.gather(*(provider.observe(cluster) for provider in self._providers.values()))
        return [machine for machines in found for machine in machines]

    async def _reach_tenant(self, cluster: Cluster, made: MadeMasters, now: datetime) -> tuple[bool, str]:
        """Connect to the cluster's own API with a fresh short-lived certificate; say whether it answers."""
        keys = (made.keyring.request_signer.certificate, made.keyring.trusted("cluster"))
        until = self._tenant_until
        if self._tenant is None or until is None or now >= until or self._tenant_keys != keys:
            await self._disconnect()
            access = operator_access(made.keyring, made.endpoints, now)
            self._tenant_keys = keys
            self._tenant = await self._tenant_stack.enter_async_context(self._connect(access))
            self._tenant_until = now + _CLIENT_LIFE
            tell = functools.partial(self._tell, cluster)
            self._signer = NodeSigner(
                authority=made.keyring.request_signer, clock=self._clock, tell=tell, bars=self._gate.bars
            )
        try:
            await self._tenant.raw_get("/readyz")
        except HaneulError as error:
            self._listens = isinstance(error, KubeApiError)
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
        made: MadeMasters,
        plan: NodePlan,
        provided: Sequence[ProvidedNode],
        nodes: Sequence[Manifest],
        tokens: Mapping[str, str],
        barred: Mapping[str, str],
    ) -> None:
        """Put into the tenant's cluster what its nodes and people need."""
        await self._apply_base(tenant, cluster, made)
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

    async def _apply_base(self, tenant: KubeClient, cluster: Cluster, made: MadeMasters) -> None:
        async def apply(manifest: Manifest) -> None:
            key = f"{manifest['kind']}/{manifest['metadata']['name']}"
            if key not in self._base_done:
                await tenant.apply(resource_of(manifest), manifest)
                self._base_done.add(key)

        inputs = (cluster.spec.network.plugin, cluster.spec.outside, cluster.spec.announces_itself, made.endpoints)
        if self._base_applied == inputs:
            if not cluster.spec.announces_itself:
                await self._keep_way_in(tenant, cluster, made)
            return
        cilium = cluster.spec.network.plugin is NetworkPlugin.CILIUM
        async with asyncio.TaskGroup() as group:
            for manifest in tenant_objects.base_objects(cluster, made.endpoints, self._readers.readers, self._hub):
                group.create_task(apply(manifest))
            for manifest in self._cilium_definitions if cilium else ():
                group.create_task(apply(manifest))
        self._base_applied = inputs

    async def _keep_way_in(self, tenant: KubeClient, cluster: Cluster, made: MadeMasters) -> None:
        """An API server of before may still have announced itself, as it was told to, or taken that back."""
        wanted = tenant_objects.kubernetes_endpoint(cluster, made.endpoints)
        found = await tenant.get(ENDPOINT_SLICES, wanted["metadata"]["name"], wanted["metadata"]["namespace"])
        if found is None or any(found.get(field) != wanted[field] for field in ("endpoints", "ports")):
            await tenant.apply(ENDPOINT_SLICES, wanted)

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

    def _nodes_of_other_eras(
        self, plan: NodePlan, provided: Sequence[ProvidedNode], era: int, barred: Mapping[str, str]
    ) -> list[str]:
        """Return the wanted nodes whose machine is not made for this era, or has not joined since it was.

        Nobody waits for those that are barred from joining: they hold nothing that was signed.
        """
        machines = {machine.name: machine for machine in provided if machine.era == era and machine.running}
        return [
            name
            for name in sorted(plan.keep)
            if name not in machines or (self._joined.get(name) != machines[name].instance and name not in barred)
        ]

    async def _has_joined(self, tenant: KubeClient, name: str, machine: ProvidedNode) -> bool:
        """Only this machine can have renewed its lease after it started."""
        lease = await tenant.get(LEASES, name, "kube-node-lease")
        renewed = (lease or {}).get("spec", {}).get("renewTime")
        return bool(renewed and machine.started and datetime.fromisoformat(renewed) > machine.started)


def _with_backup(status: ClusterStatus, backup: BackupStatus | None) -> ClusterStatus:
    """Return the status with what is known of the backup; of what changes all the time, once a minute at most."""
    before = status.backup
    if backup is None or backup == before:
        return status
    if before is not None and backup.as_of - before.as_of < _BACKUP_EVERY:
        moving = ("as_of", "complete_until", "lag_seconds", "revision", "size", "restorable_since")
        if backup == before.model_copy(update={name: getattr(backup, name) for name in moving}):
            return status
    return status.model_copy(update={"backup": backup})


def _server(made: MadeMasters, pool: NodePool) -> str:
    """Machines stand outside the management cluster, where its service addresses lead nowhere."""
    return made.endpoints.outside if pool.provider is NodeProviderName.SSH else made.endpoints.inside


def new_bootstrap_token() -> str:
    """Return a fresh bootstrap token: six characters that name it, sixteen that are secret."""
    alphabet = string.ascii_lowercase + string.digits

    def text(length: int) -> str:
        return "".join(randomness.choice(alphabet) for _ in range(length))

    return f"{text(6)}.{text(16)}"
