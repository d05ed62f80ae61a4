"""Keeps one cluster's names published: watches its objects, publishes what changes, tells Services.

What it rests on:

- Nothing is published before each kind of object was listed whole, and nothing is taken for gone because the API does
  not answer: only an object that the API says is deleted, or leaves out of a whole list, takes its records along.
- What was heard is published only after the API was seen to be the same cluster's still.
- Between two full resynchronisations only what changes is written; each of them compares everything and writes what
  differs, so that whatever went wrong in between is mended by it.
- It keeps no state of its own: a process that is killed in the middle of a batch begins anew with the cluster's objects
  and the zone's marks.
- One controller is for one cluster, with its own connections and back-off, so that no other cluster waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from haneul.dns.model import ClusterDomain
from haneul.dns.ports import DnsProvider
from haneul.dns.publisher import Publisher
from haneul.dns.receipts import Receipt, condition
from haneul.dns.wanted import Place, Wanted, place_of
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, UnavailableError
from haneul.kernel.kube import NAMESPACES, SERVICES, KubeApiError, KubeClient, Resource
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)
#: Its id is the cluster's: every cluster has this namespace from its first moment until its end.
_IDENTITY: Final = "kube-system"
_GONE: Final = frozenset({404, 409})


@dataclass(frozen=True)
class Pace:
    """Seconds: how long changes are gathered before a batch, between full resynchronisations, and of back-off."""

    gather: float = 0.05
    resync: float = 300.0
    first_backoff: float = 0.5
    last_backoff: float = 30.0


class ClusterController:
    """One cluster's names on one server."""

    def __init__(
        self,
        client: KubeClient,
        provider: DnsProvider,
        cluster: str,
        domain: ClusterDomain,
        *,
        clock: Clock,
        pace: Pace | None = None,
        pods: bool = True,
    ) -> None:
        self._client = client
        self._provider = provider
        self._cluster = cluster
        self._clock = clock
        self._pace = pace or Pace()
        self._wanted = Wanted(domain, pods=pods)
        self._owner = ""
        self._heard: set[Place] = set()
        self._wake = asyncio.Event()
        self._listed = asyncio.Event()
        self._resync = True
        #: Whether something was heard since the cluster's identity was last looked at.
        self._doubted = False
        self._receipts: dict[Place, Receipt] = {}
        self._told = asyncio.Event()

    @property
    def owner(self) -> str:
        """Return whose mark the records bear, once the cluster was seen."""
        return self._owner

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource in self._wanted.resources:
                group.create_task(self._watch(resource))
            group.create_task(self._again(self._list, self._pace.resync))
            await self._listed.wait()
            group.create_task(self._publish(Publisher(self._provider, self._owner, self._wanted, clock=self._clock)))
            group.create_task(self._again(self._tell, 0.0))

    async def _watch(self, resource: Resource) -> None:
        async for event in self._client.watch(resource):
            place = place_of(resource, event.object)
            self._heard.add(place)
            if event.type == "DELETED":
                self._wanted.forget(place, self._clock.monotonic())
            else:
                self._wanted.see(resource, event.object, self._clock.monotonic())
            self._doubted = True
            self._wake.set()

    async def _list(self) -> None:
        """List everything, and take it for what there is; whatever fails here changes nothing."""
        await self._identify()
        self._heard = set()
        listed = [(resource, await self._client.list(resource)) for resource in self._wanted.resources]
        for resource, manifests in listed:
            self._wanted.replace(resource, manifests, self._heard, self._clock.monotonic())
        self._resync = True
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
                hint="its records stay as they were; end this process and start another for the new cluster",
            )
        self._owner = owner

    async def _again(self, work: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
        """Do something again and again, with a pause after it went well and a growing one after errors."""
        backoff = self._pace.first_backoff
        while True:
            try:
                await in_own_task(work())
            except HaneulError as error:
                _log.warning("held up; what is published stays", cluster=self._cluster, detail=error.detail)
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._pace.last_backoff)
            else:
                backoff = self._pace.first_backoff
                await self._clock.sleep(pause)

    async def _publish(self, publisher: Publisher) -> None:
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
                whole, self._resync = self._resync, False
                receipts = await in_own_task(publisher.resync() if whole else publisher.publish())
            except HaneulError as error:
                _log.warning("not published; tried again", cluster=self._cluster, seconds=backoff, detail=error.detail)
                self._hand_over(publisher.held_up(error))
                self._resync, self._doubted = True, self._doubted or doubted
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._pace.last_backoff)
                self._wake.set()
            else:
                backoff = self._pace.first_backoff
                self._hand_over(receipts)

    def _hand_over(self, receipts: dict[Place, Receipt]) -> None:
        self._receipts.update(receipts)
        if self._receipts:
            self._told.set()

    async def _tell(self) -> None:
        """Write the receipts that wait; one that cannot be written now stays."""
        await self._told.wait()
        self._told.clear()
        for place, receipt in list(self._receipts.items()):
            try:
                await self._write(place, receipt)
            except UnavailableError:
                self._told.set()
                raise
            if self._receipts.get(place) is receipt:
                del self._receipts[place]

    async def _write(self, place: Place, receipt: Receipt) -> None:
        service = self._wanted.object(place)
        wanted = condition(receipt, service, self._clock.now()) if service else None
        if service is None or wanted is None:
            return
        metadata = {"name": place.name, "namespace": place.namespace, "uid": service["metadata"]["uid"]}
        manifest = {
            "apiVersion": SERVICES.api_version,
            "kind": SERVICES.kind,
            "metadata": metadata,
            "status": {"conditions": [wanted]},
        }
        try:
            await self._client.apply(SERVICES, manifest, subresource="status")
        except KubeApiError as error:
            # It went meanwhile, or another one has its name; that one gets a receipt of its own.
            if error.status not in _GONE:
                _log.warning("receipt refused", cluster=self._cluster, service=place, detail=error.detail)
