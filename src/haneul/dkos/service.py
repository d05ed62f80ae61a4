"""What people can do with clusters, whoever asks: rights are the caller's business, admission is done here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from haneul.dkos.admission import TakenRange, admit, admit_change, check_shape
from haneul.dkos.cluster_store import ClusterEvent, ClusterStore, Confirm, certain, not_found
from haneul.dkos.event_log import EventLog, EventRecord
from haneul.dkos.external_resources import newly_asked
from haneul.dkos.model import LONGEST_CLUSTER_NAME, Cluster, ClusterSpec, NodePool
from haneul.dkos.shared_watch import SharedWatches
from haneul.kernel.errors import ConflictError, InvalidInputError, UnavailableError
from haneul.kernel.kube_merge import merge_patch
from haneul.kernel.names import parse_label
from haneul.kernel.pki import KeyPair, LeafProfile, sign_request

_CREDENTIAL_LIFE = timedelta(hours=1)

#: Writes down who asks for gated pools; awaited before what was asked for is done, and never after it.
Asking = Callable[[Sequence[NodePool]], Awaitable[None]]


@dataclass(frozen=True)
class ClientAuthority:
    """What signs people's certificates for one cluster, and where its API server is reached."""

    pair: KeyPair
    server: str


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


class ClusterService:
    """Clusters of all projects."""

    def __init__(
        self,
        store: ClusterStore,
        *,
        authorities: ClientAuthorities,
        events: EventLog,
        reserved: Sequence[TakenRange],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``changed`` is called whenever a cluster was made, changed or asked to end."""
        self._store = store
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
        parse_label(name, what="cluster name", longest=LONGEST_CLUSTER_NAME)
        check_shape(spec)
        await asking(newly_asked((), spec.node_pools))
        cluster = await self._store.create(
            project,
            name,
            lambda others: admit(name, spec, project=project, others=others, reserved=self._reserved),
            confirm,
        )
        self._changed()
        return cluster

    async def change(self, project: str, name: str, patch: dict[str, Any], *, asking: Asking) -> Cluster:
        """Merge ``patch`` (RFC 7396) into a cluster's spec; ``asking`` is told first which gated pools change."""
        cluster = await self.get(project, name)
        if cluster.deleting:
            raise ConflictError(f"{name} is being deleted", hint="wait until it is gone, then create it again")
        if cluster.spec_problem:
            raise ConflictError(
                f"what is stored of {name} is not valid: {cluster.spec_problem}", hint="delete it and create it again"
            )
        before = cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        try:
            after = ClusterSpec.model_validate(merge_patch(before, patch))
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
            raise InvalidInputError(said, hint="correct the named fields") from error
        admit_change(cluster.spec, after)
        if after != cluster.spec:
            await asking(newly_asked(cluster.spec.node_pools, after.node_pools))
            cluster = await self._store.replace_spec(cluster, after)
            self._changed()
        return cluster

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
        cluster = await self.get(project, name)
        authority = await self._authorities.of(cluster)
        if authority is None:
            raise UnavailableError(
                f"{name} has no API server yet", hint=f"'haneul cluster get {name}' shows its progress"
            )
        profile = LeafProfile(f"haneul:{person}", (f"haneul:{role}s",), client=True)
        try:
            certificate = sign_request(authority.pair, request, profile, now=now, life=_CREDENTIAL_LIFE)
        except ValueError as error:
            raise InvalidInputError(f"the certificate request is not valid: {error}") from error
        return Credential(
            certificate.decode(), authority.pair.certificate.decode(), authority.server, now + _CREDENTIAL_LIFE
        )
