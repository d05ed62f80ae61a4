"""Keeps one cluster's Services of type LoadBalancer balanced, outside of it, and tells them.

What it rests on:

- The cluster is followed as everywhere (:mod:`haneul.kernel.kube_following`): nothing is changed before everything was
  listed, and nothing goes because the API is away.
- Each turn looks at what the balancer has and writes what differs, so that whatever went wrong before is mended by it.
- It keeps no state of its own: a process that is killed at any moment begins anew with the cluster's objects and what
  the balancer has.
- A Service has our finalizer before the balancer has anything of it, and until it has nothing of it any more.
- Where machines share the balancer's addresses, each has a controller for the same cluster. The one of the machine that
  is active tells Services; the others do as these were told, so that they serve the same when they are.
- One controller is for one cluster, with its own connections and back-off, so that no other cluster waits for it.
- What a project may have is counted over all its clusters: of their controllers one at a time changes the balancer, and
  none on what another one has changed since it looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from haneul.balancer.allocation import NONE_LEFT, TAKEN
from haneul.balancer.changes import plan
from haneul.balancer.decisions import (
    NOT_ACKNOWLEDGED,
    Decision,
    Site,
    Verdict,
    decide,
    is_ours,
    refused,
    without,
)
from haneul.balancer.model import Frontends, FrontendsChangedError, ListenerRefusedError, Part
from haneul.balancer.objects import RESOURCES, Objects
from haneul.balancer.ports import LoadBalancer
from haneul.balancer.room import QUOTA, use_of_others
from haneul.balancer.verdicts import CONDITION, FINALIZER, event_of, nothing_served, status_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import EVENTS, SERVICES, KubeApiError, KubeClient, Manifest
from haneul.kernel.kube_following import Following, News
from haneul.kernel.kube_objects import Place, place_of

_log = structlog.get_logger(__name__)
#: Somebody else changed the object meanwhile, or it is gone: we hear of that, and decide anew.
_OVERTAKEN: Final = frozenset({404, 409})
_TRIES: Final = 5
#: What a Service is told that gets something when others give it back.
_WAITING: Final = frozenset({QUOTA, NONE_LEFT, TAKEN})


@dataclass(frozen=True)
class Pace:
    """Seconds: how long changes are gathered, between full lists and between looks after what is due, of back-off."""

    gather: float = 0.02
    resync: float = 300.0
    tend: float = 1.0
    first_backoff: float = 0.5
    last_backoff: float = 30.0


@dataclass(frozen=True)
class Neighbours:
    """The other controllers of a project's clusters on the same balancer.

    ``turn`` is whoever's that changes the balancer; ``changed`` is called after listeners came or went.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    changed: Callable[[], None] = lambda: None


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
        part: Callable[[], Part] = lambda: Part.ALONE,
        neighbours: Neighbours | None = None,
    ) -> None:
        """``part`` says which one the balancer has now; whoever knows of a change calls :meth:`wake`."""
        self._neighbours = neighbours or Neighbours()
        self._waits = False
        self._client = client
        self._balancer = balancer
        self._cluster = cluster
        self._site = site
        self._clock = clock
        self._pace = pace or Pace()
        self._part = part
        self._objects = Objects()
        #: What Services are to be told; None is that they are not served any more.
        self._news = News[Verdict | None]()
        self._following = Following(
            client,
            cluster,
            RESOURCES,
            self._objects,
            done="balanced",
            clock=clock,
            backoff=(self._pace.first_backoff, self._pace.last_backoff),
        )

    @property
    def owner(self) -> str:
        """Return whose mark the frontends bear, once the cluster was seen."""
        return self._following.owner

    @property
    def waits(self) -> bool:
        """Say whether Services wait for what others may give back."""
        return self._waits

    def wake(self) -> None:
        """Look at everything again."""
        self._following.wake()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._following.begin(group, resync=self._pace.resync)
            gather = partial(self._clock.sleep, self._pace.gather)
            group.create_task(self._following.turns(self._turn, gather=gather, held_up=self._hold_up))
            group.create_task(self._following.again(partial(self._news.tell, self._write_if_there), 0.0))
            group.create_task(self._following.again(self._balancer.tend, self._pace.tend))

    async def _turn(self) -> None:
        """Bring the balancer to what the cluster's objects ask for, and note what Services are to be told."""
        part = self._part()
        for attempt in range(_TRIES):
            present = await self._balancer.read()
            decision = decide(self._objects.view(), present, self.owner, self._site, part)
            if part is not Part.STANDBY:
                decision = await self._marked(decision, present)
            try:
                async with self._neighbours.turn:
                    await self._unsurpassed(decision, present)
                    decision = await self._applied(decision, present)
            except FrontendsChangedError:
                # Another cluster's controller was quicker; what it has now is decided on.
                if attempt == _TRIES - 1:
                    raise
            else:
                self._waits = any(verdict.reason in _WAITING for verdict in decision.verdicts.values())
                if part is not Part.STANDBY:
                    self._note(decision)
                return

    async def _unsurpassed(self, decision: Decision, present: Frontends) -> None:
        """Raise FrontendsChangedError if more is to be had, and the project has another use of the balancer now."""
        if self._site.limits is None or all(listener in present for listener in decision.frontends):
            return
        if use_of_others(await self._balancer.read(), self.owner) != use_of_others(present, self.owner):
            raise FrontendsChangedError("another cluster of the project was quicker")

    async def _marked(self, decision: Decision, present: Frontends) -> Decision:
        """Put our finalizer on what is to be served; leave out, for now, what it cannot be put on and is not served."""
        served = {there.frontend.service for there in present.values() if there.owner == self.owner}
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
        while changes := plan(decision.frontends, present, self.owner):
            try:
                await self._balancer.apply(self.owner, changes)
            except ListenerRefusedError as error:
                if error.listener not in decision.frontends:
                    raise
                _log.warning("refused", cluster=self._cluster, listener=str(error.listener), detail=error.detail)
                decision = refused(decision, error.listener, f"{error.detail}; {error.hint}".removesuffix("; "))
            else:
                _log.info("balanced", cluster=self._cluster, balancer=self._balancer.name, changes=len(changes))
                if any(change.before is None or change.after is None for change in changes):
                    self._neighbours.changed()
                break
        return decision

    def _note(self, decision: Decision) -> None:
        places = {place_of(SERVICES, service): service for service in self._objects.view().services}
        news: dict[Place, Verdict | None] = {}
        for place, service in places.items():
            if place in decision.verdicts:
                news[place] = decision.verdicts[place]
            elif not is_ours(service, self._site) and _was_ours(service) and not self._is_others(service):
                news[place] = None
        self._news.add(news)

    def _is_others(self, service: Manifest) -> bool:
        """Say whether a Service is for the balancer of another class, whose marks it bears then, not ours."""
        spec = service["spec"]
        named = spec.get("loadBalancerClass") or ""
        return spec.get("type") == "LoadBalancer" and bool(named != self._site.load_balancer_class)

    def _hold_up(self, error: HaneulError) -> None:
        """Tell Services that have no address yet why; what the others are told stays, as they are served still."""
        if self._part() is Part.STANDBY:
            return
        verdict = Verdict(False, NOT_ACKNOWLEDGED, f"it is tried again: {error.detail}")
        self._news.add(
            {
                place_of(SERVICES, service): verdict
                for service in self._objects.view().services
                if is_ours(service, self._site) and not _has_address(service)
            }
        )

    async def _write_if_there(self, place: Place, verdict: Verdict | None) -> None:
        try:
            await self._write(place, verdict)
        except KubeApiError as error:
            if error.status not in _OVERTAKEN:
                _log.warning("news refused", cluster=self._cluster, service=str(place), detail=error.detail)

    async def _write(self, place: Place, verdict: Verdict | None) -> None:
        service = self._objects.object(place)
        # What was to be told before another machine became active is for that one to say.
        if service is None or self._part() is Part.STANDBY:
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


def _has_address(service: Manifest) -> bool:
    return bool(((service.get("status") or {}).get("loadBalancer") or {}).get("ingress"))


def _finalizers(service: Manifest) -> list[str]:
    return list(service["metadata"].get("finalizers") or [])


def _with_finalizers(service: Manifest, finalizers: Iterable[str]) -> Manifest:
    """Return the patch that gives the Service, if it is as it was seen, these finalizers."""
    version = service["metadata"]["resourceVersion"]
    return {"metadata": {"resourceVersion": version, "finalizers": list(finalizers) or None}}


def _was_ours(service: Manifest) -> bool:
    conditions = (service.get("status") or {}).get("conditions") or []
    return FINALIZER in _finalizers(service) or any(entry["type"] == CONDITION for entry in conditions)
