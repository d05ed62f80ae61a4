"""Where objects are in a cluster, and what a list of them says to whoever follows them one by one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from haneul.kernel.kube import SERVICES, Manifest, Resource

#: The label by which an EndpointSlice says whose endpoints it has.
SERVICE_LABEL: Final = "kubernetes.io/service-name"


class Place(NamedTuple):
    """Where an object is in its cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def place_of(resource: Resource, manifest: Manifest) -> Place:
    """Return where an object is."""
    metadata = manifest["metadata"]
    return Place(resource.kind, metadata.get("namespace", ""), metadata["name"])


def service_of(piece: Manifest) -> Place | None:
    """Return where the Service is whose endpoints an EndpointSlice has."""
    name = (piece["metadata"].get("labels") or {}).get(SERVICE_LABEL)
    return Place(SERVICES.kind, piece["metadata"]["namespace"], name) if name else None


def listed(
    resource: Resource, known: Iterable[Place], manifests: Iterable[Manifest], heard: Collection[Place]
) -> tuple[list[Place], list[Manifest]]:
    """Return what a whole list of one kind says: which of the known objects are gone, and which there are.

    It says nothing of objects ``heard`` of since it was asked for: what was heard is newer.
    """
    there = {place_of(resource, manifest): manifest for manifest in manifests}
    gone = [place for place in known if place.kind == resource.kind and place not in there and place not in heard]
    return gone, [manifest for place, manifest in there.items() if place not in heard]
