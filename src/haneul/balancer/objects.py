"""The objects of one cluster that matter for balancing, kept up to date one by one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from haneul.balancer.decisions import Place, View
from haneul.kernel.kube import ENDPOINT_SLICES, NODES, SERVICES, Manifest, Resource

RESOURCES: Final = (SERVICES, ENDPOINT_SLICES, NODES)


class Objects:
    """What there is in a cluster, as far as was heard."""

    def __init__(self) -> None:
        self._objects: dict[Place, Manifest] = {}

    def see(self, resource: Resource, manifest: Manifest) -> None:
        """Take note of an object as it is now."""
        self._objects[place_of(resource, manifest)] = manifest

    def forget(self, place: Place) -> None:
        """Take note that an object is gone."""
        self._objects.pop(place, None)

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: set[Place]) -> None:
        """Take a whole list for what there is, but not for objects ``heard`` of since it was asked for."""
        listed = {place_of(resource, manifest): manifest for manifest in manifests}
        for place in [place for place in self._objects if place.kind == resource.kind and place not in listed]:
            if place not in heard:
                self.forget(place)
        self._objects |= {place: manifest for place, manifest in listed.items() if place not in heard}

    def object(self, place: Place) -> Manifest | None:
        """Return an object as it was last seen."""
        return self._objects.get(place)

    def view(self) -> View:
        """Return all of them."""
        kinds: dict[str, list[Manifest]] = {resource.kind: [] for resource in RESOURCES}
        for place in sorted(self._objects):
            kinds[place.kind].append(self._objects[place])
        return View(kinds[SERVICES.kind], kinds[ENDPOINT_SLICES.kind], kinds[NODES.kind])


def place_of(resource: Resource, manifest: Mapping[str, Any]) -> Place:
    """Return where an object is."""
    metadata = manifest["metadata"]
    return Place(resource.kind, metadata.get("namespace", ""), metadata["name"])
