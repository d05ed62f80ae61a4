"""Clusters' changes for any number of listeners, over one watch of the store for each project.

A watch of the store holds a connection, of which there are few; listeners are people and programs, of which there may
be many. What a listener sees is what the store's own watch shows: first all that is there, then every change. Who does
not keep up is cut off and may begin anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import structlog

from haneul.dkos.cluster_store import ClusterEvent, ClusterStore
from haneul.dkos.model import Cluster
from haneul.kernel.errors import UnavailableError

_log = structlog.get_logger(__name__)
_MOST_WAITING: Final = 1000


class SharedWatches:
    """Watches a project as long as somebody listens."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store
        self._feeds: dict[str, _Feed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def watch(self, project: str) -> AsyncGenerator[ClusterEvent]:
        """Yield events until :meth:`close`. Raises UnavailableError after it."""
        if self._closed:
            raise UnavailableError("the platform's API is stopping", hint="try again in a moment")
        return self._listen(project)

    async def close(self) -> None:
        """End all that is being watched, and whoever listens."""
        self._closed = True
        for feed in self._feeds.values():
            feed.end()
        self._feeds.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, project: str) -> AsyncGenerator[ClusterEvent]:
        if self._closed:
            return
        feed = self._feeds.get(project)
        if feed is None:
            feed = self._feeds[project] = _Feed()
            feed.task = asyncio.create_task(self._follow(project, feed))
            self._tasks.add(feed.task)
            feed.task.add_done_callback(self._tasks.discard)
        queue = feed.join()
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            feed.leave(queue)
            if not feed.listeners:
                self._forget(project, feed)

    async def _follow(self, project: str, feed: _Feed) -> None:
        try:
            async for event in self._store.watch(project):
                feed.take(event)
        except Exception:
            # Listeners begin anew, and see the error if it stays.
            _log.exception("the watch of a project ended", project=project)
        finally:
            feed.end()
            self._forget(project, feed)

    def _forget(self, project: str, feed: _Feed) -> None:
        if self._feeds.get(project) is feed:
            del self._feeds[project]
        if feed.task is not None and feed.task is not asyncio.current_task():
            feed.task.cancel()


class _Feed:
    """One project: what is there, as far as was seen, and who wants to know."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.listeners: set[asyncio.Queue[ClusterEvent | None]] = set()
        self._known: dict[str, Cluster] = {}

    def join(self) -> asyncio.Queue[ClusterEvent | None]:
        """Return a new listener's queue, with what is there; None ends it."""
        queue: asyncio.Queue[ClusterEvent | None] = asyncio.Queue()
        for cluster in self._known.values():
            queue.put_nowait(ClusterEvent("added", cluster))
        self.listeners.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[ClusterEvent | None]) -> None:
        """Take a listener out."""
        self.listeners.discard(queue)

    def take(self, event: ClusterEvent) -> None:
        """Pass an event on; a store that began anew may tell again what is known."""
        cluster, before = event.cluster, self._known.get(event.cluster.name)
        if event.type == "deleted":
            if self._known.pop(cluster.name, None) is not None:
                self._tell(event)
            return
        if before == cluster:
            return
        if before is not None and before.uid != cluster.uid:
            self._tell(ClusterEvent("deleted", before))
            before = None
        self._known[cluster.name] = cluster
        self._tell(ClusterEvent("added" if before is None else "modified", cluster))

    def end(self) -> None:
        """Let the listeners end, after what waits for them already."""
        for queue in self.listeners:
            queue.put_nowait(None)
        self.listeners.clear()

    def _tell(self, event: ClusterEvent) -> None:
        for queue in list(self.listeners):
            if queue.qsize() >= _MOST_WAITING:
                self.listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)
