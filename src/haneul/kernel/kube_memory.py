"""The Kubernetes port kept in memory: for dry runs, simulations and tests of controllers.

Neighbours: :mod:`haneul.kernel.kube` has the port, :mod:`haneul.kernel.kube_merge` how writes are merged; both this
and :mod:`haneul.kernel.kube_http` pass the same behaviour suite. Kept are versions, generations, finalizers, watches,
namespaces that take their contents with them, and the addresses that an API server gives to services. There are no
controllers: pods of a Deployment appear only if somebody creates them. What nothing here relies on is left out:
admission, schemas, owner references.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.kube import (
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    SERVICES,
    KubeApiError,
    Manifest,
    Resource,
    WatchEvent,
)
from haneul.kernel.kube_merge import has_fields, matches, merge_applied, merge_patch

#: Namespaces that every API server makes by itself.
_FIRST_NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
_SERVICE_ADDRESSES: Final = ipaddress.IPv4Network("198.51.100.0/24")  # RFC 5737: documentation only
_FIRST_NODE_PORT: Final = 30000
#: Set by the server; what a client says of them is not taken.
_SERVER_FIELDS: Final = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion")


class _Key(NamedTuple):
    """Where an object is kept; sorted as the API lists."""

    namespace: str
    name: str
    resource: Resource


@dataclass
class _Watcher:
    """Whom to tell about which objects."""

    resource: Resource
    namespace: str
    selector: str
    queue: asyncio.Queue[WatchEvent] = field(default_factory=asyncio.Queue)

    def sees(self, key: _Key, manifest: Manifest | None) -> bool:
        """Say whether an object in this form is among the watched."""
        return (
            manifest is not None
            and key.resource == self.resource
            and self.namespace in ("", key.namespace)
            and matches(manifest["metadata"].get("labels") or {}, self.selector)
        )


class MemoryKubeClient:
    """One API server and the only client that it needs; tasks may share it."""

    def __init__(self, *, clock: Clock | None = None, services: ipaddress.IPv4Network = _SERVICE_ADDRESSES) -> None:
        """``services`` is where services get their addresses from."""
        self._clock = clock or SystemClock()
        self._objects: dict[_Key, Manifest] = {}
        #: What was applied last to each object, by subresource: each has fields of its own.
        self._applied: dict[_Key, dict[str, Manifest]] = {}
        self._watchers: list[_Watcher] = []
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)
        # A list's iterator, unlike a generator, can be copied, and so can all that is kept here.
        self._addresses = iter(list(services.hosts()))
        self._node_ports = itertools.count(_FIRST_NODE_PORT)
        for name in _FIRST_NAMESPACES:
            self._write(_Key("", name, NAMESPACES), None, {"metadata": {"name": name}})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open; the objects stay."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        """Return the object, or None."""
        await asyncio.sleep(0)
        live = self._objects.get(_key(resource, namespace, name))
        return None if live is None else _copied(live)

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Return all objects that match, ordered by namespace and name as the API does."""
        await asyncio.sleep(0)
        found = self._seen_by(_watcher(resource, namespace, labels))
        return [_copied(manifest) for manifest in found if has_fields(manifest, fields)]

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Merge ``manifest`` in as its one field manager."""
        await asyncio.sleep(0)
        key = _key_of(resource, manifest)
        live = self._objects.get(key)
        if live is None and subresource:
            raise _not_found(resource, key.name)
        part = _part(manifest, subresource)
        before = self._applied.get(key, {}).get(subresource)
        written = self._write(key, live, merge_applied(live, part, before))
        self._applied.setdefault(key, {})[subresource] = _copied(part)
        return _copied(written)

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Keep a new object; of subresources, there is the eviction of pods."""
        await asyncio.sleep(0)
        key = _key_of(resource, manifest)
        if subresource:
            return await self._evict(key, manifest)
        if key in self._objects:
            raise KubeApiError(f'{resource.plural} "{key.name}" already exists', status=409, reason="AlreadyExists")
        return _copied(self._write(key, None, _part(manifest, "")))

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        """Merge ``patch`` in."""
        await asyncio.sleep(0)
        key = _key(resource, namespace, name)
        live = self._objects.get(key)
        if live is None:
            raise _not_found(resource, name)
        return _copied(self._write(key, live, merge_patch(live, _part(patch, subresource))))

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None) -> bool:
        """Take the object away; one with finalizers is only marked until they are gone."""
        await asyncio.sleep(0)
        key = _key(resource, namespace, name)
        live = self._objects.get(key)
        if live is None:
            return False
        if not live["metadata"].get("finalizers"):
            self._remove(key, live)
        elif "deletionTimestamp" not in live["metadata"]:
            marked = _copied(live)
            marked["metadata"]["deletionTimestamp"] = self._now()
            self._store(key, live, marked)
        return True

    async def watch(self, resource: Resource, namespace: str = "", *, labels: str = "") -> AsyncIterator[WatchEvent]:
        """Yield what is and what changes, without end."""
        watcher = _watcher(resource, namespace, labels)
        for manifest in self._seen_by(watcher):
            watcher.queue.put_nowait(WatchEvent("ADDED", _copied(manifest)))
        self._watchers.append(watcher)
        try:
            while True:
                yield await watcher.queue.get()
        finally:
            self._watchers.remove(watcher)

    async def raw_get(self, path: str) -> str:
        """Answer health checks."""
        await asyncio.sleep(0)
        if path not in ("/livez", "/readyz", "/healthz"):
            raise KubeApiError("404 page not found", status=404, reason="Not Found")
        return "ok"

    async def _evict(self, key: _Key, eviction: Manifest) -> Manifest:
        """Delete a pod unless a disruption budget holds it; whoever counts disruptions is not here, so tests do."""
        pod = self._objects.get(key)
        if pod is None:
            raise _not_found(key.resource, key.name)
        asked = eviction.get("deleteOptions", {}).get("preconditions", {}).get("uid")
        if asked not in (None, pod["metadata"]["uid"]):
            raise KubeApiError(f'pod "{key.name}" is another one by now', status=409, reason="Conflict")
        budgets = [
            manifest
            for place, manifest in self._objects.items()
            if place.resource == POD_DISRUPTION_BUDGETS
            and place.namespace == key.namespace
            and manifest["spec"]["selector"]["matchLabels"].items() <= (pod["metadata"].get("labels") or {}).items()
        ]
        if any(budget.get("status", {}).get("disruptionsAllowed", 0) < 1 for budget in budgets):
            detail = "Cannot evict pod as it would violate the pod's disruption budget."
            raise KubeApiError(detail, status=429, reason="TooManyRequests")
        if eviction.get("deleteOptions", {}).get("dryRun") == ["All"]:
            return {"kind": "Status", "status": "Success"}
        for budget in budgets:
            budget["status"]["disruptionsAllowed"] -= 1
        await self.delete(key.resource, key.name, key.namespace)
        return {"kind": "Status", "status": "Success"}

    def _seen_by(self, watcher: _Watcher) -> Iterator[Manifest]:
        keys = [key for key, manifest in self._objects.items() if watcher.sees(key, manifest)]
        for key in sorted(keys, key=lambda key: (key.namespace, key.name)):
            yield self._objects[key]

    def _write(self, key: _Key, live: Manifest | None, wanted: Manifest) -> Manifest:
        """Keep ``wanted`` in place of ``live``, unless nothing differs; return what is kept now."""
        if key.resource.namespaced and _key(NAMESPACES, "", key.namespace) not in self._objects:
            raise _not_found(NAMESPACES, key.namespace)
        metadata = dict(wanted["metadata"])
        asked_version = metadata.get("resourceVersion")
        if live is not None and asked_version not in (None, live["metadata"]["resourceVersion"]):
            raise KubeApiError(f'{key.resource.plural} "{key.name}" was changed', status=409, reason="Conflict")
        known = live["metadata"] if live else {"uid": self._uid(), "creationTimestamp": self._now(), "generation": 1}
        metadata = {name: value for name, value in metadata.items() if name not in _SERVER_FIELDS}
        metadata |= {name: known[name] for name in _SERVER_FIELDS if name in known}
        whole = {"apiVersion": key.resource.api_version, "kind": key.resource.kind, **wanted, "metadata": metadata}
        whole = _copied(whole)
        if key.resource == SERVICES:
            self._give_addresses(whole)
        if live is not None:
            if whole == live:
                return live
            if _desired(whole) != _desired(live):
                whole["metadata"]["generation"] += 1
            if "deletionTimestamp" in whole["metadata"] and not whole["metadata"].get("finalizers"):
                self._remove(key, live)
                return whole
        return self._store(key, live, whole)

    def _store(self, key: _Key, live: Manifest | None, whole: Manifest) -> Manifest:
        whole["metadata"]["resourceVersion"] = str(next(self._versions))
        self._objects[key] = whole
        self._tell(key, live, whole)
        return whole

    def _remove(self, key: _Key, live: Manifest) -> None:
        if key.resource == NAMESPACES:
            for inside in [inside for inside in self._objects if inside.namespace == key.name]:
                self._remove(inside, self._objects[inside])
        del self._objects[key]
        self._applied.pop(key, None)
        last = _copied(live)
        last["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(key, last, None)

    def _tell(self, key: _Key, before: Manifest | None, after: Manifest | None) -> None:
        """Queue the change for those who watch; one who sees only one side of it sees the object come or go."""
        for watcher in self._watchers:
            saw, sees = watcher.sees(key, before), watcher.sees(key, after)
            if saw or sees:
                kind = "MODIFIED" if saw and sees else ("ADDED" if sees else "DELETED")
                watcher.queue.put_nowait(WatchEvent(kind, _copied(after or before or {})))

    def _give_addresses(self, service: Manifest) -> None:
        spec = service.setdefault("spec", {})
        if "clusterIP" not in spec:
            spec["clusterIP"] = str(next(self._addresses))
        if spec.get("type") in ("NodePort", "LoadBalancer"):
            for port in spec.get("ports", []):
                if "nodePort" not in port:
                    port["nodePort"] = next(self._node_ports)

    def _uid(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._uids):012x}"

    def _now(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _copied(manifest: Manifest) -> Manifest:
    """Return the same object, of which nobody else has a part.

    :func:`copy.deepcopy`, which does not know that this is a document, would take half of the time of a simulation.
    """
    return {key: _copied_value(value) for key, value in manifest.items()}


def _copied_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copied_value(inner) for inner in value]
    return value


def _watcher(resource: Resource, namespace: str, selector: str) -> _Watcher:
    try:
        matches({}, selector)
    except ValueError as error:
        raise KubeApiError(str(error), status=400, reason="BadRequest") from error
    return _Watcher(resource, namespace, selector)


def _key(resource: Resource, namespace: str, name: str) -> _Key:
    return _Key(namespace if resource.namespaced else "", name, resource)


def _key_of(resource: Resource, manifest: Manifest) -> _Key:
    return _key(resource, manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])


def _part(manifest: Manifest, subresource: str) -> Manifest:
    """Return what a write may change: the status through a subresource, all but the status otherwise."""
    if not subresource:
        return {"metadata": {}, **{key: value for key, value in manifest.items() if key != "status"}}
    version = manifest.get("metadata", {}).get("resourceVersion")
    return {"metadata": {"resourceVersion": version} if version else {}, "status": manifest.get("status", {})}


def _desired(manifest: Manifest) -> Manifest:
    """Return what counts as a new generation when it changes."""
    return {key: value for key, value in manifest.items() if key not in ("metadata", "status")}


def _not_found(resource: Resource, name: str) -> KubeApiError:
    return KubeApiError(f'{resource.plural} "{name}" not found', status=404, reason="NotFound")
