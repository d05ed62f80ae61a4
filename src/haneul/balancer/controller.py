"""Keeps one cluster's Services of type LoadBalancer balanced, outside of it, and tells them.

What it rests on:

- Nothing is changed before each kind of object was listed whole, and nothing is taken for gone because the API does
  not answer: only an object that the API says is deleted, or leaves out of a whole list, takes something along.
- What was heard is acted on only after the API was seen to be the same cluster's still.
- Each turn looks at what the balancer has and writes what differs, so that whatever went wrong before is mended by it.
- It keeps no state of its own: a process that is killed at any moment begins anew with the cluster's objects and what
  the balancer has.
- A Service has our finalizer before the balancer has anything of it, and until it has nothing of it any more.
- One controller is for one cluster, with its own connections and back-off, so that no other cluster waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from haneul.balancer.changes import plan
from haneul.balancer.decisions import (
    NOT_ACKNOWLEDGED,
    Decision,
    Place,
    Site,
    Verdict,
    decide,
    is_ours,
    refused,
    without,
)
from haneul.balancer.model import Frontends, FrontendsChangedError, ListenerRefusedError
from haneul.balancer.objects import RESOURCES, Objects, place_of
from haneul.balancer.ports import LoadBalancer
from haneul.balancer.verdicts import CONDITION, FINALIZER, event_of, nothing_served, status_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, UnavailableError
from haneul.kernel.kube import EVENTS, NAMESPACES, SERVICES, KubeApiError, KubeClient, Manifest, Resource
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)
#: Its id is the cluster's: every cluster has this namespace from its first moment until its end.
_IDENTITY: Final = "kube-system"
#: Somebody else changed the object meanwhile, or it is gone: we hear of that, and decide anew.
_OVERTAKEN: Final = frozenset({404, 409})
_TRIES: Final = 5


@dataclass(frozen=True)
class Pace:
    """Seconds: how long changes are gathered, between full lists and between looks after what is due, of back-off."""

    gather: float = 0.02
    resync: float = 300.0
    tend: float = 1.0
    first_backoff: float = 0.5
    last_backoff: float = 30.0


class ClusterController:
    """One cluster's Services on one balancer."""

    def __init__(
        self,
        client: KubeClient,
        balancer: LoadBalancer,
        cluster: str,
        site: Site,
        *,
        clock: Clock,
        pace: Pace | None = None,
    ) -> None:
        self._client = client
        self._balancer = balancer
        self._cluster = cluster
        self._site = site
        self._clock = clock
        self._pace = pace or Pace()
        self._objects = Objects()
        self._owner = ""
        self._heard: set[Place] = set()
        self._wake = asyncio.Event()
        self._listed = asyncio.Event()
        #: Whether something was heard since the cluster's identity was last looked at.
        self._doubted = False
        #: What Services are to be told; None is that they are not served any more.
        self._news: dict[Place, Verdict | None] = {}
        self._told = asyncio.Event()

    @property
    def owner(self) -> str:
        """Return whose mark the frontends bear, once the cluster was seen."""
        return self._owner

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource in RESOURCES:
                group.create_task(self._watch(resource))
            group.create_task(self._again(self._list, self._pace.resync))
            await self._listed.wait()
            group.create_task(self._balance())
            group.create_task(self._again(self._tell, 0.0))
            group.create_task(self._again(self._balancer.tend, self._pace.tend))

    async def _watch(self, resource: Resource) -> None:
        async for event in self._client.watch(resource):
            place = place_of(resource, event.object)
            self._heard.add(place)
            if event.type == "DELETED":
                self._objects.forget(place)
            else:
                self._objects.see(resource, event.object)
            self._doubted = True
            self._wake.set()

    async def _list(self) -> None:
        """List everything, and take it for what there is; whatever fails here changes nothing."""
        await self._identify()
        self._heard = set()
        listed = [(resource, await self._client.list(resource)) for resource in RESOURCES]
        for resource, manifests in listed:
            self._objects.replace(resource, manifests, self._heard)
        self._wake.set()
        self._listed.set()

    async def _identify(self) -> None:
        """Find out which cluster this is, and that it is still the same one."""
        found = await self._client.get(NAMESPACES, _IDENTITY)
        if found is None:
            raise UnavailableError(f"the cluster has no namespace {_IDENTITY} yet")
        owner = f"{self._cluster}/{found['metadata']['uid']}"
        if self._owner and owner != self._owner:
            raise ConflictError(
                f"the API of {self._cluster} is another cluster's now ({owner}, not {self._owner})",
                hint="what is balanced stays as it was; end this process and start another for the new cluster",
            )
        self._owner = owner

    async def _again(self, work: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
        """Do something again and again, with a pause after it went well and a growing one after errors."""
        backoff = self._pace.first_backoff
        while True:
            try:
                await in_own_task(work())
            except HaneulError as error:
                _log.warning("held up; what is balanced stays", cluster=self._cluster, detail=error.detail)
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._pace.last_backoff)
            else:
                backoff = self._pace.first_backoff
                await self._clock.sleep(pause)

    async def _balance(self) -> None:
        backoff = self._pace.first_backoff
        while True:
            await self._wake.wait()
            await self._clock.sleep(self._pace.gather)
            self._wake.clear()
            doubted, self._doubted = self._doubted, False
            try:
                if doubted:
                    # A watch that reconnects to another cluster tells of all objects of the one before as deleted.
                    await in_own_task(self._identify())
                await in_own_task(self._turn())
            except HaneulError as error:
                _log.warning("not balanced; tried again", cluster=self._cluster, seconds=backoff, detail=error.detail)
                self._hold_up(error)
                self._doubted = self._doubted or doubted
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._pace.last_backoff)
                self._wake.set()
            else:
                backoff = self._pace.first_backoff

    async def _turn(self) -> None:
        """Bring the balancer to what the cluster's objects ask for, and note what Services are to be told."""
        for attempt in range(_TRIES):
            present = await self._balancer.read()
            decision = decide(self._objects.view(), present, self._owner, self._site)
            decision = await self._marked(decision, present)
            try:
                decision = await self._applied(decision, present)
            except FrontendsChangedError:
                # Another cluster's controller was quicker; what it has now is decided on.
                if attempt == _TRIES - 1:
                    raise
            else:
                self._note(decision)
                return

    async def _marked(self, decision: Decision, present: Frontends) -> Decision:
        """Put our finalizer on what is to be served; leave out, for now, what it cannot be put on and is not served."""
        served = {there.frontend.service for there in present.values() if there.owner == self._owner}
        asked = {frontend.service for frontend in decision.frontends.values()}
        left_out = []
        for place in decision.verdicts:
            service = self._objects.object(place)
            if service is None or str(place) not in asked or FINALIZER in _finalizers(service):
                continue
            try:
                written = await self._client.patch(
                    SERVICES, place.name, _with_finalizers(service, [*_finalizers(service), FINALIZER]), place.namespace
                )
            except KubeApiError as error:
                if error.status not in _OVERTAKEN:
                    _log.warning("finalizer refused", cluster=self._cluster, service=str(place), detail=error.detail)
                if str(place) not in served:
                    left_out.append(place)
            else:
                self._objects.see(SERVICES, written)
        return without(decision, left_out)

    async def _applied(self, decision: Decision, present: Frontends) -> Decision:
        """Apply what differs; what the balancer cannot listen for is left out, and everything else is done."""
        while changes := plan(decision.frontends, present, self._owner):
            try:
                await self._balancer.apply(self._owner, changes)
            except ListenerRefusedError as error:
                if error.listener not in decision.frontends:
                    raise
                _log.warning("refused", cluster=self._cluster, listener=str(error.listener), detail=error.detail)
                decision = refused(decision, error.listener, f"{error.detail}; {error.hint}".removesuffix("; "))
            else:
                _log.info("balanced", cluster=self._cluster, balancer=self._balancer.name, changes=len(changes))
                break
        return decision

    def _note(self, decision: Decision) -> None:
        for service in self._objects.view().services:
            place = place_of(SERVICES, service)
            if place in decision.verdicts:
                self._news[place] = decision.verdicts[place]
            elif not is_ours(service, self._site) and _was_ours(service) and not self._is_others(service):
                self._news[place] = None
        self._told.set()

    def _is_others(self, service: Manifest) -> bool:
        """Say whether a Service is for the balancer of another class, whose marks it bears then, not ours."""
        spec = service["spec"]
        named = spec.get("loadBalancerClass") or ""
        return spec.get("type") == "LoadBalancer" and bool(named != self._site.load_balancer_class)

    def _hold_up(self, error: HaneulError) -> None:
        """Tell Services that have no address yet why; what the others are told stays, as they are served still."""
        for service in self._objects.view().services:
            status = (service.get("status") or {}).get("loadBalancer") or {}
            if is_ours(service, self._site) and not status.get("ingress"):
                detail = f"it is tried again: {error.detail}"
                self._news[place_of(SERVICES, service)] = Verdict(False, NOT_ACKNOWLEDGED, detail)
        self._told.set()

    async def _tell(self) -> None:
        """Write the news that wait; what cannot be written now stays."""
        await self._told.wait()
        self._told.clear()
        for place, verdict in list(self._news.items()):
            try:
                await self._write(place, verdict)
            except UnavailableError:
                self._told.set()
                raise
            except KubeApiError as error:
                if error.status not in _OVERTAKEN:
                    _log.warning("news refused", cluster=self._cluster, service=str(place), detail=error.detail)
            if self._news.get(place) is verdict:
                del self._news[place]

    async def _write(self, place: Place, verdict: Verdict | None) -> None:
        service = self._objects.object(place)
        if service is None:
            return
        if verdict is None:
            await self._release(place, service)
            return
        now = self._clock.now()
        if event := event_of(verdict, service, now):
            await self._client.create(EVENTS, event)
        if status := status_of(verdict, service, now):
            await self._write_status(place, service, status)

    async def _release(self, place: Place, service: Manifest) -> None:
        """Take away what we wrote; our finalizer last."""
        if (status := nothing_served(service)) and not service["metadata"].get("deletionTimestamp"):
            service = await self._write_status(place, service, status)
        if FINALIZER in _finalizers(service):
            others = [name for name in _finalizers(service) if name != FINALIZER]
            await self._client.patch(SERVICES, place.name, _with_finalizers(service, others), place.namespace)

    async def _write_status(self, place: Place, service: Manifest, status: Manifest) -> Manifest:
        # With the version that was decided on: conditions are a list, in which others' would be lost.
        patch = {"metadata": {"resourceVersion": service["metadata"]["resourceVersion"]}, "status": status}
        return await self._client.patch(SERVICES, place.name, patch, place.namespace, subresource="status")


def _finalizers(service: Manifest) -> list[str]:
    return list(service["metadata"].get("finalizers") or [])


def _with_finalizers(service: Manifest, finalizers: Iterable[str]) -> Manifest:
    """Return the patch that gives the Service, if it is as it was seen, these finalizers."""
    version = service["metadata"]["resourceVersion"]
    return {"metadata": {"resourceVersion": version, "finalizers": list(finalizers) or None}}


def _was_ours(service: Manifest) -> bool:
    conditions = (service.get("status") or {}).get("conditions") or []
    return FINALIZER in _finalizers(service) or any(entry["type"] == CONDITION for entry in conditions)
