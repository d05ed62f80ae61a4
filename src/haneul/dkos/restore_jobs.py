"""The Jobs of a restore: what they may see, and how they end.

They run in the backup worker's namespace, where nothing of a cluster ends with it: they are ended by the cluster's
label, whatever the number of their restore. What may not begin before they are gone waits for their pods too, since a
pod that comes late has its host make the member's folder anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from haneul.dkos.backup.record import NAMESPACE, record_name
from haneul.dkos.control_plane import CLUSTER_LABEL, USER, labels
from haneul.dkos.etcd_slots import member_name
from haneul.dkos.model import NEVER, Cluster
from haneul.kernel.kube import JOBS, PODS, KubeClient, Manifest
from haneul.kernel.kube_manifests import hardened_container, hardened_pod

_ROLE: Final = "restore"
_JOB_SECONDS: Final = 3600
#: Nobody needs what a Job that is ended would still do; what it leaves half done is begun anew.
_GRACE_SECONDS: Final = 1


@dataclass(frozen=True)
class RestoreSettings:
    """What the Jobs of a restore run: the platform's image, and the hosts' folders of clusters and of backups."""

    image: str
    clusters: str
    backups: str


async def end_jobs(client: KubeClient, cluster: Cluster, *, kept: int | None = None) -> bool:
    """Ask the cluster's Jobs to go now, with their pods, but those of the restore ``kept``; say if none was left.

    To be called until they are.
    """
    gone = True
    selector = f"{CLUSTER_LABEL}={cluster.uid}"
    # Pods go last, so that none is made for one that went.
    for resource, grace in ((JOBS, None), (PODS, _GRACE_SECONDS)):
        for found in await client.list(resource, NAMESPACE, labels=selector):
            name = str(found["metadata"]["name"])
            if kept is None or not name.startswith(_prefix(cluster, kept)):
                gone = False
                await client.delete(resource, name, NAMESPACE, grace=grace)
    return gone


def job_name(cluster: Cluster, step: str) -> str:
    """Return the name of the Job that does a step of the restore that is asked for."""
    return f"{_prefix(cluster, cluster.spec.restore.number)}{step}"


def _prefix(cluster: Cluster, number: int) -> str:
    return f"restore-{cluster.uid}-{number}-"


def restore_job(cluster: Cluster, step: str, host: str, peer_url: str, settings: RestoreSettings) -> Manifest:
    """Return the Job of one step, which sees this member's folder, the backups (to read) and two records. Pure."""
    request = cluster.spec.restore
    arguments = [
        "serve",
        "restore",
        step,
        f"--number={request.number}",
        f"--peer-url={peer_url}",
        # A word that no other etcd of the cluster had, so that members of different histories never meet.
        f"--token={cluster.uid}-{request.number}",
        f"--revision={request.revision}",
        f"--least={request.least}",
        *([f"--moment={request.moment.isoformat()}"] if request.moment != NEVER else []),
        *(["--as-new"] if request.source else []),
    ]
    marks = labels(cluster, _ROLE)
    container = {
        "name": "restore",
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "volumeMounts": [
            {"name": "clusters", "mountPath": "/data", "subPath": f"{cluster.uid}/{member_name(0)}"},
            {"name": "backups", "mountPath": "/backups", "readOnly": True},
            {"name": "source", "mountPath": "/etc/haneul/source", "readOnly": True},
            {"name": "own", "mountPath": "/etc/haneul/own", "readOnly": True},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108 - of this pod alone
        ],
        "securityContext": hardened_container(),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(cluster, step), "namespace": NAMESPACE, "labels": marks},
        "spec": {
            "backoffLimit": 4,
            "activeDeadlineSeconds": _JOB_SECONDS,
            "template": {
                "metadata": {"labels": marks},
                "spec": {
                    "restartPolicy": "Never",
                    "nodeSelector": {"kubernetes.io/hostname": host},
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "priorityClassName": "haneul-masters",
                    "securityContext": hardened_pod(USER),
                    "containers": [container],
                    "volumes": [
                        {"name": "clusters", "hostPath": {"path": settings.clusters, "type": "Directory"}},
                        {"name": "backups", "hostPath": {"path": settings.backups, "type": "Directory"}},
                        _secret("source", request.source or cluster.uid),
                        _secret("own", cluster.uid),
                        {"name": "scratch", "emptyDir": {"sizeLimit": "8Gi"}},
                    ],
                },
            },
        },
    }


def _secret(name: str, uid: str) -> dict[str, Any]:
    # No more of a record than restoring takes: no certificate for any etcd.
    items = [
        {"key": key, "path": key}
        for key in ("uid", "project", "name", "standing", "key", "sealing-keys.json", "spec.json")
    ]
    return {"name": name, "secret": {"secretName": record_name(uid), "defaultMode": 0o440, "items": items}}
