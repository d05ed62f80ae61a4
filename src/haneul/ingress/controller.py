"""Keeps one cluster's Ingress objects and HTTPRoutes served: watches, decides, tells the proxy and the objects.

What it rests on:

- The cluster is followed as everywhere (:mod:`haneul.kernel.kube_following`): nothing is served before everything was
  listed, and nothing goes because the API is away; what is served stays so while this is away, too.
- Endpoints alone change without a reload. Reloads come at most once in a while, and only for routes that differ.
- An object that the proxy does not take is found, left out and told; all others are served.
- What is of the Gateway API comes and goes with the cluster's knowing of it; a cluster need not.
- It keeps no state: whoever comes later begins with the cluster's objects and the proxy as it is.
- One controller is for one cluster, with its own proxy, connections and back-off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from haneul.ingress.exclusions import culprits
from haneul.ingress.issuing import Issuer
from haneul.ingress.model import Certificate, Problem, Routes
from haneul.ingress.observed import GATEWAY_RESOURCES, RESOURCES, Observed
from haneul.ingress.options import Options
from haneul.ingress.ports import Certificates, Configuration, ConfigurationRefusedError, Hosts, Proxy
from haneul.ingress.reach import PodAddresses, Reach
from haneul.ingress.routes import compile_routes, hosts_asked_for
from haneul.ingress.statuses import State, resource_of_state, status_patch
from haneul.ingress.table import CHALLENGES, Table, table_of
from haneul.ingress.telling import counted_up, event_of, status_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, UnavailableError
from haneul.kernel.kube import (
    ENDPOINT_SLICES,
    EVENTS,
    HTTP_ROUTES,
    INGRESSES,
    SERVICES,
    KubeApiError,
    KubeClient,
    Manifest,
    Resource,
)
from haneul.kernel.kube_following import Following
from haneul.kernel.kube_objects import Place, place_of

_log = structlog.get_logger(__name__)
_GONE: Final = frozenset({404, 409})
#: What has paths, and is told what is wrong with them.
_SERVED: Final = (INGRESSES, HTTP_ROUTES)

Render = Callable[[Routes], Configuration]


@dataclass(frozen=True)
class Pace:
    """Seconds: how long changes are gathered, between reloads, full lists, looks at the proxy, and of back-off."""

    gather: float = 0.05
    between_reloads: float = 1.0
    resync: float = 300.0
    look: float = 5.0
    first_backoff: float = 0.5
    last_backoff: float = 30.0


class ClusterController:
    """One cluster's Ingress objects and HTTPRoutes on one proxy."""

    def __init__(
        self,
        client: KubeClient,
        proxy: Proxy,
        hosts: Hosts,
        render: Render,
        *,
        cluster: str,
        options: Options,
        addresses: Sequence[str],
        clock: Clock,
        pace: Pace | None = None,
        issuer: Issuer | None = None,
        reach: Reach | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """``addresses`` are where clients reach the proxy, for the objects' status.

        ``certificates`` has some for hosts that bring none; without it, those have none that a client trusts.
        """
        self._client = client
        self._proxy = proxy
        self._hosts = hosts
        self._render = render
        self._cluster = cluster
        self._options = options
        self._addresses = addresses
        self._clock = clock
        self._pace = pace or Pace()
        self._issuer = issuer
        self._reach = reach or PodAddresses()
        self._certificates = certificates
        self._observed = Observed()
        #: Whether something besides endpoints changed, and whether the proxy has to be looked at.
        self._changed, self._due = True, True
        self._routes = Routes()
        self._configuration: Configuration | None = None
        self._table = Table()
        self._reloaded = float("-inf")
        self._excluded: dict[Place, str] = {}
        self._closed: dict[Place, str] = {}
        self._told: set[Problem] = set()
        self._news = asyncio.Event()
        self._following = Following(
            client,
            cluster,
            RESOURCES,
            self,
            done="served",
            clock=clock,
            backoff=(self._pace.first_backoff, self._pace.last_backoff),
            optional=GATEWAY_RESOURCES,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._following.begin(group, resync=self._pace.resync)
            group.create_task(self._following.turns(self._turn, gather=self._gather, held_up=self._hold_up))
            group.create_task(self._following.again(self._remind, self._pace.look))
            group.create_task(self._following.again(self._tell, 0.0))
            if self._issuer:
                self._issuer.when_changed(self._certificates_changed)
                group.create_task(self._issuer.run())

    def renew(self) -> None:
        """Look at everything anew: hosts may be others' now, or certificates others."""
        self._changed = True
        self._following.wake()

    def see(self, resource: Resource, manifest: Manifest) -> None:
        """Take note of an object as it is now."""
        self._observed.see(resource, manifest)
        self._changed = self._changed or resource != ENDPOINT_SLICES

    def forget(self, place: Place) -> None:
        """Take note that an object is gone."""
        self._observed.forget(place)
        self._changed = self._changed or place.kind != ENDPOINT_SLICES.kind

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: Collection[Place]) -> None:
        """Take a whole list for what there is, and try once more what the proxy did not take."""
        self._observed.replace(resource, manifests, heard)
        self._excluded, self._closed = {}, {}
        self._changed = True

    def _certificates_changed(self) -> None:
        self._changed = True
        self._following.wake()

    async def _gather(self) -> None:
        await self._clock.sleep(self._pace.gather)
        if self._changed:
            await self._clock.sleep(max(0.0, self._reloaded + self._pace.between_reloads - self._clock.monotonic()))

    def _hold_up(self, _: HaneulError) -> None:
        self._changed, self._due = True, True

    async def _remind(self) -> None:
        self._due = True
        self._following.wake()

    async def _turn(self) -> None:
        """Do what has to be done once: new routes, the proxy looked at, or endpoints alone."""
        changed, self._changed = self._changed, False
        due, self._due = self._due, False
        if changed or self._configuration is None:
            await self._route()
            return
        table = self._table_of(self._routes)
        if due:
            await self._proxy.route(self._configuration, table)
        elif table != self._table:
            await self._proxy.point(table)
            _log.info("pointed", cluster=self._cluster, upstreams=len(table.entries))
        self._table = table

    async def _route(self) -> None:
        hosts = hosts_asked_for(self._observed)
        refused = await self._hosts.refused(hosts)
        issued: Mapping[str, Certificate] = {}
        if self._certificates is not None:
            issued = await self._certificates.certificates([host for host in hosts if host not in refused])
        options = replace(
            self._options, refused_hosts=refused, issued=issued, excluded=self._excluded, closed=self._closed
        )
        if self._issuer:
            options = replace(options, by_acme=dict(self._issuer.issued), unissued=self._issuer.unissued)
        try:
            routes, configuration = self._made(options)
            table = await self._routed(routes, configuration)
        except ConfigurationRefusedError as error:
            _log.warning("refused; looking for what it is", cluster=self._cluster, detail=error.detail)
            found = await self._culprits(replace(options, excluded={}, closed={}))
            options = replace(options, excluded={}, closed=found)
            try:
                routes, configuration = self._made(options)
                table = await self._routed(routes, configuration)
            except ConfigurationRefusedError:
                # It is their hosts or paths themselves.
                options = replace(options, excluded=found, closed={})
                routes, configuration = self._made(options)
                table = await self._routed(routes, configuration)
            self._excluded, self._closed = dict(options.excluded), dict(options.closed)
        before = self._configuration
        self._routes, self._configuration, self._table = routes, configuration, table
        if before is None or before.generation != configuration.generation:
            self._reloaded = self._clock.monotonic()
            _log.info(
                "routed", cluster=self._cluster, hosts=len(routes.servers), generation=configuration.generation[:8]
            )
        self._news.set()

    def _made(self, options: Options) -> tuple[Routes, Configuration]:
        routes = compile_routes(self._observed, options, self._clock.now())
        try:
            return routes, self._render(routes)
        except ValueError as error:
            raise ConfigurationRefusedError(str(error)) from error

    async def _routed(self, routes: Routes, configuration: Configuration) -> Table:
        await self._open(routes)
        table = self._table_of(routes)
        await self._proxy.route(configuration, table)
        if self._issuer:
            self._issuer.serves(routes.certified, table.entries.get(CHALLENGES, {}))
        return table

    def _table_of(self, routes: Routes) -> Table:
        table = table_of(routes, lambda backend: self._reach.peers(self._observed, backend))
        return table.with_challenges(self._issuer.challenges) if self._issuer else table

    async def _open(self, routes: Routes) -> None:
        """Make the ways to pods that are missing, end those that nobody needs; no route waits for one."""
        backends = routes.backends
        try:
            for place in self._reach.superfluous(self._observed, backends):
                await self._client.delete(SERVICES, place.name, place.namespace)
            for opening in self._reach.openings(self._observed, backends):
                self._observed.see(SERVICES, await self._client.apply(SERVICES, opening))
        except HaneulError as error:
            _log.warning("no way to pods made", cluster=self._cluster, detail=error.detail)

    async def _culprits(self, options: Options) -> dict[Place, str]:
        """Return which objects the proxy does not take; whoever is not to be served at all is not among them."""
        ours = compile_routes(self._observed, options, self._clock.now()).ours

        async def takes(some: frozenset[Place]) -> str:
            without = dict.fromkeys(ours - some, "")
            try:
                _, configuration = self._made(replace(options, excluded=without))
                await self._proxy.check(configuration)
            except ConfigurationRefusedError as error:
                return error.detail
            return ""

        if why := await takes(frozenset()):
            raise UnavailableError(f"the proxy refuses even a configuration without any object: {why}")
        age = {
            place_of(resource, found): found["metadata"].get("creationTimestamp") or ""
            for resource in _SERVED
            for found in self._observed.all(resource)
        }
        return await culprits(sorted(ours, key=lambda place: (age.get(place, ""), place)), takes)

    async def _tell(self) -> None:
        """Tell objects what is known of them now; what cannot be told now is told later."""
        await self._news.wait()
        self._news.clear()
        routes = self._routes
        self._told &= set(routes.problems)
        try:
            for problem in routes.problems:
                if problem not in self._told:
                    await self._write_event(problem)
                    self._told.add(problem)
            for place in sorted(place for place in routes.ours if place.kind == INGRESSES.kind):
                await self._write_status(place, served=place in routes.served)
            for state in routes.states:
                await self._write_state(state)
        except UnavailableError:
            self._news.set()
            raise

    async def _write_event(self, problem: Problem) -> None:
        [resource] = [one for one in _SERVED if one.kind == problem.ingress.kind]
        told = self._observed.get(resource, problem.ingress.namespace, problem.ingress.name)
        if told is None:
            return
        event = event_of(problem, resource, told, self._clock.now())
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        try:
            kept = await self._client.get(EVENTS, name, namespace)
            if kept is None:
                await self._client.create(EVENTS, event)
            else:
                await self._client.patch(EVENTS, name, counted_up(kept, self._clock.now()), namespace)
        except KubeApiError as error:
            _log.warning("event refused", cluster=self._cluster, ingress=str(problem.ingress), detail=error.detail)

    async def _write_status(self, place: Place, *, served: bool) -> None:
        ingress = self._observed.get(INGRESSES, place.namespace, place.name)
        wanted = status_of(ingress, self._addresses, served=served) if ingress else None
        if wanted:
            await self._patch_status(INGRESSES, place, {"status": wanted})

    async def _write_state(self, state: State) -> None:
        resource, place = resource_of_state(state), state.place
        told = self._observed.get(resource, place.namespace, place.name)
        wanted = status_patch(state, told, self._addresses, self._clock.now()) if told else None
        if wanted:
            await self._patch_status(resource, place, wanted)

    async def _patch_status(self, resource: Resource, place: Place, wanted: Manifest) -> None:
        try:
            await self._client.patch(resource, place.name, wanted, place.namespace, subresource="status")
        except KubeApiError as error:
            # It went or changed meanwhile; then it is heard of, and told again.
            if error.status not in _GONE:
                _log.warning("status refused", cluster=self._cluster, object=str(place), detail=error.detail)
