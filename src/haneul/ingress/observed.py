"""A cluster's objects as they were last seen, kept up to date object by object. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from haneul.ingress.endpoints import peers
from haneul.ingress.model import Backend, Peer
from haneul.kernel.kube import (
    ENDPOINT_SLICES,
    GATEWAY_CLASSES,
    GATEWAYS,
    HTTP_ROUTES,
    INGRESS_CLASSES,
    INGRESSES,
    NAMESPACES,
    REFERENCE_GRANTS,
    SECRETS,
    SERVICES,
    Manifest,
    Resource,
)
from haneul.kernel.kube_objects import Place, listed, place_of, service_of

#: The kinds of objects that matter.
RESOURCES: Final = (INGRESS_CLASSES, INGRESSES, SERVICES, ENDPOINT_SLICES, SECRETS)
#: Those of the Gateway API, which a cluster need not have; namespaces matter for their labels alone.
GATEWAY_RESOURCES: Final = (GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, REFERENCE_GRANTS, NAMESPACES)
#: Of a Secret, what an Ingress can use; others are not kept in memory.
SECRET_KEYS: Final = frozenset({"tls.crt", "tls.key", "ca.crt", "auth"})


class Observed:
    """One cluster's Ingress objects and HTTPRoutes, and what they refer to."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Place, Manifest]] = defaultdict(dict)
        self._slices: dict[Place, dict[Place, Manifest]] = defaultdict(dict)

    def see(self, resource: Resource, manifest: Manifest) -> None:
        """Take note of an object as it is now."""
        place = place_of(resource, manifest)
        self.forget(place)
        if resource == SECRETS:
            kept = {name: value for name, value in (manifest.get("data") or {}).items() if name in SECRET_KEYS}
            manifest = {"metadata": manifest["metadata"], "type": manifest.get("type", ""), "data": kept}
            if not kept:
                return
        self._objects[resource.kind][place] = manifest
        if resource == ENDPOINT_SLICES and (service := service_of(manifest)):
            self._slices[service][place] = manifest

    def forget(self, place: Place) -> None:
        """Take note that an object is gone."""
        before = self._objects[place.kind].pop(place, None)
        if before and place.kind == ENDPOINT_SLICES.kind and (service := service_of(before)):
            self._slices[service].pop(place, None)
            if not self._slices[service]:
                del self._slices[service]

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: Collection[Place]) -> None:
        """Take a whole list for what there is, but not for objects ``heard`` of since it was asked for."""
        gone, there = listed(resource, self._objects[resource.kind], manifests, heard)
        for place in gone:
            self.forget(place)
        for manifest in there:
            self.see(resource, manifest)

    def all(self, resource: Resource) -> list[Manifest]:
        """Return all objects of a kind."""
        return list(self._objects[resource.kind].values())

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """Return one object."""
        return self._objects[resource.kind].get(Place(resource.kind, namespace, name))

    def peers(self, backend: Backend) -> tuple[Peer, ...]:
        """Return where a backend's pods answer now."""
        service = Place(SERVICES.kind, backend.namespace, backend.service)
        return peers(backend, self._slices.get(service, {}).values())
