"""Doing what :mod:`node_changes` decides about a Node object: marks, cordons, and moving pods away.

The mark is an annotation with the moment at which the change began, so that whoever goes on after a killed operator
keeps the same deadline. A second annotation says that the cordon is ours: a person's own stays when we are done. What
is written can be seen by the cluster's owners and changed by them; a mark that is no moment is one of long ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from haneul.kernel.clock import Clock
from haneul.kernel.kube import NODES, PODS, KubeApiError, KubeClient, Manifest

_log = structlog.get_logger(__name__)

CHANGING: Final = "dkos.haneul.dev/changing-since"
CORDONED: Final = "dkos.haneul.dev/cordoned"
#: How many pods were still there at the deadline.
LEFT: Final = "dkos.haneul.dev/pods-left"
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RETRY_SECONDS: Final = 5.0
_AT_ONCE: Final = 8
#: How many pods are named that may not move.
_NAMED: Final = 3
_MIRROR: Final = "kubernetes.io/config.mirror"


def marked_since(node: Manifest | None, now: datetime) -> datetime | None:
    """Return since when a node is being changed; None if it is not."""
    text = _annotations(node).get(CHANGING)
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        return _LONG_AGO
    return min(since, now) if since.tzinfo is not None else _LONG_AGO


def pods_left(node: Manifest | None) -> str:
    """Return what is noted of pods that did not move in time, for people."""
    left = _annotations(node).get(LEFT)
    return f"{left} pods had not moved in time" if left else ""


async def mark(tenant: KubeClient, node: Manifest, now: datetime) -> None:
    """Take note on the Node object, and cordon it unless somebody else has."""
    annotations = {CHANGING: now.isoformat()}
    patch: Manifest = {"metadata": {"annotations": annotations}}
    if not node.get("spec", {}).get("unschedulable"):
        annotations[CORDONED] = "true"
        patch["spec"] = {"unschedulable": True}
    await tenant.patch(NODES, node["metadata"]["name"], patch)


async def mark_replaced(tenant: KubeClient, node: Manifest, now: datetime) -> None:
    """Note that its machine is made anew from now on, so that how long it was emptied does not count any more."""
    await tenant.patch(NODES, node["metadata"]["name"], {"metadata": {"annotations": {CHANGING: now.isoformat()}}})


async def release(tenant: KubeClient, node: Manifest) -> None:
    """Take our mark away, and the cordon if it is ours."""
    patch: Manifest = {"metadata": {"annotations": dict.fromkeys((CHANGING, CORDONED, LEFT))}}
    if CORDONED in _annotations(node):
        patch["spec"] = {"unschedulable": None}
    await tenant.patch(NODES, node["metadata"]["name"], patch)


class Drainer:
    """Asks pods to leave; remembers only when it last asked, so as not to ask all the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[str, float] = {}
        #: By node, the pods that were refused to leave when they were asked last, and why.
        self._refused: dict[str, dict[str, str]] = {}

    def held(self, node: str) -> str:
        """Return in words which of the node's pods may not leave, and why."""
        refused = sorted(self._refused.get(node, {}).items())
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        return "; ".join(f"pod {pod}: {why}" for pod, why in refused[:_NAMED]) + more

    async def drain(self, tenant: KubeClient, node: str, *, together: bool = False) -> Sequence[Manifest]:
        """Ask the node's pods to leave, as their disruption budgets allow; return those that are still there.

        With ``together``, none is asked as long as one may not: who waits without a deadline for the one would be
        without all others meanwhile, if they find no room elsewhere.
        """
        pods = await movable_pods(tenant, node)
        now = self._clock.monotonic()
        if not pods:
            self._asked.pop(node, None)
            self._refused.pop(node, None)
        elif now - self._asked.get(node, -_RETRY_SECONDS) >= _RETRY_SECONDS:
            self._asked[node] = now
            staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            refused = await _evict_all(tenant, staying, try_only=True) if together else {}
            self._refused[node] = refused or await _evict_all(tenant, staying)
            pods = await movable_pods(tenant, node)
        return pods

    async def note_left(self, tenant: KubeClient, node: Manifest) -> None:
        """Write down and log which pods are still there at the deadline."""
        name = node["metadata"]["name"]
        left = await movable_pods(tenant, name)
        if left and LEFT not in _annotations(node):
            pods = [_full_name(pod) for pod in left]
            _log.warning("pods did not leave a node in time", node=name, pods=pods)
            await tenant.patch(NODES, name, {"metadata": {"annotations": {LEFT: str(len(left))}}})


async def movable_pods(tenant: KubeClient, node: str) -> list[Manifest]:
    """Return the node's pods that run elsewhere as well: neither its DaemonSets' nor its own, and not ended."""
    pods = await tenant.list(PODS, fields=f"spec.nodeName={node}")
    return [pod for pod in pods if _moves(pod)]


def _moves(pod: Manifest) -> bool:
    owners = pod["metadata"].get("ownerReferences") or []
    return (
        _MIRROR not in (pod["metadata"].get("annotations") or {})
        and not any(owner["kind"] == "DaemonSet" and owner.get("controller") for owner in owners)
        and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    )


def _full_name(pod: Manifest) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


async def _evict_all(tenant: KubeClient, pods: Sequence[Manifest], *, try_only: bool = False) -> dict[str, str]:
    """Ask for the pods' end, or only whether they may; return which may not, and why."""
    slots = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        asked = {_full_name(pod): group.create_task(_evict(tenant, pod, slots, try_only=try_only)) for pod in pods}
    return {pod: why for pod, task in asked.items() if (why := task.result())}


async def _evict(tenant: KubeClient, pod: Manifest, slots: asyncio.Semaphore, *, try_only: bool) -> str:
    """Ask for a pod's end; return why it may not, or nothing."""
    metadata = pod["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "deleteOptions": {"preconditions": {"uid": metadata["uid"]}, **({"dryRun": ["All"]} if try_only else {})},
    }
    async with slots:
        try:
            await tenant.create(PODS, eviction, subresource="eviction")
        except KubeApiError as error:
            # Held by its budget, gone, or refused by somebody's webhook: asked again, and at the deadline no more.
            _log.info("pod not evicted", pod=_full_name(pod), reason=str(error))
            return "" if error.reason == "NotFound" else error.detail
    return ""


def _annotations(node: Manifest | None) -> dict[str, str]:
    return (node or {}).get("metadata", {}).get("annotations") or {}
