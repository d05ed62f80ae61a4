"""What people can do with clusters, whoever asks: rights are the caller's business, admission is done here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from haneul.dkos.admission import TakenRange, admit, admit_change, admit_machines, admit_masters, check_shape
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.requests import Asked, as_new, from_backup
from haneul.dkos.cluster_store import ClusterEvent, ClusterStore, Confirm, certain, not_found
from haneul.dkos.event_log import EventLog, EventRecord
from haneul.dkos.external_resources import newly_asked
from haneul.dkos.hibernation import sleep_waits_for
from haneul.dkos.link_presets import with_tunnel
from haneul.dkos.machine_store import MachineStore
from haneul.dkos.machines import Machine
from haneul.dkos.model import (
    EXAMINATION_MARK,
    LONGEST_CLUSTER_NAME,
    SLEEP_PHASES,
    AuthoritiesRequest,
    Cluster,
    ClusterSpec,
    ConditionType,
    NodePool,
    Phase,
    RestoreRequest,
)
from haneul.dkos.ports import BackupCatalogues, ClusterTokens
from haneul.dkos.shared_watch import SharedWatches
from haneul.dkos.states import OLD_TRUSTED
from haneul.dkos.upgrading import Proposal, asked_spec, check_upgrade, check_version, propose
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from haneul.kernel.kube_merge import merge_patch
from haneul.kernel.names import parse_label
from haneul.kernel.pki import KeyPair, LeafProfile, sign_request

_CREDENTIAL_LIFE = timedelta(hours=1)

#: Writes down who asks for gated pools; awaited before what was asked for is done, and never after it.
Asking = Callable[[Sequence[NodePool]], Awaitable[None]]


@dataclass(frozen=True)
class ClientAuthority:
    """What signs people's certificates for one cluster, where its API server is reached, whom to trust there (PEM)."""

    pair: KeyPair
    server: str
    trusted: bytes


class ClientAuthorities(Protocol):
    """Gives out the authorities of clusters that have them already."""

    async def of(self, cluster: Cluster) -> ClientAuthority | None:
        """Return the cluster's authority, or None while it is not made."""
        ...


@dataclass(frozen=True)
class Credential:
    """A person's certificate for one cluster."""

    certificate: str
    authority: str
    server: str
    expires: datetime


@dataclass(frozen=True)
class ClusterToken:
    """A person's token for one cluster."""

    token: str = field(repr=False)
    authority: str
    server: str
    expires: datetime


