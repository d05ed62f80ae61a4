"""All records that one cluster's objects ask for, kept up to date object by object. Pure.

Names whose records changed are noted with the moment at which that was seen, for whoever publishes them next. Of an
object only that is kept which is looked at again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from haneul.dns.model import ClusterDomain, Key, RecordSet
from haneul.dns.records import ingress_records, merged, pod_records, service_records, version_records
from haneul.kernel.kube import ENDPOINT_SLICES, INGRESSES, PODS, SERVICES, Manifest, Resource
from haneul.kernel.kube_objects import Place, listed, place_of, service_of

#: What is looked at again of each kind of object, besides what tells it from others.
_KEPT: Final[Mapping[str, tuple[str, ...]]] = {
    SERVICES.kind: ("spec", "status"),
    ENDPOINT_SLICES.kind: ("endpoints", "ports"),
    INGRESSES.kind: (),
    PODS.kind: (),
}
_KEPT_METADATA: Final = ("name", "namespace", "uid", "labels")


class Wanted:
    """What a cluster wants to be published."""

    def __init__(self, domain: ClusterDomain, *, pods: bool = True) -> None:
        self._domain = domain
        self._pods = pods
        self._objects: dict[Place, Manifest] = {}
        self._slices: dict[Place, set[Place]] = defaultdict(set)
        self._records: dict[Place, list[RecordSet]] = {}
        self._askers: dict[str, set[Place]] = defaultdict(set)
        self._changed: dict[str, float] = {}
        self._ask(Place("", "", "dns-version"), version_records(domain), 0.0)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Return the kinds of objects that matter."""
        return (SERVICES, ENDPOINT_SLICES, INGRESSES, *((PODS,) if self._pods else ()))

    def see(self, resource: Resource, manifest: Manifest, at: float) -> None:
        """Take note of an object as it is now; ``at`` is the moment, in seconds of a monotonic clock."""
        place = place_of(resource, manifest)
        before, self._objects[place] = self._objects.get(place), _kept(place.kind, manifest)
        self._renew(place, before, manifest, at)

    def forget(self, place: Place, at: float) -> None:
        """Take note that an object is gone."""
        if before := self._objects.pop(place, None):
            self._renew(place, before, None, at)

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: Collection[Place], at: float) -> None:
        """Take a whole list for what there is, but not for objects ``heard`` of since it was asked for."""
        gone, there = listed(resource, self._objects, manifests, heard)
        for place in gone:
            self.forget(place, at)
        for manifest in there:
            self.see(resource, manifest, at)

    def changed(self) -> dict[str, float]:
        """Return the names whose records changed since this was asked last, and when that was first seen."""
        taken, self._changed = self._changed, {}
        return taken

    def records(self, names: Iterable[str] | None = None) -> dict[Key, RecordSet]:
        """Return the wanted record sets at some names, or at all."""
        if names is None:
            return merged(records for asked in self._records.values() for records in asked)
        wanted = set(names)
        askers = {place for name in wanted for place in self._askers.get(name, ())}
        return merged(records for place in askers for records in self._records[place] if records.name in wanted)

    def services(self, names: Iterable[str] | None = None) -> list[Place]:
        """Return the Services that ask for records at some of these names, or all Services."""
        if names is None:
            return [place for place in self._objects if place.kind == SERVICES.kind]
        found = {place for name in names for place in self._askers.get(name, ())}
        return sorted(place for place in found if place.kind == SERVICES.kind)

    def keys_of(self, place: Place) -> list[Key]:
        """Return which record sets an object asks for."""
        return [records.key for records in self._records.get(place, [])]

    def object(self, place: Place) -> Manifest | None:
        """Return what is kept of an object as it was last seen; of a Service that is its ``spec`` and ``status``."""
        return self._objects.get(place)

    def _renew(self, place: Place, before: Manifest | None, after: Manifest | None, at: float) -> None:
        match place.kind:
            case SERVICES.kind:
                self._renew_service(place, at)
            case ENDPOINT_SLICES.kind:
                services = {found for manifest in (before, after) if manifest and (found := service_of(manifest))}
                for service in services:
                    self._slices[service].discard(place)
                if after and (now := service_of(after)):
                    self._slices[now].add(place)
                for service in services:
                    self._renew_service(service, at)
            case INGRESSES.kind:
                self._ask(place, ingress_records(after, self._domain) if after else [], at)
            case _:
                self._ask(place, pod_records(after, self._domain) if after else [], at)

    def _renew_service(self, place: Place, at: float) -> None:
        service = self._objects.get(place)
        slices = [self._objects[piece] for piece in sorted(self._slices[place])]
        self._ask(place, service_records(service, slices, self._domain) if service else [], at)

    def _ask(self, place: Place, records: list[RecordSet], at: float) -> None:
        """Let an object ask for these records and no others."""
        before = set(self._records.pop(place, []))
        for gone in before:
            self._askers[gone.name].discard(place)
        if records:
            self._records[place] = records
        for wanted in records:
            self._askers[wanted.name].add(place)
        for differing in before ^ set(records):
            self._changed.setdefault(differing.name, at)
            if not self._askers.get(differing.name):
                self._askers.pop(differing.name, None)


def _kept(kind: str, manifest: Manifest) -> Manifest:
    metadata = {key: manifest["metadata"][key] for key in _KEPT_METADATA if key in manifest["metadata"]}
    return {"metadata": metadata, **{key: manifest[key] for key in _KEPT[kind] if key in manifest}}
