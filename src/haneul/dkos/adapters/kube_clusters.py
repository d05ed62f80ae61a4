"""Clusters as custom resources of the management cluster, and the quotas of projects.

Several API processes may make and change clusters at once. That ranges do not overlap, and that no project has more
than its quota, are promises over all clusters, so each creation and each growth is first claimed in one ledger
(:mod:`haneul.dkos.adapters.kube_ledger`). When it is done, or was refused, the claim is taken back; where nobody knows
whether it was done, and where the process ended, it expires.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from haneul.dkos.adapters.kube_ledger import TRIES, Entries, Ledger, too_many_at_once
from haneul.dkos.cluster_store import Admit, ClusterEvent, changed_meanwhile, not_found
from haneul.dkos.model import CLUSTERS, Cluster, ClusterSpec, cluster_from_resource, project_namespace
from haneul.dkos.quota import Amounts, QuotaLimits, Quotas, admit_growth, needs
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, NotFoundError
from haneul.kernel.kube import NAMESPACES, KubeApiError, KubeClient, Manifest, Resource

_EVENTS = {"ADDED": "added", "MODIFIED": "modified", "DELETED": "deleted"}

#: Decides on a claim, knowing the clusters that are there and the ledger's entries; returns it with the new entries.
_Decide = Callable[[Sequence[Cluster], Entries], tuple[Cluster, Entries]]


class KubeClusters:
    """The store that the operator watches."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._ledger = Ledger(client, clock=clock)

    async def list(self, project: str | None = None) -> Sequence[Cluster]:
        """Return the clusters of a project, or all."""
        namespace = project_namespace(project) if project else ""
        found = [cluster_from_resource(item) for item in await self._client.list(CLUSTERS, namespace)]
        return sorted(found, key=lambda cluster: (cluster.project, cluster.name))

    async def get(self, project: str, name: str) -> Cluster:
        """Return a cluster."""
        found = await self._client.get(CLUSTERS, name, project_namespace(project))
        if found is None:
            raise not_found(project, name)
        return cluster_from_resource(found)

    async def create(self, project: str, name: str, admit: Admit) -> Cluster:
        """Claim, then create."""

        def decide(clusters: Sequence[Cluster], entries: Entries) -> tuple[Cluster, Entries]:
            # A claim of this very name may be of a creation that ended half-way, so it does not stand in the way: who
            # is first, the object's name decides. For all others it counts.
            others = [claim for claim in entries.creations if (claim.project, claim.name) != (project, name)]
            spec = admit([*clusters, *others])
            self._check_quota(project, name, None, spec, [*clusters, *entries.claims], entries.quotas)
            claim = self._claimed(project, name, spec)
            return claim, replace(entries, creations=(*entries.creations, claim))

        async with self._claim(decide) as claim:
            if await self._client.get(NAMESPACES, project_namespace(project)) is None:
                with contextlib.suppress(ConflictError):
                    await self._create(
                        NAMESPACES, _project_namespace(project), f"the namespace of {project} exists already"
                    )
            self._ledger.still_good(claim)
            taken = f"{project} has a cluster named {name} already"
            return cluster_from_resource(await self._create(CLUSTERS, _resource(project, name, claim.spec), taken))

    async def _create(self, resource: Resource, manifest: Manifest, taken: str) -> Manifest:
        try:
            return await self._client.create(resource, manifest)
        except KubeApiError as error:
            if error.reason == "AlreadyExists":
                raise ConflictError(taken, hint="choose another name") from error
            raise

    async def replace_spec(self, cluster: Cluster, spec: ClusterSpec) -> Cluster:
        """Change the spec if the cluster is still of the generation that the change was decided on.

        What makes the cluster count for more of anything is claimed first.
        """
        if not needs(cluster.spec).grows_to(needs(spec)):
            return await self._replace(cluster, spec, lambda: None)

        def decide(clusters: Sequence[Cluster], entries: Entries) -> tuple[Cluster, Entries]:
            others = [*clusters, *entries.claims]
            self._check_quota(cluster.project, cluster.name, cluster.spec, spec, others, entries.quotas)
            claim = self._claimed(cluster.project, cluster.name, spec)
            return claim, replace(entries, changes=(*entries.changes, claim))

        async with self._claim(decide) as claim:
            return await self._replace(cluster, spec, lambda: self._ledger.still_good(claim))

    async def _replace(self, cluster: Cluster, spec: ClusterSpec, still_good: Callable[[], None]) -> Cluster:
        namespace = project_namespace(cluster.project)
        found = await self._client.get(CLUSTERS, cluster.name, namespace)
        if found is None:
            raise not_found(cluster.project, cluster.name)
        if _state(found) != (cluster.uid, cluster.generation):
            raise changed_meanwhile()
        patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": _dump(spec)}
        # In a merge patch, what is left out stays; what shall go must be named.
        gone = cluster.spec.settings.feature_gates.keys() - spec.settings.feature_gates.keys()
        patch["spec"]["settings"]["featureGates"] |= dict.fromkeys(gone)
        for _ in range(TRIES):
            still_good()
            try:
                return cluster_from_resource(await self._client.patch(CLUSTERS, cluster.name, patch, namespace))
            except KubeApiError as error:
                if error.reason == "NotFound":
                    raise not_found(cluster.project, cluster.name) from error
                if error.reason != "Conflict":
                    raise
            # The status changes all the time; only a change of the spec matters here.
            found = await self._client.get(CLUSTERS, cluster.name, namespace)
            if found is None or _state(found) != (cluster.uid, cluster.generation):
                break
            patch["metadata"] = {"resourceVersion": found["metadata"]["resourceVersion"]}
        raise changed_meanwhile()

    async def delete(self, project: str, name: str) -> Cluster:
        """Ask for the cluster's end; the operator's finalizer keeps it until it is torn down."""
        cluster = await self.get(project, name)
        await self._client.delete(CLUSTERS, name, project_namespace(project))
        return cluster.model_copy(update={"deleting": True})

    async def watch(self, project: str) -> AsyncIterator[ClusterEvent]:
        """Yield events."""
        async for event in self._client.watch(CLUSTERS, project_namespace(project)):
            yield ClusterEvent(_EVENTS[event.type], cluster_from_resource(event.object))

    async def quotas(self) -> Quotas:
        """Return all limits that were set."""
        entries, _ = await self._ledger.read()
        return entries.quotas

    async def set_quota(self, project: str | None, limits: QuotaLimits) -> None:
        """Set the limits of a project, or the platform's."""
        await self._ledger.update(lambda entries: replace(entries, quotas=entries.quotas.with_limits(project, limits)))

    @contextlib.asynccontextmanager
    async def _claim(self, decide: _Decide) -> AsyncIterator[Cluster]:
        """Hold a claim while the block does what was claimed."""
        claim = await self._write_claim(decide)
        try:
            yield claim
        except KubeApiError as error:
            # After a fault of the server's own, nobody knows whether it was done after all.
            if error.status < 500:
                await self._withdraw(claim)
            raise
        except (ConflictError, NotFoundError):
            await self._withdraw(claim)
            raise
        await self._withdraw(claim)

    async def _write_claim(self, decide: _Decide) -> Cluster:
        for attempt in range(TRIES):
            # The ledger first: a claim that is taken back between the two is of a cluster that the list shows.
            entries, version = await self._ledger.read()
            claim, wanted = decide(list(await self.list()), entries)
            if await self._ledger.write(wanted, version):
                return claim
            await self._clock.sleep(0.01 * (attempt + 1))
        raise too_many_at_once()

    async def _withdraw(self, claim: Cluster) -> None:
        """Take a claim back. Should that fail, it expires, and what it held is free a little later."""
        with contextlib.suppress(HaneulError):
            await self._ledger.update(lambda entries: entries.without(claim))

    @staticmethod
    def _check_quota(
        project: str,
        name: str,
        before: ClusterSpec | None,
        after: ClusterSpec,
        clusters: Sequence[Cluster],
        quotas: Quotas,
    ) -> None:
        had = Amounts() if before is None else needs(before)
        admit_growth(project, name, had, needs(after), clusters=clusters, limits=quotas.of(project))

    def _claimed(self, project: str, name: str, spec: ClusterSpec) -> Cluster:
        now = self._clock.now()
        return Cluster(project=project, name=name, uid=uuid.uuid4().hex, generation=0, created=now, spec=spec)


def _state(resource: Manifest) -> tuple[str, int]:
    """Return what tells one state of what is asked for from another; the status may change meanwhile."""
    return resource["metadata"]["uid"], resource["metadata"]["generation"]


def _dump(spec: ClusterSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def _resource(project: str, name: str, spec: ClusterSpec) -> Manifest:
    return {
        "apiVersion": CLUSTERS.api_version,
        "kind": CLUSTERS.kind,
        "metadata": {"name": name, "namespace": project_namespace(project)},
        "spec": _dump(spec),
    }


def _project_namespace(project: str) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "haneul", "pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": project_namespace(project), "labels": labels},
    }
