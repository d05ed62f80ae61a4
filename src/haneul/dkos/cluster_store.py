"""The port through which clusters are kept, and what keeps them in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from haneul.dkos.model import Cluster, ClusterSpec
from haneul.dkos.quota import Amounts, QuotaLimits, Quotas, admit_growth, counts_for, needs
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, NotFoundError


@dataclass(frozen=True)
class ClusterEvent:
    """A change: ``added``, ``modified`` or ``deleted``."""

    type: str
    cluster: Cluster


#: Decides on a new cluster's spec, knowing all others; may be called again when somebody else was faster.
Admit = Callable[[Sequence[Cluster]], ClusterSpec]


#: Awaited when a creation is known to all and before anything is made; what it raises ends the creation.
Confirm = Callable[[], Awaitable[object]]


async def certain() -> None:
    """Confirm a creation that nothing can have made wrong meanwhile."""


class ClusterStore(Protocol):
    """Keeps what clusters are asked to be, and shows what is seen of them."""

    async def list(self, project: str | None = None) -> Sequence[Cluster]:
        """Return the clusters of a project, or all, by project and name."""
        ...

    async def get(self, project: str, name: str) -> Cluster:
        """Return a cluster. Raises NotFoundError."""
        ...

    async def create(self, project: str, name: str, admit: Admit, confirm: Confirm = certain) -> Cluster:
        """Add a cluster with the spec that ``admit`` returns; two at once never get what only one may have.

        Raises ConflictError in a closed project, QuotaExceededError if the project would have more than its quota.
        """
        ...

    def closed(self, project: str) -> AbstractAsyncContextManager[Sequence[Cluster]]:
        """Let no cluster be created in a project as long as the context lasts; yields those that are there.

        Raises ConflictError while one is being created. A creation that begins when the context has ended asks its
        ``confirm`` after that, and so learns what was done to the project in it.
        """
        ...

    async def replace_spec(self, cluster: Cluster, spec: ClusterSpec) -> Cluster:
        """Change the spec of exactly this state of the cluster.

        Raises ConflictError if it changed meanwhile, QuotaExceededError if it grows beyond the project's quota.
        """
        ...

    async def request_look(self, project: str, name: str, request: str) -> Cluster:
        """Ask that the cluster be looked at again, which its status then says. Raises NotFoundError."""
        ...

    async def delete(self, project: str, name: str) -> Cluster:
        """Ask for the cluster's end; it stays to be seen until all of it is gone. Raises NotFoundError."""
        ...

    def watch(self, project: str) -> AsyncIterator[ClusterEvent]:
        """Yield what is there as ``added``, then every change."""
        ...


class QuotaStore(Protocol):
    """Keeps the limits that the store of clusters holds projects to."""

    async def quotas(self) -> Quotas:
        """Return all limits that were set."""
        ...

    async def set_quota(self, project: str | None, limits: QuotaLimits) -> None:
        """Set the limits of a project, or the platform's where none is named. Whoever is admitted later, keeps them."""
        ...


def not_found(project: str, name: str) -> NotFoundError:
    """Return the error for a cluster that is not there."""
    return NotFoundError(
        f"{project} has no cluster named {name}", hint=f"'haneul cluster list -p {project}' shows them"
    )


def being_created(project: str) -> ConflictError:
    """Return the error for closing a project in which a cluster is being created."""
    return ConflictError(f"a cluster is being created in {project}", hint="try again in a minute")


def being_deleted(project: str) -> ConflictError:
    """Return the error for creating a cluster in a closed project."""
    return ConflictError(f"{project} is being deleted", hint="'haneul project list' shows in a moment if it is gone")


def changed_meanwhile() -> ConflictError:
    """Return the error for a change that was decided on an older state."""
    return ConflictError("the cluster was changed by somebody else meanwhile", hint="look at it and try again")


