"""What a reader knows of a cluster: a Secret in the reader's own namespace, made and kept by the operator. Pure.

It holds exactly what its work takes: the cluster's domain, where its API is, and a client certificate that may what the
reader may. No reader reads another Secret of the platform. When the cluster is deleted, the Secret stays, without the
certificate, until all that was made for the cluster outside of it is withdrawn.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL
from haneul.dkos.readers import Reader
from haneul.kernel.kube import KubeAccess, Manifest

#: The annotation of a record in which its reader says why it does nothing more for the cluster.
TROUBLE: Final = "haneul.dev/trouble"


class Standing(StrEnum):
    """What is done for a cluster: it is followed, all stays as it is while it sleeps, or all is withdrawn."""

    FOLLOWED = "followed"
    ASLEEP = "asleep"
    DELETED = "deleted"


@dataclass(frozen=True)
class ClusterRecord:
    """A cluster as a reader knows it.

    ``domain`` has no dot at its end, and is empty where nobody publishes names. ``networks`` are the cluster's own
    ranges; ``nodes`` the addresses of its machines that run, sorted, ``address`` its own one of those that the reader
    has for clusters, and ``token_keys`` the public keys of its service accounts' tokens in PEM, for readers of such.
    ``most_addresses`` and ``most_listeners`` are what its whole project may have of the load balancers, for whoever
    gives these out.
    """

    uid: str
    project: str
    name: str
    domain: str
    standing: Standing
    access: KubeAccess | None = None
    networks: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    address: str = ""
    token_keys: bytes = b""
    most_addresses: int | None = None
    most_listeners: int | None = None

    @property
    def cluster(self) -> str:
        """Return the cluster as people name it, PROJECT/CLUSTER."""
        return f"{self.project}/{self.name}"

    @property
    def owner(self) -> str:
        """Return the beginning of the cluster's mark on what is made for it outside; its own id follows."""
        return f"{self.cluster}/{self.uid}"


def secret_of(record: ClusterRecord, reader: Reader) -> Manifest:
    """Return a record as a Secret for a reader."""
    data = {
        "uid": record.uid.encode(),
        "project": record.project.encode(),
        "name": record.name.encode(),
        "domain": record.domain.encode(),
        "standing": record.standing.encode(),
        "networks": ",".join(record.networks).encode(),
        "nodes": ",".join(record.nodes).encode(),
        "address": record.address.encode(),
    }
    if record.token_keys:
        data["tokens.pub"] = record.token_keys
    if record.most_addresses is not None and record.most_listeners is not None:
        data["most-addresses"] = str(record.most_addresses).encode()
        data["most-listeners"] = str(record.most_listeners).encode()
    if record.access is not None:
        data |= {
            "url": record.access.server.encode(),
            "ca.crt": record.access.authority,
            "client.crt": record.access.client_certificate,
            "client.key": record.access.client_key,
        }
    labels = {"app.kubernetes.io/managed-by": "haneul", CLUSTER_LABEL: record.uid, ROLE_LABEL: reader.role}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": reader.record_name(record.uid), "namespace": reader.name, "labels": labels},
        "type": "Opaque",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def record_of(secret: Manifest) -> ClusterRecord | None:
    """Read a Secret; None if it is no record."""
    data = {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
    try:
        return ClusterRecord(
            uid=data["uid"].decode(),
            project=data["project"].decode(),
            name=data["name"].decode(),
            domain=data["domain"].decode(),
            standing=Standing(data["standing"].decode()),
            access=_access(data) if "url" in data else None,
            networks=_several(data, "networks"),
            nodes=_several(data, "nodes"),
            address=data.get("address", b"").decode(),
            token_keys=data.get("tokens.pub", b""),
            most_addresses=_number(data, "most-addresses"),
            most_listeners=_number(data, "most-listeners"),
        )
    except (KeyError, ValueError):
        return None


def _several(data: Mapping[str, bytes], name: str) -> tuple[str, ...]:
    return tuple(filter(None, data.get(name, b"").decode().split(",")))


def _number(data: Mapping[str, bytes], name: str) -> int | None:
    return int(data[name]) if name in data else None


def _access(data: Mapping[str, bytes]) -> KubeAccess:
    return KubeAccess(data["url"].decode(), data["ca.crt"], data["client.crt"], data["client.key"])
