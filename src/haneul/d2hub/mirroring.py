"""Pulls through a mirror: what is here is served, what is not is fetched once for all who ask, verified, and kept.

A tag that is here is served whatever the upstream does. When it is due, the upstream is asked which digest it names
now; whoever pulls waits for that for a short while, and gets what is here if no answer comes, an error does, or the
upstream has the tag no more. Manifests and blobs are named by their digest, so they are never asked for again.

A manifest is kept before its blobs are: those that nobody pulls are never fetched, nor is an index's every platform.
What it refers to is written down with it, so blobs that come later stay as long as it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from haneul.d2hub.caches import Lru
from haneul.d2hub.digests import digest_of, is_digest, parse_digest
from haneul.d2hub.errors import (
    BlobUnknownError,
    ManifestInvalidError,
    ManifestUnknownError,
    UpstreamError,
    UpstreamWrongError,
)
from haneul.d2hub.flights import Flights
from haneul.d2hub.happenings import Happening
from haneul.d2hub.manifests import parse_manifest
from haneul.d2hub.metrics import MirrorCounts
from haneul.d2hub.mirror_blobs import BlobFetches
from haneul.d2hub.mirrors import Mirror, Mirrors, may_pass
from haneul.d2hub.model import Content, GrowingContent, ManifestPush, StoredManifest, UpstreamManifest
from haneul.d2hub.ports import MirrorRecords
from haneul.d2hub.registry import Registry
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, QuotaExceededError

_log = structlog.get_logger(__name__)
#: Who gave a tag to what came from an upstream: no user has such a name.
BY_UPSTREAM: Final = "(upstream)"
_ATTEMPTS: Final = 3
_BACK_OFF_SECONDS: Final = 0.2
_TAGS: Final = 100_000
#: What is the matter if an upstream is still being asked.
_SLOW: Final = "upstream-slow"
T = TypeVar("T")


@dataclass(frozen=True)
class Pulled:
    """A manifest, and the code of what kept the upstream from saying that the tag still names it, if anything did."""

    manifest: StoredManifest
    stale: str = ""


@dataclass(frozen=True)
class _Asked:
    """When a tag is due again, and what went wrong the last time."""

    until: float
    trouble: str = ""


class Mirroring:
    """Pulls of all mirrors of one registry."""

    def __init__(
        self,
        registry: Registry,
        mirrors: Mirrors,
        records: MirrorRecords,
        fetches: BlobFetches,
        *,
        counts: MirrorCounts,
        clock: Clock,
    ) -> None:
        self.mirrors, self.records = mirrors, records
        self._registry, self._fetches, self._counts, self._clock = registry, fetches, counts, clock
        self._flights: Flights[tuple[str, str], StoredManifest] = Flights()
        self._asked: Lru[tuple[str, str], _Asked] = Lru(_TAGS)

    async def manifest(self, repository: str, reference: str) -> Pulled:
        """Return what a tag or digest names, here or at the upstream, if the repository is a mirror's.

        Raises ManifestUnknownError, NameUnknownError, UpstreamError.
        """
        mirror = self.mirrors.of(repository)
        if mirror is None:
            return Pulled(await self._registry.manifest(repository, reference))
        kept = await self._here(repository, reference)
        if kept is None:
            return Pulled(await self._fetched(mirror, repository, reference))
        if is_digest(reference) or self._registry.keeps(repository, reference):
            return Pulled(kept)
        return await self._kept(mirror, repository, reference, kept)

    async def blob(self, repository: str, digest: str, *, relied_on: bool, whole: bool) -> Content | GrowingContent:
        """Return a blob, here or at the upstream; unless ``whole`` it may be one that is still arriving.

        Raises BlobUnknownError, NameUnknownError, UpstreamError.
        """
        try:
            return await self._registry.blob(repository, digest, relied_on=relied_on)
        except BlobUnknownError:
            mirror = self.mirrors.of(repository)
            if mirror is None:
                raise
        return await self._fetches.content(mirror, repository, digest, whole=whole)

    async def end(self) -> None:
        """Break off what is under way and let connections end."""
        await self._flights.end()
        await self._fetches.end()
        await self.mirrors.close()

    async def _kept(self, mirror: Mirror, repository: str, tag: str, kept: StoredManifest) -> Pulled:
        """Return what a tag that is here names, after asking the upstream if it is due."""
        asked = self._asked.get((repository, tag))
        if asked is not None and self._clock.monotonic() < asked.until:
            return Pulled(kept, asked.trouble)
        task = self._flights.start((repository, tag), partial(self._refreshed, mirror, repository, tag, kept=kept))
        hold = min(mirror.rules.negative_seconds, mirror.rules.refresh.total_seconds())
        try:
            async with asyncio.timeout(mirror.rules.patience_seconds):
                return Pulled(await asyncio.shield(task))
        except TimeoutError:
            # It goes on, and who pulls meanwhile does not wait again; what comes of it takes the place of this.
            trouble, hold = _SLOW, mirror.rules.timeout_seconds
        except HaneulError as error:
            trouble = error.code
            if isinstance(error, ManifestUnknownError):
                await self._note_gone(mirror, repository, tag, kept.digest)
        if trouble != _SLOW or not task.done():
            self._asked.put((repository, tag), _Asked(self._clock.monotonic() + hold, trouble))
        self._counts.count("stale", mirror.project)
        _log.warning("a tag is served as it was before", repository=repository, tag=tag, trouble=trouble)
        return Pulled(kept, trouble)

    async def _note_gone(self, mirror: Mirror, repository: str, tag: str, seen: str) -> None:
        if await self.records.note(repository, tag, None, seen=seen, now=self._clock.now()):
            self._counts.count("tags_gone", mirror.project)
            _log.warning("an upstream has a tag no more", repository=repository, tag=tag, alert=True)

    async def _refreshed(
        self, mirror: Mirror, repository: str, tag: str, *, kept: StoredManifest | None = None
    ) -> StoredManifest:
        """Ask which digest a tag names, fetch that if it is not here, and let the tag name it."""
        name = mirror.upstream_name(repository)
        known = kept.digest if kept is not None else ""
        digest = await self._try(mirror, f"{name}:{tag}", lambda: mirror.upstream.tag(name, tag, known=known))
        if kept is not None and digest == kept.digest:
            sent = kept
        else:
            there = await self._here(repository, digest) if is_digest(digest) else None
            sent = there or await self._sent(mirror, name, digest if is_digest(digest) else tag)
        if kept is None or sent.digest != kept.digest:
            await self._keep(mirror, repository, sent, tag, seen=known)
        elif (asked := self._asked.get((repository, tag))) is None or asked.trouble:
            # It may have been away meanwhile.
            await self.records.note(repository, tag, sent.digest, seen=sent.digest, now=self._clock.now())
        self._asked.put((repository, tag), _Asked(self._clock.monotonic() + mirror.rules.refresh.total_seconds()))
        return sent

    async def _fetched(self, mirror: Mirror, repository: str, reference: str) -> StoredManifest:
        """Fetch a manifest that is not here, once for all who ask for it at the same time."""

        async def by_digest() -> StoredManifest:
            sent = await self._sent(mirror, mirror.upstream_name(repository), reference)
            await self._keep(mirror, repository, sent)
            return sent

        work = by_digest if is_digest(reference) else partial(self._refreshed, mirror, repository, reference)
        return await self._flights.join((repository, reference), work)

    async def _here(self, repository: str, reference: str) -> StoredManifest | None:
        try:
            return await self._registry.manifest(repository, reference)
        except ManifestUnknownError:
            return None

    async def _sent(self, mirror: Mirror, name: str, reference: str) -> StoredManifest:
        """Fetch a manifest and make sure that it is what was asked for. Raises UpstreamWrongError."""

        async def fetch() -> StoredManifest:
            sent = await mirror.upstream.manifest(name, reference, most=self._registry.limits.manifest_bytes)
            return _verified(sent, name, reference)

        found = await self._try(mirror, f"{name}:{reference}", fetch)
        self._counts.count("manifests_fetched", mirror.project)
        return found

    async def _keep(
        self, mirror: Mirror, repository: str, sent: StoredManifest, tag: str = "", *, seen: str = ""
    ) -> None:
        manifest = parse_manifest(sent.content, sent.media_type)
        now = self._clock.now()
        origin = self._registry.origin(repository, Happening.MIRROR)
        change = ManifestPush(
            repository, sent.digest, sent.content, manifest, now=now, by=BY_UPSTREAM, tag=tag, origin=origin
        )
        try:
            async with self._registry.room(repository, sent.digest, len(sent.content)):
                moved = await self.records.keep(change, seen=seen)
        except QuotaExceededError as error:
            self._failed(mirror, f"{mirror.upstream_name(repository)}:{tag or sent.digest}", error)
            raise
        finally:
            self._registry.changed([repository])
        if moved:
            self._counts.count("tags_moved", mirror.project)
            _log.warning("an upstream's tag moved", repository=repository, tag=tag, digest=sent.digest, alert=True)

    async def _try(self, mirror: Mirror, what: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask an upstream, again if it fails in a way that may pass, and remember what does not."""
        mirror.memory.check(what)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await ask()
            except (UpstreamError, ManifestUnknownError) as error:
                if not may_pass(error) or attempt == _ATTEMPTS:
                    self._failed(mirror, what, error)
                    raise
            await self._clock.sleep(_BACK_OFF_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _failed(self, mirror: Mirror, what: str, error: HaneulError) -> None:
        self._counts.failed(mirror.project, error.code)
        mirror.memory.failed(what, error, mirror.rules.negative_seconds)
        _log.warning("a manifest cannot be fetched", what=what, code=error.code, detail=error.detail)


def _verified(sent: UpstreamManifest, name: str, reference: str) -> StoredManifest:
    wanted = reference if is_digest(reference) else sent.digest
    digest = str(digest_of(sent.content, parse_digest(wanted).algorithm if wanted else "sha256"))
    if wanted and digest != wanted:
        raise UpstreamWrongError(
            f"the upstream sent a manifest of {name}:{reference} with the digest {digest}, not {wanted}",
            hint="nothing of it was kept; ask whoever runs the upstream, or what stands in front of it",
        )
    try:
        manifest = parse_manifest(sent.content, sent.media_type)
    except ManifestInvalidError as error:
        raise UpstreamWrongError(
            f"what the upstream sent for {name}:{reference} is no manifest that is known: {error.detail}",
            hint="nothing of it was kept",
        ) from error
    return StoredManifest(digest, manifest.media_type, sent.content, manifest.subject)