class MemoryClusters:
    """Clusters in memory: nothing makes them, so they stay as they were asked for; deleted ones are gone at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clusters: dict[tuple[str, str], Cluster] = {}
        self._numbers = itertools.count(1)
        self._watchers: list[tuple[str, asyncio.Queue[ClusterEvent]]] = []
        self._quotas = Quotas()
        self._coming: list[Cluster] = []
        self._closed: list[str] = []

    @property
    def watchers(self) -> int:
        """Return how many watch now."""
        return len(self._watchers)

    async def list(self, project: str | None = None) -> Sequence[Cluster]:
        """Return the clusters."""
        return [cluster for (owner, _), cluster in sorted(self._clusters.items()) if project in (None, owner)]

    async def get(self, project: str, name: str) -> Cluster:
        """Return a cluster."""
        if (project, name) not in self._clusters:
            raise not_found(project, name)
        return self._clusters[(project, name)]

    async def create(self, project: str, name: str, admit: Admit, confirm: Confirm = certain) -> Cluster:
        """Add a cluster."""
        if project in self._closed:
            raise being_deleted(project)
        clusters = [*await self.list(), *self._coming]
        spec = admit(clusters)
        admit_growth(project, name, Amounts(), needs(spec), clusters=clusters, limits=self._quotas.of(project))
        cluster = Cluster(
            project=project,
            name=name,
            uid=f"uid-{next(self._numbers)}",
            generation=1,
            created=self._clock.now(),
            spec=spec,
        )
        self._coming.append(cluster)
        try:
            await confirm()
        finally:
            self._coming.remove(cluster)
        return self._keep("added", cluster)

    @asynccontextmanager
    async def closed(self, project: str) -> AsyncIterator[Sequence[Cluster]]:
        """Close a project."""
        if any(cluster.project == project for cluster in self._coming):
            raise being_created(project)
        self._closed.append(project)
        try:
            yield await self.list(project)
        finally:
            self._closed.remove(project)

    async def replace_spec(self, cluster: Cluster, spec: ClusterSpec) -> Cluster:
        """Change a cluster's spec."""
        kept = await self.get(cluster.project, cluster.name)
        if (kept.uid, kept.generation) != (cluster.uid, cluster.generation):
            raise changed_meanwhile()
        admit_growth(
            cluster.project,
            cluster.name,
            counts_for(kept),
            counts_for(kept, spec),
            clusters=[*self._clusters.values(), *self._coming],
            limits=self._quotas.of(cluster.project),
        )
        changed = kept.model_copy(update={"spec": spec, "generation": kept.generation + 1})
        return self._keep("modified", changed)

    async def request_look(self, project: str, name: str, request: str) -> Cluster:
        """Note the request; what a cluster in memory is, its status says already."""
        cluster = await self.get(project, name)
        status = cluster.status.model_copy(update={"look_answered": request})
        return self._keep("modified", cluster.model_copy(update={"look_requested": request, "status": status}))

    async def delete(self, project: str, name: str) -> Cluster:
        """Remove a cluster."""
        cluster = await self.get(project, name)
        del self._clusters[(project, name)]
        self._tell(ClusterEvent("deleted", cluster))
        return cluster.model_copy(update={"deleting": True})

    async def quotas(self) -> Quotas:
        """Return the limits."""
        return self._quotas

    async def set_quota(self, project: str | None, limits: QuotaLimits) -> None:
        """Set limits."""
        self._quotas = self._quotas.with_limits(project, limits)

    async def watch(self, project: str) -> AsyncIterator[ClusterEvent]:
        """Yield events."""
        queue: asyncio.Queue[ClusterEvent] = asyncio.Queue()
        for cluster in await self.list(project):
            queue.put_nowait(ClusterEvent("added", cluster))
        entry = (project, queue)
        self._watchers.append(entry)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(entry)

    def _keep(self, kind: str, cluster: Cluster) -> Cluster:
        self._clusters[(cluster.project, cluster.name)] = cluster
        self._tell(ClusterEvent(kind, cluster))
        return cluster

    def _tell(self, event: ClusterEvent) -> None:
        for project, queue in self._watchers:
            if project == event.cluster.project:
                queue.put_nowait(event)
