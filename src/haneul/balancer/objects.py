"""The objects of one cluster that matter for balancing, kept up to date one by one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from haneul.balancer.decisions import View
from haneul.kernel.kube import ENDPOINT_SLICES, NODES, SERVICES, Manifest, Resource
from haneul.kernel.kube_objects import Place, listed, place_of

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

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: Collection[Place]) -> None:
        """Take a whole list for what there is, but not for objects ``heard`` of since it was asked for."""
        gone, there = listed(resource, self._objects, manifests, heard)
        for place in gone:
            self.forget(place)
        for manifest in there:
            self.see(resource, manifest)

    def object(self, place: Place) -> Manifest | None:
        """Return an object as it was last seen."""
        return self._objects.get(place)

    def view(self) -> View:
        """Return all of them."""
        kinds: dict[str, list[Manifest]] = {resource.kind: [] for resource in RESOURCES}
        for place in sorted(self._objects):
            kinds[place.kind].append(self._objects[place])
        return View(kinds[SERVICES.kind], kinds[ENDPOINT_SLICES.kind], kinds[NODES.kind])
