"""Keeps one cluster's Ingress objects served: watches, decides, tells the proxy and the objects.

What it rests on:

- Nothing is served before each kind of object was listed whole, and nothing is taken for gone because the API does not
  answer; what is served stays so while this is away, too.
- Endpoints alone change without a reload. Reloads come at most once in a while, and only for routes that differ.
- An object that the proxy does not take is found, left out and told; all others are served.
- It keeps no state: whoever comes later begins with the cluster's objects and the proxy as it is.
- One controller is for one cluster, with its own proxy, connections and back-off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from haneul.ingress.exclusions import culprits
from haneul.ingress.model import Place, Problem, Routes
from haneul.ingress.observed import RESOURCES, Observed, place_of
from haneul.ingress.ports import Configuration, ConfigurationRefusedError, Hosts, Proxy
from haneul.ingress.routes import Options, compile_routes, hosts_asked_for
from haneul.ingress.table import Table, table_of
from haneul.ingress.telling import counted_up, event_of, status_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, UnavailableError
from haneul.kernel.kube import ENDPOINT_SLICES, EVENTS, INGRESSES, NAMESPACES, KubeApiError, KubeClient, Resource
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)
#: Its id is the cluster's: every cluster has this namespace from its first moment until its end.
_IDENTITY: Final = "kube-system"
_GONE: Final = frozenset({404, 409})

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
    """One cluster's Ingress objects on one proxy."""

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
    ) -> None:
        """``addresses`` are where clients reach the proxy, for the objects' status."""
        self._client = client
        self._proxy = proxy
        self._hosts = hosts
        self._render = render
        self._cluster = cluster
        self._options = options
        self._addresses = addresses
        self._clock = clock
        self._pace = pace or Pace()
        self._observed = Observed()
        self._owner = ""
        self._heard: set[Place] = set()
        self._wake = asyncio.Event()
        self._listed = asyncio.Event()
        self._doubted = False
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

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource in RESOURCES:
                group.create_task(self._watch(resource))
            group.create_task(self._again(self._list, self._pace.resync))
            await self._listed.wait()
            group.create_task(self._serve())
            group.create_task(self._again(self._remind, self._pace.look))
            group.create_task(self._again(self._tell, 0.0))

    async def _watch(self, resource: Resource) -> None:
        async for event in self._client.watch(resource):
            place = place_of(resource, event.object)
            self._heard.add(place)
            if event.type == "DELETED":
                self._observed.forget(place)
            else:
                self._observed.see(resource, event.object)
            self._changed = self._changed or resource != ENDPOINT_SLICES
            self._doubted = True
            self._wake.set()

    async def _list(self) -> None:
        """List everything, and take it for what there is; whatever fails here changes nothing."""
        await self._identify()
        self._heard = set()
        listed = [(resource, await self._client.list(resource)) for resource in RESOURCES]
        for resource, manifests in listed:
            self._observed.replace(resource, manifests, self._heard)
        self._excluded, self._closed = {}, {}
        self._changed = True
        self._wake.set()
        self._listed.set()

    async def _identify(self) -> None:
        """Find out which cluster this is, and that it is still the same one."""
        found = await self._client.get(NAMESPACES, _IDENTITY)
        if found is None:
            raise UnavailableError(f"the cluster has no namespace {_IDENTITY} yet")
        owner = found["metadata"]["uid"]
        if self._owner and owner != self._owner:
            raise ConflictError(
                f"the API of {self._cluster} is another cluster's now ({owner}, not {self._owner})",
                hint="what is served stays as it was; end this process and start another for the new cluster",
            )
        self._owner = owner

    async def _remind(self) -> None:
        self._due = True
        self._wake.set()

    async def _again(self, work: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
        """Do something again and again, with a pause after it went well and a growing one after errors."""
        backoff = self._pace.first_backoff
        while True:
            try:
                await in_own_task(work())
            except HaneulError as error:
                _log.warning("held up; what is served stays", cluster=self._cluster, detail=error.detail)
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._pace.last_backoff)
            else:
                backoff = self._pace.first_backoff
                await self._clock.sleep(pause)

    async def _serve(self) -> None:
        backoff = self._pace.first_backoff
        while True:
            await self._wake.wait()
            await self._clock.sleep(self._pace.gather)
            if self._changed:
                await self._clock.sleep(max(0.0, self._reloaded + self._pace.between_reloads - self._clock.monotonic()))
            self._wake.clear()
            doubted, self._doubted = self._doubted, False
            changed, self._changed = self._changed, False
            due, self._due = self._due, False
            try:
                if doubted:
                    # A watch that reconnects to another cluster tells of all objects of the one before as deleted.
                    await in_own_task(self._identify())
                await in_own_task(self._turn(changed=changed, due=due))
            except HaneulError as error:
                _log.warning("not served; tried again", cluster=self._cluster, seconds=backoff, detail=error.detail)
                self._changed, self._due, self._doubted = True, True, self._doubted or doubted
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._pace.last_backoff)
                self._wake.set()
            else:
                backoff = self._pace.first_backoff

    async def _turn(self, *, changed: bool, due: bool) -> None:
        """Do what has to be done once: new routes, the proxy looked at, or endpoints alone."""
        if changed or self._configuration is None:
            await self._route()
            return
        table = table_of(self._routes.upstreams, self._observed.peers)
        if due:
            await self._proxy.route(self._configuration, table)
        elif table != self._table:
            await self._proxy.point(table)
            _log.info("pointed", cluster=self._cluster, upstreams=len(table.entries))
        self._table = table

    async def _route(self) -> None:
        refused = await self._hosts.refused(hosts_asked_for(self._observed))
        options = replace(self._options, refused_hosts=refused, excluded=self._excluded, closed=self._closed)
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
        table = table_of(routes.upstreams, self._observed.peers)
        await self._proxy.route(configuration, table)
        return table

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
            place_of(INGRESSES, found): found["metadata"].get("creationTimestamp") or ""
            for found in self._observed.all(INGRESSES)
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
            for place in sorted(routes.ours):
                await self._write_status(place, served=place in routes.served)
        except UnavailableError:
            self._news.set()
            raise

    async def _write_event(self, problem: Problem) -> None:
        ingress = self._observed.get(INGRESSES, problem.ingress.namespace, problem.ingress.name)
        if ingress is None:
            return
        event = event_of(problem, ingress, self._clock.now())
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
        if wanted is None:
            return
        try:
            await self._client.patch(INGRESSES, place.name, {"status": wanted}, place.namespace, subresource="status")
        except KubeApiError as error:
            # It went meanwhile.
            if error.status not in _GONE:
                _log.warning("status refused", cluster=self._cluster, ingress=str(place), detail=error.detail)
