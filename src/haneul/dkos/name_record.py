"""What names' controllers know of a cluster: a Secret in their own namespace, made and kept by the operator. Pure.

It holds exactly what publishing this cluster's names takes: the domain, where its API is, and a client certificate that
may read what has names. The controllers read no other Secret of the platform. When the cluster is deleted, the Secret
stays, without the certificate, until its records are withdrawn.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL
from haneul.kernel.kube import KubeAccess, Manifest

NAMESPACE: Final = "haneul-dns"
WORKER_NAME: Final = "haneul-dns"
_ROLE: Final = "names"
RECORD_LABELS: Final = f"{ROLE_LABEL}={_ROLE}"


class Standing(StrEnum):
    """What is done for a cluster: its names are followed, stay as they are while it sleeps, or are withdrawn."""

    FOLLOWED = "followed"
    ASLEEP = "asleep"
    DELETED = "deleted"


@dataclass(frozen=True)
class NameRecord:
    """A cluster as names' controllers know it; ``domain`` has no dot at its end, ``networks`` are its own ranges."""

    uid: str
    project: str
    name: str
    domain: str
    standing: Standing
    access: KubeAccess | None = None
    networks: tuple[str, ...] = ()


def record_name(uid: str) -> str:
    """Return the name of a cluster's Secret in the controllers' namespace."""
    return f"names-{uid}"


def secret_of(record: NameRecord) -> Manifest:
    """Return a record as a Secret."""
    data = {
        "uid": record.uid.encode(),
        "project": record.project.encode(),
        "name": record.name.encode(),
        "domain": record.domain.encode(),
        "standing": record.standing.encode(),
        "networks": ",".join(record.networks).encode(),
    }
    if record.access is not None:
        data |= {
            "url": record.access.server.encode(),
            "ca.crt": record.access.authority,
            "client.crt": record.access.client_certificate,
            "client.key": record.access.client_key,
        }
    labels = {"app.kubernetes.io/managed-by": "haneul", CLUSTER_LABEL: record.uid, ROLE_LABEL: _ROLE}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": record_name(record.uid), "namespace": NAMESPACE, "labels": labels},
        "type": "Opaque",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def record_of(secret: Manifest) -> NameRecord | None:
    """Read a Secret; None if it is no record."""
    data = {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
    try:
        return NameRecord(
            uid=data["uid"].decode(),
            project=data["project"].decode(),
            name=data["name"].decode(),
            domain=data["domain"].decode(),
            standing=Standing(data["standing"].decode()),
            access=_access(data) if "url" in data else None,
            networks=tuple(filter(None, data.get("networks", b"").decode().split(","))),
        )
    except (KeyError, ValueError):
        return None


def _access(data: Mapping[str, bytes]) -> KubeAccess:
    return KubeAccess(data["url"].decode(), data["ca.crt"], data["client.crt"], data["client.key"])
