"""Approvals as custom resources of the management cluster, beside the clusters that they are about.

Only the platform's API writes them (:mod:`haneul.firewall.schema` has the policy), the operator only reads. Each
belongs to its cluster and goes with it. Whoever reads trusts nothing but the spec: an object whose name, place or label
does not fit it, or that cannot be understood, approves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from pydantic import ValidationError

from haneul.firewall.model import Approval, Way
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeApiError, KubeClient, Manifest, Resource

_log = structlog.get_logger(__name__)

APPROVALS: Final = Resource("firewall.haneul.dev", "v1alpha1", "firewallapprovals", "FirewallApproval")
CLUSTER_UID: Final = "firewall.haneul.dev/cluster-uid"


class KubeApprovals:
    """The board for who writes, and the reader for who only reads."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def of(self, project: str, uid: str) -> Sequence[Approval]:
        """Return a cluster's approvals, asked of the API server at this moment."""
        found = await self._client.list(APPROVALS, _namespace(project), labels=f"{CLUSTER_UID}={uid}")
        read = [_read(manifest) for manifest in found]
        return [one for one in read if one is not None and (one.way.project, one.way.uid) == (project, uid)]

    async def published(self) -> Sequence[Approval]:
        """Return all that can be understood; what cannot is taken away, for only we write here."""
        approvals = []
        for manifest in await self._client.list(APPROVALS):
            approval = _read(manifest)
            if approval is None:
                metadata = manifest["metadata"]
                _log.warning("an approval that is none of ours is deleted", name=metadata["name"])
                await self._client.delete(APPROVALS, metadata["name"], metadata["namespace"])
            else:
                approvals.append(approval)
        return approvals

    async def publish(self, approval: Approval) -> None:
        """Create the object; one of its name that says something else is replaced."""
        manifest = approval_manifest(approval)
        try:
            await self._client.create(APPROVALS, manifest)
        except KubeApiError as error:
            if error.reason != "AlreadyExists":
                raise
            name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
            found = await self._client.get(APPROVALS, name, namespace)
            if found is not None and found["spec"] == manifest["spec"]:
                return
            await self._client.delete(APPROVALS, name, namespace)
            await self._client.create(APPROVALS, manifest)

    async def withdraw(self, approval: Approval) -> None:
        """Delete the object."""
        await self._client.delete(APPROVALS, _name(approval.way), _namespace(approval.way.project))


def approval_manifest(approval: Approval) -> Manifest:
    """Return the custom resource of an approval."""
    way = approval.way
    owner = {"apiVersion": "dkos.haneul.dev/v1alpha1", "kind": "Cluster", "name": way.cluster, "uid": way.uid}
    return {
        "apiVersion": APPROVALS.api_version,
        "kind": APPROVALS.kind,
        "metadata": {
            "name": _name(way),
            "namespace": _namespace(way.project),
            "labels": {"app.kubernetes.io/managed-by": "haneul", CLUSTER_UID: way.uid},
            "ownerReferences": [owner],
        },
        "spec": approval.model_dump(mode="json", by_alias=True),
    }


def _read(manifest: Manifest) -> Approval | None:
    try:
        approval = Approval.model_validate(manifest.get("spec"))
    except (ValidationError, HaneulError):
        return None
    metadata = manifest["metadata"]
    place = (_name(approval.way), _namespace(approval.way.project), approval.way.uid)
    said = (metadata["name"], metadata.get("namespace"), (metadata.get("labels") or {}).get(CLUSTER_UID))
    return approval if said == place else None


def _name(way: Way) -> str:
    return f"way-{way.id}"


def _namespace(project: str) -> str:
    return f"project-{project}"
