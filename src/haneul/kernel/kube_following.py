"""Following one cluster's objects, and acting on them turn by turn, as every controller outside the cluster does.

What it rests on:

- Nothing is done before each kind of object was listed whole, and nothing is taken for gone because the API does not
  answer: only an object that the API says is deleted, or leaves out of a whole list, is forgotten.
- What was heard is acted on only after the API was seen to be the same cluster's still.
- An error ends nothing: whatever failed is tried again, ever more slowly.
- A cluster that has more than is kept of one (:mod:`haneul.kernel.kube_budget`) ends its following, not that of others.
- Kinds of objects that a cluster need not have (custom resources) are followed from when it has them. Where it does not
  know such a kind, there are no objects of it; where it does not let them be read, what was seen of them stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, UnavailableError
from haneul.kernel.kube import NAMESPACES, KubeApiError, KubeClient, Manifest, Resource
from haneul.kernel.kube_budget import OverBudgetError
from haneul.kernel.kube_objects import Place, place_of
from haneul.kernel.tasks import in_own_task

T = TypeVar("T")

_log = structlog.get_logger(__name__)
#: Its id is the cluster's: every cluster has this namespace from its first moment until its end.
_IDENTITY: Final = "kube-system"
#: What the API answers for kinds that it does not have, and for those that somebody may not read.
_UNKNOWN, _FORBIDDEN = 404, 403


class Sight(Protocol):
    """What somebody remembers of a cluster's objects."""

    def see(self, resource: Resource, manifest: Manifest) -> None:
        """Take note of an object as it is now."""
        ...

    def forget(self, place: Place) -> None:
        """Take note that an object is gone."""
        ...

    def replace(self, resource: Resource, manifests: Iterable[Manifest], heard: AbstractSet[Place]) -> None:
        """Take a whole list for what there is, but not for objects ``heard`` of since it was asked for."""
        ...


class Following:
    """Follows the objects of one cluster."""

    def __init__(
        self,
        client: KubeClient,
        cluster: str,
        resources: Sequence[Resource],
        sight: Sight,
        *,
        done: str,
        clock: Clock,
        backoff: tuple[float, float],
        optional: Sequence[Resource] = (),
    ) -> None:
        """``done`` is a word for what is done with what is seen; ``backoff`` the first and last pause, in seconds.

        ``optional`` are more resources, which the cluster need not have.
        """
        self._client = client
        self._cluster = cluster
        self._resources = (*resources, *optional)
        self._optional = frozenset(optional)
        self._sight = sight
        self._done = done
        self._clock = clock
        self._first_backoff, self._last_backoff = backoff
        self._heard: set[Place] = set()
        self._listed = asyncio.Event()
        self._wake = asyncio.Event()
        #: Whether something was heard since the cluster's identity was last looked at.
        self._doubted = False
        self._uid = ""

    @property
    def owner(self) -> str:
        """Return name and id of the cluster, once it was seen."""
        return f"{self._cluster}/{self._uid}" if self._uid else ""

    def wake(self) -> None:
        """Let the next turn come."""
        self._wake.set()

    async def begin(self, group: asyncio.TaskGroup, *, resync: float) -> None:
        """Watch, list every so many seconds, and return when everything was listed once."""
        for resource in self._resources:
            group.create_task(self._watch(resource))
        group.create_task(self.again(self._list, resync))
        await self._listed.wait()

    async def again(self, work: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
        """Do something again and again, with a pause after it went well and a growing one after errors."""
        backoff = self._first_backoff
        while True:
            try:
                await in_own_task(work())
            except OverBudgetError:
                raise
            except HaneulError as error:
                _log.warning(f"held up; what is {self._done} stays", cluster=self._cluster, detail=error.detail)
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._last_backoff)
            else:
                backoff = self._first_backoff
                await self._clock.sleep(pause)

    async def turns(
        self,
        turn: Callable[[], Coroutine[Any, Any, None]],
        *,
        gather: Callable[[], Awaitable[None]],
        held_up: Callable[[HaneulError], None],
    ) -> None:
        """Take a turn after everything that was heard; ``gather`` waits until enough of it has come together."""
        backoff = self._first_backoff
        while True:
            await self._wake.wait()
            await gather()
            self._wake.clear()
            doubted, self._doubted = self._doubted, False
            try:
                if doubted:
                    # A watch that reconnects to another cluster tells of all objects of the one before as deleted.
                    await in_own_task(self._identify())
                await in_own_task(turn())
            except HaneulError as error:
                _log.warning(
                    f"not {self._done}; tried again", cluster=self._cluster, seconds=backoff, detail=error.detail
                )
                held_up(error)
                self._doubted = self._doubted or doubted
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, self._last_backoff)
                self._wake.set()
            else:
                backoff = self._first_backoff

    async def _watch(self, resource: Resource) -> None:
        async for event in self._client.watch(resource):
            place = place_of(resource, event.object)
            self._heard.add(place)
            if event.type == "DELETED":
                self._sight.forget(place)
            else:
                self._sight.see(resource, event.object)
            self._doubted = True
            self._wake.set()

    async def _list(self) -> None:
        """List everything, and take it for what there is; whatever fails here changes nothing."""
        await self._identify()
        self._heard = set()
        lists = [(resource, await self._listing(resource)) for resource in self._resources]
        for resource, manifests in lists:
            if manifests is not None:
                self._sight.replace(resource, manifests, self._heard)
        self._wake.set()
        self._listed.set()

    async def _listing(self, resource: Resource) -> list[Manifest] | None:
        """Return all objects of a kind; None if the cluster does not let one that is optional be read."""
        try:
            return await self._client.list(resource)
        except KubeApiError as error:
            if resource in self._optional and error.status == _UNKNOWN:
                return []
            if resource in self._optional and error.status == _FORBIDDEN:
                return None
            raise

    async def _identify(self) -> None:
        """Find out which cluster this is, and that it is still the same one."""
        found = await self._client.get(NAMESPACES, _IDENTITY)
        if found is None:
            raise UnavailableError(f"the cluster has no namespace {_IDENTITY} yet")
        uid = found["metadata"]["uid"]
        if self._uid and uid != self._uid:
            raise ConflictError(
                f"the API of {self._cluster} is another cluster's now ({uid}, not {self._uid})",
                hint=f"what is {self._done} stays as it was; end this process and start another for the new cluster",
            )
        self._uid = uid


class News(Generic[T]):
    """What objects are to be told; of one object the last only."""

    def __init__(self) -> None:
        self._waiting: dict[Place, T] = {}
        self._some = asyncio.Event()

    def add(self, news: Mapping[Place, T]) -> None:
        """Let some be told."""
        self._waiting.update(news)
        if self._waiting:
            self._some.set()

    async def tell(self, write: Callable[[Place, T], Awaitable[None]]) -> None:
        """Wait for some and write all that wait; what cannot be written now, as the API is away, stays."""
        await self._some.wait()
        self._some.clear()
        for place, item in list(self._waiting.items()):
            try:
                await write(place, item)
            except UnavailableError:
                self._some.set()
                raise
            if self._waiting.get(place) is item:
                del self._waiting[place]
