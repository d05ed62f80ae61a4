"""What the backup worker knows of a cluster: a Secret in its own namespace, made by the operator. Pure.

It holds exactly what backing up this cluster takes: where its etcd is, a client certificate for that etcd, and the key
that seals the backup, which is made once and never changes. The worker reads no other Secret of the platform. When the
cluster is deleted, the Secret stays, without the certificate, as long as its backup does. Beside it stands a ConfigMap
with the catalogue, which the worker writes and the platform's API reads.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL
from haneul.kernel.kube import Manifest

NAMESPACE: Final = "haneul-backup"
WORKER_NAME: Final = "haneul-backup"
_ROLE: Final = "backup"
RECORD_LABELS: Final = f"{ROLE_LABEL}={_ROLE}"
_CATALOGUE: Final = "catalogue.json"


class Standing(StrEnum):
    """What the worker does for a cluster: follows its etcd, waits until it wakes, or keeps what it has for a time."""

    FOLLOWED = "followed"
    ASLEEP = "asleep"
    DELETED = "deleted"


@dataclass(frozen=True)
class Access:
    """Where a cluster's etcd answers in JSON, whom to trust there, and the worker's certificate for it (PEM).

    Each of ``urls`` is a member with all the data; the next is asked when one does not answer.
    """

    urls: tuple[str, ...]
    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Record:
    """A cluster as the worker knows it. ``sealing_keys`` seal the Secrets in its etcd, by name and in base 64."""

    uid: str
    project: str
    name: str
    standing: Standing
    key: bytes = field(repr=False)
    #: The first seals now, the others did before.
    sealing_keys: Mapping[str, str] = field(repr=False, default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    access: Access | None = None
    deleted: datetime | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Return what is kept of the cluster beside its backup."""
        return {
            "uid": self.uid,
            "project": self.project,
            "name": self.name,
            "spec": dict(self.spec),
            "keys": dict(self.sealing_keys),
        }


def record_name(uid: str) -> str:
    """Return the name of a cluster's Secret and ConfigMap in the worker's namespace."""
    return f"backup-{uid}"


def secret_of(record: Record) -> Manifest:
    """Return a record as a Secret."""
    data = {
        "uid": record.uid.encode(),
        "project": record.project.encode(),
        "name": record.name.encode(),
        "standing": record.standing.encode(),
        "key": record.key,
        "sealing-keys.json": json.dumps(dict(record.sealing_keys)).encode(),
        "spec.json": json.dumps(dict(record.spec), sort_keys=True).encode(),
    }
    if record.access is not None:
        data |= {
            "urls": "\n".join(record.access.urls).encode(),
            "ca.crt": record.access.authority,
            "client.crt": record.access.certificate,
            "client.key": record.access.key,
        }
    if record.deleted is not None:
        data["deleted"] = record.deleted.isoformat().encode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(record.uid),
        "type": "Opaque",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def record_of(secret: Manifest) -> Record | None:
    """Read a Secret; None if it is no record."""
    return record_from({name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()})


def record_from(data: Mapping[str, bytes]) -> Record | None:
    """Read a Secret's files; None if they are no record's."""
    try:
        access = (
            Access(tuple(data["urls"].decode().split()), data["ca.crt"], data["client.crt"], data["client.key"])
            if "urls" in data
            else None
        )
        return Record(
            uid=data["uid"].decode(),
            project=data["project"].decode(),
            name=data["name"].decode(),
            standing=Standing(data["standing"].decode()),
            key=data["key"],
            sealing_keys=json.loads(data["sealing-keys.json"]),
            spec=json.loads(data["spec.json"]),
            access=access,
            deleted=datetime.fromisoformat(data["deleted"].decode()) if "deleted" in data else None,
        )
    except (KeyError, ValueError):
        return None


def config_map_of(catalogue: Catalogue) -> Manifest:
    """Return a catalogue as a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(catalogue.uid),
        "data": {_CATALOGUE: catalogue.model_dump_json(by_alias=True)},
    }


def catalogue_from(config_map: Manifest) -> Catalogue | None:
    """Read a ConfigMap; None if it is no catalogue."""
    try:
        return Catalogue.model_validate_json((config_map.get("data") or {})[_CATALOGUE])
    except (KeyError, ValueError):
        return None


def _metadata(uid: str) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "haneul", CLUSTER_LABEL: uid, ROLE_LABEL: _ROLE}
    return {"name": record_name(uid), "namespace": NAMESPACE, "labels": labels}
