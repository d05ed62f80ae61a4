"""Makes a cluster's report of the images that it runs, from its pods.

What runs is what the nodes say that they pulled (``imageID``), and what a pod asks for by its digest before they have.
Digests count, whatever host they came from: a node may have them from the hub under another registry's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from haneul.d2hub.inventory import Running, is_workload
from haneul.kernel.kube import PODS, KubeClient, Manifest

_DIGEST: Final = re.compile(r"(?:^|@)(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")
#: Pods that have ended run nothing (Kubernetes documentation "Pod phase").
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_STATUSES: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_HASH: Final = "pod-template-hash"


async def running_in(kube: KubeClient) -> frozenset[Running]:
    """Return what a cluster runs. Raises UnavailableError, KubeApiError: half of it would be a wrong report."""
    return images_of(await kube.list(PODS))


def images_of(pods: Iterable[Manifest]) -> frozenset[Running]:
    """Return the workloads of pods with each image that they run."""
    return frozenset(
        Running(pod["metadata"]["namespace"], workload_of(pod), digest)
        for pod in pods
        if pod.get("status", {}).get("phase") not in _ENDED
        for digest in _digests(pod)
    )


def workload_of(pod: Manifest) -> str:
    """Return what a pod belongs to: its controller, or the Deployment behind that, or the pod itself.

    Whoever makes a pod may write any controller: one that no report may name is none.
    """
    metadata = pod["metadata"]
    owner = next((one for one in metadata.get("ownerReferences") or [] if one.get("controller")), None)
    if owner is None:
        return f"Pod/{metadata['name']}"
    mark = (metadata.get("labels") or {}).get(_HASH)
    if owner["kind"] == "ReplicaSet" and mark and owner["name"].endswith(f"-{mark}"):
        # A Deployment names its ReplicaSets so, and marks their pods (Kubernetes documentation "Deployments").
        found = f"Deployment/{owner['name'].removesuffix(f'-{mark}')}"
    else:
        found = f"{owner['kind']}/{owner['name']}"
    return found if is_workload(found) else f"Pod/{metadata['name']}"


def _digests(pod: Manifest) -> Iterator[str]:
    status, spec = pod.get("status", {}), pod.get("spec", {})
    texts = [entry.get("imageID") for name in _STATUSES for entry in _entries(status, name)]
    texts += [entry.get("image") for name in _CONTAINERS for entry in _entries(spec, name)]
    texts += [volume.get("image", {}).get("reference") for volume in _entries(spec, "volumes")]
    for text in texts:
        found = _DIGEST.search(text or "")
        if found:
            yield found[1]


def _entries(part: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return part.get(name) or []