class ClusterService:
    """Clusters of all projects. With ``tokens`` people get those, and no certificates, which nobody could revoke."""

    def __init__(
        self,
        store: ClusterStore,
        *,
        machines: MachineStore,
        authorities: ClientAuthorities,
        events: EventLog,
        reserved: Sequence[TakenRange],
        backups: BackupCatalogues,
        changed: Callable[[], None] = lambda: None,
        tokens: ClusterTokens | None = None,
    ) -> None:
        """``changed`` is called whenever a cluster was made, changed or asked to end."""
        self._tokens = tokens
        self._backups = backups
        self._store = store
        self._machines = machines
        self._changed = changed
        self._events = events
        self._authorities = authorities
        self._reserved = reserved
        self._watches = SharedWatches(store)

    async def list(self, project: str) -> Sequence[Cluster]:
        """Return a project's clusters by name."""
        return await self._store.list(project)

    async def get(self, project: str, name: str) -> Cluster:
        """Return a cluster. Raises NotFoundError, also for what cannot be a cluster's name."""
        try:
            parse_label(name, what="cluster name", longest=LONGEST_CLUSTER_NAME)
        except InvalidInputError as error:
            # Names become parts of paths behind here, where "..", "?" and the like would mean something else.
            raise not_found(project, name) from error
        return await self._store.get(project, name)

    async def create(
        self, project: str, name: str, spec: ClusterSpec, *, asking: Asking, confirm: Confirm = certain
    ) -> Cluster:
        """Ask for a cluster; everything that is wrong with the request is said before anything is made.

        ``asking`` is told first which gated pools are asked for. ``confirm`` is asked once more whether the project is
        there, when nobody can delete it any more.
        """
        if spec.restore != RestoreRequest():
            raise InvalidInputError(
                "a new cluster does not name a backup", hint="'haneul cluster restore NAME --as NEW' makes one from it"
            )
        return await self._create(project, name, spec, asking=asking, confirm=confirm)

    async def _create(self, project: str, name: str, spec: ClusterSpec, *, asking: Asking, confirm: Confirm) -> Cluster:
        parse_label(name, what="cluster name", longest=LONGEST_CLUSTER_NAME)
        check_shape(spec)
        machines = await self._machines_for(project, spec)
        await asking(newly_asked((), spec.node_pools))

        def decide(others: Sequence[Cluster]) -> ClusterSpec:
            admitted = admit(name, spec, project=project, others=others, reserved=self._reserved)
            admit_machines(spec, project=project, name=name, others=others, machines=machines)
            return with_tunnel(admitted, machines)

        cluster = await self._store.create(project, name, decide, confirm)
        self._changed()
        return cluster

    async def change(self, project: str, name: str, patch: dict[str, Any], *, now: datetime, asking: Asking) -> Cluster:
        """Merge ``patch`` (RFC 7396) into a cluster's spec; asking for sleep or waking counts from ``now``.

        ``asking`` is told first which gated pools change.
        """
        cluster = await self._changeable(project, name)
        before = cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        try:
            after = ClusterSpec.model_validate(merge_patch(before, patch))
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
            raise InvalidInputError(said, hint="correct the named fields") from error
        if after.hibernation.asleep != cluster.spec.hibernation.asleep or after.hibernation.asked > now:
            after = after.model_copy(update={"hibernation": after.hibernation.model_copy(update={"asked": now})})
        admit_change(cluster.spec, after)
        check_upgrade(cluster, after)
        if after.hibernation.asleep and not cluster.spec.hibernation.asleep and (doing := sleep_waits_for(cluster)):
            raise ConflictError(
                f"{name} cannot fall asleep now: {doing}",
                hint=f"'haneul cluster get {name} --wait' waits for it; then ask again",
            )
        admit_masters(cluster, after)
        if after.machines:
            machines, others = await self._machines_for(project, after), await self._store.list(project)
            admit_machines(after, project=project, name=name, others=others, machines=machines)
        if after != cluster.spec:
            await asking(newly_asked(cluster.spec.node_pools, after.node_pools))
            cluster = await self._store.replace_spec(cluster, after)
            self._changed()
        return cluster

    async def rest(self, project: str, name: str, *, asleep: bool, now: datetime) -> Cluster:
        """Let a cluster fall asleep or wake; that holds until the next moment of its schedule, or somebody's word.

        Raises ConflictError while it is in the middle of something, QuotaExceededError if there is no room to wake it.
        """
        word = {"asleep": asleep, "asked": now.isoformat()}

        async def no_pool_changes(_: Sequence[NodePool]) -> None:
            """Note nobody: sleep asks for nothing that a pool did not ask for before."""

        return await self.change(project, name, {"hibernation": word}, now=now, asking=no_pool_changes)

    async def upgrade(self, project: str, name: str, *, version: str | None, node_version: str | None) -> Cluster:
        """Ask for another version of Kubernetes, for the nodes alone if none is named for the masters.

        Asked again for what was asked for, it changes nothing. Raises InvalidInputError for a way that Kubernetes does
        not allow, ConflictError while the cluster is not in a state to begin.
        """
        cluster = await self._changeable(project, name)
        after = asked_spec(cluster, version, node_version)
        check_upgrade(cluster, after)
        if after != cluster.spec:
            cluster = await self._store.replace_spec(cluster, after)
            self._changed()
        return cluster

    async def proposals(self, project: str, version: str) -> Sequence[Proposal]:
        """Return what asking each of a project's clusters for a version would come to; nothing is changed."""
        check_version(version)
        return [propose(cluster, version) for cluster in await self._store.list(project)]

    async def request_look(self, project: str, name: str, *, now: datetime) -> Cluster:
        """Ask for a look that begins after this; a status may be of before the platform stood still, or older."""
        await self.get(project, name)
        return await self._store.request_look(project, name, now.isoformat())

    async def request_examination(self, project: str, name: str, *, now: datetime) -> str:
        """Ask for a look that examines the cluster too; return the request. Raises ConflictError if it sleeps."""
        cluster = await self.get(project, name)
        if cluster.status.phase in SLEEP_PHASES:
            raise ConflictError(f"{name} sleeps", hint=f"'haneul cluster wake {name}', then ask again")
        request = f"{now.isoformat()}{EXAMINATION_MARK}"
        await self._store.request_look(project, name, request)
        return request

    async def rotate_authorities(self, project: str, name: str, *, grace: timedelta) -> Cluster:
        """Ask for new authorities and keys. While only the grace of the last time is waited for, change that grace."""
        cluster = await self._changeable(project, name)
        condition = next(
            (entry for entry in cluster.status.conditions if entry.type is ConditionType.AUTHORITIES_CURRENT), None
        )
        if cluster.status.phase in (Phase.ASLEEP, Phase.HIBERNATING):
            raise ConflictError(f"{name} sleeps", hint=f"'haneul cluster wake {name}', then ask again")
        if cluster.status.observed_generation != cluster.generation or condition is None:
            raise ConflictError(f"the last change of {name} is not taken up yet", hint="try again in a moment")
        if condition.status != "True":
            raise ConflictError(
                f"the authorities of {name} are being replaced already: {condition.message}",
                hint=f"'haneul cluster get {name} --wait' waits for it",
            )
        asked = cluster.spec.authorities
        waiting = condition.reason == OLD_TRUSTED
        revision = asked.revision if waiting else asked.revision + 1
        changed = AuthoritiesRequest(revision=revision, grace_seconds=int(grace.total_seconds()))
        return await self._store.replace_spec(cluster, cluster.spec.model_copy(update={"authorities": changed}))

    async def backup(self, project: str, name: str) -> Catalogue:
        """Return a cluster's backup; of one that is deleted, the newest of its name. Raises NotFoundError."""
        found = await self._catalogue(project, name)
        if found is None:
            await self.get(project, name)
            raise _no_backup(name)
        return found

    async def backups(self, project: str, *, deleted: bool) -> Sequence[Catalogue]:
        """Return the backups of a project's clusters by name, or those of its deleted ones, which end some day."""
        found = await self._backups.of_project(project)
        chosen = [one for one in found if (one.deleted is not None) == deleted]
        return sorted(chosen, key=lambda one: (one.name, one.as_of))

    async def restore(self, project: str, name: str, asked: Asked) -> Cluster:
        """Bring a running cluster to a state of its backup.

        Raises ConflictError while it sleeps or is in the middle of something, BackupIncompleteError for what the
        backup cannot give, as far as its catalogue tells.
        """
        cluster = await self._changeable(project, name)
        if cluster.spec.hibernation.asleep or cluster.status.phase in (Phase.ASLEEP, Phase.HIBERNATING):
            raise ConflictError(f"{name} sleeps", hint=f"'haneul cluster wake {name}', then ask again")
        if cluster.spec.masters != 1:
            raise ConflictError(
                f"{name} has {cluster.spec.masters} masters; a state is put in place of one member of etcd only",
                hint=f"'haneul cluster restore {name} --as NEW' makes a new cluster, or 'haneul cluster scale {name} "
                "--masters 1' first",
            )
        if cluster.restore_is_due:
            # One whose data is in place may be the wrong moment, which is seen before all nodes are there again.
            raise ConflictError(
                f"{name} is being restored", hint=f"'haneul cluster get {name} --wait' waits for it; then ask again"
            )
        if cluster.status.version not in ("", cluster.spec.version):
            raise ConflictError(
                f"the masters of {name} are on their way from {cluster.status.version} to {cluster.spec.version}",
                hint=f"'haneul cluster get {name} --wait' waits for it; then ask again",
            )
        condition = {entry.type: entry for entry in cluster.status.conditions}.get(ConditionType.AUTHORITIES_CURRENT)
        if condition is not None and condition.status != "True":
            raise ConflictError(
                f"the authorities of {name} are being replaced",
                hint=f"'haneul cluster get {name} --wait' waits for it; then ask again",
            )
        catalogue = await self._backups.of(cluster.uid)
        if catalogue is None:
            raise _no_backup(name)
        request = from_backup(catalogue, asked, number=cluster.spec.restore.number + 1)
        changed = await self._store.replace_spec(cluster, cluster.spec.model_copy(update={"restore": request}))
        self._changed()
        return changed

    async def restore_as_new(
        self, project: str, name: str, new: str, asked: Asked, *, asking: Asking, confirm: Confirm = certain
    ) -> Cluster:
        """Make a new cluster with a state of the backup of another, which may be deleted already.

        Raises as :meth:`create` and :meth:`restore` do.
        """
        catalogue = await self.backup(project, name)
        return await self._create(project, new, as_new(catalogue, asked), asking=asking, confirm=confirm)

    async def _catalogue(self, project: str, name: str) -> Catalogue | None:
        named = [one for one in await self._backups.of_project(project) if one.name == name]
        living = [one for one in named if one.deleted is None]
        return max(living or named, key=lambda one: one.deleted or one.as_of, default=None)

    async def _changeable(self, project: str, name: str) -> Cluster:
        cluster = await self.get(project, name)
        if cluster.deleting:
            raise ConflictError(f"{name} is being deleted", hint="wait until it is gone, then create it again")
        if cluster.spec_problem:
            raise ConflictError(
                f"what is stored of {name} is not valid: {cluster.spec_problem}", hint="delete it and create it again"
            )
        return cluster

    async def _machines_for(self, project: str, spec: ClusterSpec) -> Sequence[Machine]:
        """Return the project's machines, if the spec names any."""
        return await self._machines.list(project) if spec.machines else []

    async def delete(self, project: str, name: str) -> Cluster:
        """Ask for a cluster's end."""
        await self.get(project, name)
        cluster = await self._store.delete(project, name)
        self._changed()
        return cluster

    async def events(self, project: str, name: str, *, limit: int) -> Sequence[EventRecord]:
        """Return what happened to a cluster, the newest ``limit`` events, newest last; also while it is torn down."""
        return (await self._events.of(await self.get(project, name)))[-limit:]

    def watch(self, project: str) -> AsyncGenerator[ClusterEvent]:
        """Yield a project's clusters and their changes, until :meth:`close`."""
        return self._watches.watch(project)

    async def close(self) -> None:
        """End everybody's watching."""
        await self._watches.close()

    async def credential(
        self, project: str, name: str, *, person: str, role: str, request: bytes, now: datetime
    ) -> Credential:
        """Sign a person's key for an hour; what the certificate says comes from their role alone."""
        authority = await self._authority(await self.get(project, name))
        if self._tokens is not None:
            raise ConflictError(
                "clusters of this platform are reached with tokens, which end within a minute",
                hint="bring the haneul command up to date",
            )
        profile = LeafProfile(f"haneul:{person}", (f"haneul:{role}s",), client=True)
        try:
            certificate = sign_request(authority.pair, request, profile, now=now, life=_CREDENTIAL_LIFE)
        except ValueError as error:
            raise InvalidInputError(f"the certificate request is not valid: {error}") from error
        return Credential(certificate.decode(), authority.trusted.decode(), authority.server, now + _CREDENTIAL_LIFE)

    async def token(self, project: str, name: str, *, person: str, role: str) -> ClusterToken:
        """Make a person a token for a cluster that ends within a minute; what it says comes from their role alone.

        Raises ConflictError where clusters do not trust the platform's issuer.
        """
        cluster = await self.get(project, name)
        if self._tokens is None:
            raise ConflictError(
                "clusters of this platform do not trust its issuer", hint="ask for a certificate instead"
            )
        authority = await self._authority(cluster)
        token, expires = await self._tokens.issue(person, role, cluster)
        return ClusterToken(token, authority.trusted.decode(), authority.server, expires)

    async def _authority(self, cluster: Cluster) -> ClientAuthority:
        authority = await self._authorities.of(cluster)
        if authority is None:
            raise UnavailableError(
                f"{cluster.name} has no API server yet", hint=f"'haneul cluster get {cluster.name}' shows its progress"
            )
        return authority


def _no_backup(name: str) -> NotFoundError:
    return NotFoundError(
        f"{name} has no backup yet", hint="the first snapshot is taken when its API server answers; wait a minute"
    )
