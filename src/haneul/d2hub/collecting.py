"""Collection of what nobody needs any more, while the registry works.

Where a project says so, manifests without a tag are deleted first; they can be brought back for a time. Then the order
is the reverse of a push: deleted manifests whose undo has ended, then blobs of repositories that no manifest refers
to, then content that no repository has, then files that nobody knows. All but the last are decided in SQL, in the same
statement that removes, against rows that every push writes; a push and a collection cannot both believe to be
alone. Files are removed only after the database forgot them, under names that are never used again.

Time is the machine's, but never faster than its monotonic clock: a clock that jumps ahead makes nothing old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

import structlog

from haneul.d2hub.happenings import Happening
from haneul.d2hub.model import Collected
from haneul.d2hub.ports import BlobStore, Keeping
from haneul.d2hub.registry import Registry
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, UnavailableError

_log = structlog.get_logger(__name__)
_BATCH: Final = 200
#: How long a file is watched before it is taken for a stray, whatever the grace of the registry is: between its name
#: on the disk and in the database lie a write and a wait for the disk.
STRAY_SECONDS: Final = 3600.0
T = TypeVar("T", bound=Hashable)


class Suspects(Generic[T]):
    """Tells what was suspected without a break for some seconds of a clock that never jumps. Pure."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[T, float] = {}

    def look(self, suspected: Iterable[T], at: float) -> list[T]:
        """Note who is suspected now, and return those who have been for long enough."""
        self._since = {suspect: self._since.get(suspect, at) for suspect in suspected}
        return [suspect for suspect, since in self._since.items() if at - since >= self._seconds]


class Collector:
    """Collects one registry."""

    def __init__(self, registry: Registry, keeping: Keeping, store: BlobStore, *, clock: Clock) -> None:
        self._registry, self._keeping, self._store, self._clock = registry, keeping, store, clock
        self._began, self._began_at = clock.now(), clock.monotonic()
        self._strays: Suspects[str] = Suspects(STRAY_SECONDS)
        self._uploads: Suspects[tuple[str, str]] = Suspects(STRAY_SECONDS)
        self._one = asyncio.Lock()

    async def run(self, every: timedelta) -> None:
        """Collect again and again, without end."""
        while True:
            await self._clock.sleep(every.total_seconds())
            try:
                await self.collect()
            except ConflictError as error:
                _log.info("no collection", why=error.detail)
            except UnavailableError as error:
                _log.warning("no collection", why=error.detail)
            except Exception as error:  # noqa: BLE001, RUF100 - the next turn may do better; nothing is half done
                _log.error("a collection failed", exc_info=error)

    async def preview(self) -> Collected:
        """Return what a collection would remove now."""
        now = self._now()
        limits = self._registry.limits
        return await self._keeping.collectable(deleted_before=now - limits.undo, untouched_since=now - limits.grace)

    async def collect(self) -> Collected:
        """Collect once. Raises ConflictError if another process of the registry collects."""
        async with self._one, self._keeping.alone():
            await self._delete_untagged()
            done = await self._by_reference()
            done = await self._by_name(done)
        if done != Collected():
            _log.info("collected", **vars(done))
        return done

    async def _delete_untagged(self) -> None:
        """Delete what lost its last tag long ago, by the rules of each project; it can be brought back."""
        now = self._now()
        for project in await self._registry.catalog.projects():
            days = self._registry.rules.rules(project).untagged_days
            if days is None:
                continue
            limit = now - timedelta(days=days)
            origin = self._registry.origin(project, Happening.COLLECTION)
            async for changed in self._keeping.delete_untagged(
                project, released_before=limit, now=now, limit=_BATCH, origin=origin
            ):
                self._registry.changed(changed)
                _log.info("deleted manifests without tags", repositories=list(changed))

    async def _by_reference(self) -> Collected:
        now, limits = self._now(), self._registry.limits
        untouched_since = now - limits.grace
        purged = await self._keeping.purge_deleted(before=now - limits.undo, now=now, limit=_BATCH)
        unlinked = 0
        async for count in self._keeping.unlink_unreferenced(untouched_since=untouched_since, limit=_BATCH):
            unlinked += count
            self._registry.collected()
        blobs, size = 0, 0
        async for gone in self._keeping.drop_unlinked(untouched_since=untouched_since, limit=_BATCH):
            await self._store.remove([blob.key for blob in gone])
            blobs += len(gone)
            size += sum(blob.size for blob in gone)
        await self._keeping.drop_empty(untouched_since=untouched_since, limit=_BATCH)
        return Collected(manifests=purged, links=unlinked, blobs=blobs, bytes=size)

    async def _by_name(self, done: Collected) -> Collected:
        """Remove files that nobody knows: of pushes that a crash cut short."""
        at = self._clock.monotonic()
        keys, uploads = await self._store.strays(older_than=self._registry.limits.grace.total_seconds())
        strays = self._strays.look(await self._keeping.unknown(keys), at)
        abandoned = self._uploads.look(uploads, at)
        await self._store.remove(strays)
        return replace(done, strays=len(strays), uploads=await self._store.abandon(abandoned))

    def _now(self) -> datetime:
        """Return the time, but not more of it than has really passed."""
        passed = timedelta(seconds=self._clock.monotonic() - self._began_at)
        return min(self._clock.now(), self._began + passed)
