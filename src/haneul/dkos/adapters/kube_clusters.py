"""Clusters as custom resources of the management cluster, and the quotas of projects.

Several API processes may make and change clusters at once. That ranges do not overlap, and that no project has more
than its quota, are promises over all clusters, so each creation and each growth is first claimed in one ledger
(:mod:`haneul.dkos.adapters.claim_ledger`). When it is done, or was refused, the claim is taken back; where nobody knows
whether it was done, and where the process ended, it expires.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from haneul.dkos.adapters.claim_ledger import ClaimLedger, Entries
from haneul.dkos.cluster_store import Admit, ClusterEvent, Confirm, certain, changed_meanwhile, not_found
from haneul.dkos.model import CLUSTERS, LOOK_ANNOTATION, Cluster, ClusterSpec, cluster_from_resource, project_namespace
from haneul.dkos.quota import Amounts, QuotaLimits, Quotas, admit_growth, counts_for, needs
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, UnavailableError
from haneul.kernel.kube import NAMESPACES, KubeApiError, KubeClient, Manifest, Resource

_TRIES = 20
_EVENTS = {"ADDED": "added", "MODIFIED": "modified", "DELETED": "deleted"}


class KubeClusters:
    """The store that the operator watches."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._ledger = ClaimLedger(client, clock=clock)

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

    async def create(self, project: str, name: str, admit: Admit, confirm: Confirm = certain) -> Cluster:
        """Claim, confirm, then create."""

        async def decide(entries: Entries) -> ClusterSpec:
            clusters = await self.list()
            # A claim of this very name may be of a creation that ended half-way, so it does not stand in the way: who
            # is first, the object's name decides. For all others it counts.
            others = [claim for claim in entries.claims if (claim.project, claim.name) != (project, name)]
            spec = admit([*clusters, *others])
            about_to_be = [*clusters, *entries.claims, *entries.changes]
            limits = entries.quotas.of(project)
            admit_growth(project, name, Amounts(), needs(spec), clusters=about_to_be, limits=limits)
            return spec

        async with self._holding(await self._ledger.claim(project, name, decide)) as claim:
            await confirm()
            if await self._client.get(NAMESPACES, project_namespace(project)) is None:
                with contextlib.suppress(ConflictError):
                    await self._create(
                        NAMESPACES, _project_namespace(project), f"the namespace of {project} exists already"
                    )
            self._ledger.still_good(claim)
            taken = f"{project} has a cluster named {name} already"
            return cluster_from_resource(await self._create(CLUSTERS, _resource(project, name, claim.spec), taken))

    @contextlib.asynccontextmanager
    async def closed(self, project: str) -> AsyncIterator[Sequence[Cluster]]:
        """Close the project in the ledger, then look what is in it."""
        closing = await self._ledger.close(project)
        try:
            yield await self.list(project)
        finally:
            await self._ledger.open(closing)

    async def _create(self, resource: Resource, manifest: Manifest, taken: str) -> Manifest:
        try:
            return await self._client.create(resource, manifest)
        except KubeApiError as error:
            if error.reason == "AlreadyExists":
                raise ConflictError(taken, hint="choose another name") from error
            raise

    async def replace_spec(self, cluster: Cluster, spec: ClusterSpec) -> Cluster:
        """Change the spec if the cluster is still of the generation that the change was decided on.

        What makes the cluster count for more of anything is claimed first. Waking always is: a cluster that was seen
        falling asleep may sleep by now, and its room may be another's.
        """
        wakes = cluster.spec.hibernation.asleep and not spec.hibernation.asleep
        if not wakes and not counts_for(cluster).grows_to(counts_for(cluster, spec)):
            return await self._replace(cluster, spec, lambda: None)

        async def decide(entries: Entries) -> ClusterSpec:
            clusters = await self.list()
            about_to_be = [*clusters, *entries.claims, *entries.changes]
            limits = entries.quotas.of(cluster.project)
            now = next((kept for kept in clusters if kept.uid == cluster.uid), cluster)
            before, after = counts_for(now), counts_for(now, spec)
            admit_growth(cluster.project, cluster.name, before, after, clusters=about_to_be, limits=limits)
            return spec

        async with self._holding(await self._ledger.claim_change(cluster.project, cluster.name, decide)) as claim:
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
        for _ in range(_TRIES):
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

    async def request_look(self, project: str, name: str, request: str) -> Cluster:
        """Annotate the resource, of which the operator is told."""
        patch = {"metadata": {"annotations": {LOOK_ANNOTATION: request}}}
        try:
            return cluster_from_resource(await self._client.patch(CLUSTERS, name, patch, project_namespace(project)))
        except KubeApiError as error:
            if error.reason == "NotFound":
                raise not_found(project, name) from error
            raise

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
        return await self._ledger.quotas()

    async def set_quota(self, project: str | None, limits: QuotaLimits) -> None:
        """Set the limits of a project, or the platform's."""
        await self._ledger.set_quota(project, limits)

    @contextlib.asynccontextmanager
    async def _holding(self, claim: Cluster) -> AsyncIterator[Cluster]:
        """Hold a claim while the block does what was claimed."""
        try:
            yield claim
        except HaneulError as error:
            # After silence or a fault of the server's own, nobody knows whether it was done after all.
            if not (isinstance(error, UnavailableError) or (isinstance(error, KubeApiError) and error.status >= 500)):
                await self._ledger.withdraw(claim)
            raise
        await self._ledger.withdraw(claim)


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
