"""Keeps one cluster's names published: watches its objects, publishes what changes, tells Services.

What it rests on:

- The cluster is followed as everywhere (:mod:`haneul.kernel.kube_following`): nothing is published before everything
  was listed, and nothing goes because the API is away.
- Between two full resynchronisations only what changes is written; each of them compares everything and writes what
  differs, so that whatever went wrong in between is mended by it.
- It keeps no state of its own: a process that is killed in the middle of a batch begins anew with the cluster's objects
  and the zone's marks.
- One controller is for one cluster, with its own connections and back-off, so that no other cluster waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from haneul.dns.metrics import Figures
from haneul.dns.model import ClusterDomain
from haneul.dns.ports import DnsProvider
from haneul.dns.publisher import Publisher
from haneul.dns.receipts import Receipt, condition
from haneul.dns.wanted import Wanted
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import SERVICES, KubeApiError, KubeClient, Manifest, Resource
from haneul.kernel.kube_following import Following, News
from haneul.kernel.kube_objects import Place

_log = structlog.get_logger(__name__)
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
        figures: Figures | None = None,
    ) -> None:
        self._client = client
        self._provider = provider
        self._cluster = cluster
        self._clock = clock
        self._pace = pace or Pace()
        self._wanted = Wanted(domain, pods=pods)
        self._figures = figures
        self._resync = True
        self._receipts = News[Receipt]()
        self._following = Following(
            client,
            cluster,
            self._wanted.resources,
            self,
            done="published",
            clock=clock,
            backoff=(self._pace.first_backoff, self._pace.last_backoff),
        )

    @property
    def owner(self) -> str:
        """Return whose mark the records bear, once the cluster was seen."""
        return self._following.owner

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._following.begin(group, resync=self._pace.resync)
            publisher = Publisher(self._provider, self.owner, self._wanted, clock=self._clock, figures=self._figures)
            group.create_task(
                self._following.turns(
                    partial(self._publish, publisher),
                    gather=partial(self._clock.sleep, self._pace.gather),
                    held_up=partial(self._hold_up, publisher),
                )
            )
            group.create_task(self._following.again(partial(self._receipts.tell, self._write), 0.0))

    def see(self, resource: Resource, manifest: Manifest) -> None:
        """Take note of an object as it is now."""
        self._wanted.see(resource, manifest, self._clock.monotonic())

    def forget(self, place: Place) -> None:
        """Take note that an object is gone."""
        self._wanted.forget(place, self._clock.monotonic())

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: Collection[Place]) -> None:
        """Take a whole list for what there is, and compare everything with the server then."""
        self._wanted.replace(resource, manifests, heard, self._clock.monotonic())
        self._resync = True

    async def _publish(self, publisher: Publisher) -> None:
        whole, self._resync = self._resync, False
        self._receipts.add(await (publisher.resync() if whole else publisher.publish()))

    def _hold_up(self, publisher: Publisher, error: HaneulError) -> None:
        self._receipts.add(publisher.held_up(error))
        self._resync = True

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
