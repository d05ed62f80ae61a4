"""Events of clusters as Kubernetes Events of the management cluster, beside the clusters they are about.

``events.k8s.io/v1`` is the API for new reporters (Kubernetes documentation "Event"; what it says of a series and of
which fields may change is kept here); readers of the older core API, ``kubectl describe`` among them, see the same
objects. An event's name is a digest of what it says, so a recorder that was ended is continued by the next one. The
management API server forgets an event an hour after it was written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from haneul.dkos.control_plane import CLUSTER_LABEL, labels
from haneul.dkos.event_log import EventRecord, newest_last
from haneul.dkos.events import Event, EventType
from haneul.dkos.model import CLUSTERS, Cluster, project_namespace
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import EVENTS, ROLE_BINDINGS, KubeApiError, KubeClient, Manifest
from haneul.kernel.kube_manifests import account, role_binding

_log = structlog.get_logger(__name__)

#: The role, of the whole management cluster, that the platform's API gets in the namespaces of projects.
READER: Final = "haneul-event-reader"
_REPORTER: Final = "dkos.haneul.dev/operator"
_TRIES: Final = 3


class KubeEvents:
    """Writes events, counts what happens again, and reads both."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._readable: set[str] = set()

    async def record(self, cluster: Cluster, event: Event, *, times: int, last: datetime) -> None:
        """Create the event, or count it up."""
        await self._let_the_api_read(project_namespace(cluster.project))
        for _ in range(_TRIES):
            try:
                await self._client.create(EVENTS, event_manifest(cluster, event, times=times, last=last))
            except KubeApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                # It may be forgotten just now; then it is a new one.
                if await self._count_up(cluster, event, times, last):
                    return
            else:
                return

    async def of(self, cluster: Cluster) -> Sequence[EventRecord]:
        """Return a cluster's events."""
        namespace = project_namespace(cluster.project)
        try:
            found = await self._client.list(EVENTS, namespace, labels=f"{CLUSTER_LABEL}={cluster.uid}")
        except KubeApiError as error:
            if error.reason != "Forbidden":
                raise
            # The right to read a project's events comes with the first one.
            return []
        return newest_last([_record(manifest) for manifest in found])

    async def _count_up(self, cluster: Cluster, event: Event, times: int, last: datetime) -> bool:
        name, namespace = event_name(cluster, event), project_namespace(cluster.project)
        kept = await self._client.get(EVENTS, name, namespace)
        if kept is None:
            return False
        series = {"count": _count(kept) + times, "lastObservedTime": _micro_time(last)}
        try:
            await self._client.patch(EVENTS, name, {"series": series}, namespace)
        except KubeApiError as error:
            if error.reason != "NotFound":
                raise
            return False
        return True

    async def _let_the_api_read(self, namespace: str) -> None:
        """Once in a process's life, before the first event of a project."""
        if namespace in self._readable:
            return
        try:
            await self._client.apply(ROLE_BINDINGS, _reading_right(namespace))
        except HaneulError as error:
            # Events are worth writing even where only administrators read them; it is tried again with the next one.
            _log.warning("the platform's API may not read events", namespace=namespace, error=str(error))
        else:
            self._readable.add(namespace)


def event_name(cluster: Cluster, event: Event) -> str:
    """Return the name under which an event is counted: the same for the same words about the same cluster."""
    said = "\0".join((cluster.uid, event.type, event.reason, event.message))
    return f"{cluster.name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def event_manifest(cluster: Cluster, event: Event, *, times: int, last: datetime) -> Manifest:
    """Return the Event; one that happened more than once is a series from its first writing."""
    namespace = project_namespace(cluster.project)
    manifest: Manifest = {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": event_name(cluster, event), "namespace": namespace, "labels": labels(cluster)},
        "eventTime": _micro_time(last),
        "type": event.type.value,
        "reason": event.reason.value,
        "action": "Reconcile",
        "note": event.message,
        "regarding": {
            "apiVersion": CLUSTERS.api_version,
            "kind": CLUSTERS.kind,
            "name": cluster.name,
            "namespace": namespace,
            "uid": cluster.uid,
        },
        "reportingController": _REPORTER,
        "reportingInstance": "haneul-operator",
    }
    if times > 1:
        manifest["series"] = {"count": times, "lastObservedTime": _micro_time(last)}
    return manifest


def _reading_right(namespace: str) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "haneul"}
    return role_binding(READER, namespace, "ClusterRole", account("haneul-api", "haneul-system"), labels)


def _record(manifest: Manifest) -> EventRecord:
    first = manifest.get("eventTime") or manifest["metadata"]["creationTimestamp"]
    return EventRecord(
        name=manifest["metadata"]["name"],
        type=EventType(manifest["type"]),
        reason=manifest["reason"],
        message=manifest.get("note", ""),
        count=_count(manifest),
        first_seen=first,
        last_seen=(manifest.get("series") or {}).get("lastObservedTime") or first,
    )


def _count(manifest: Manifest) -> int:
    return int((manifest.get("series") or {}).get("count", 1))


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
