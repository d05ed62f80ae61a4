"""The registry itself: what pulls, pushes and deletions do, whatever they arrive by.

It brings store and metadata together in the order that loses nothing: content is on the disk before it is written
down, written down before it is acknowledged, and forgotten before it is removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from haneul.d2hub.caches import Lru, RepositoryCache
from haneul.d2hub.digests import Digest, digest_of, parse_digest
from haneul.d2hub.errors import (
    BlobStoreAwayError,
    BlobUnknownError,
    DigestInvalidError,
    ManifestTooLargeError,
    ManifestUnknownError,
)
from haneul.d2hub.happenings import Happening, Origin
from haneul.d2hub.manifests import parse_manifest
from haneul.d2hub.model import (
    BytesContent,
    Content,
    DeletionOrder,
    FileContent,
    LinkedBlob,
    ManifestPush,
    RemoteContent,
    StoredBlob,
    StoredManifest,
    TagEntry,
)
from haneul.d2hub.names import parse_tag, project_of
from haneul.d2hub.ports import BlobStore, Catalog, Metadata
from haneul.d2hub.quotas import Quotas
from haneul.d2hub.rules import Rules
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, QuotaExceededError

_log = structlog.get_logger(__name__)
MIB: Final = 1 << 20
#: Content of at most so many bytes is kept in memory once it was read: configurations of images are.
_SMALL: Final = 64 << 10
#: Tags, and links of repositories to blobs, that are remembered.
_MOST_NAMES: Final = 100_000


@dataclass(frozen=True)
class Limits:
    """What a registry takes and keeps."""

    manifest_bytes: int = 4 * MIB
    #: Memory for manifests and small blobs that were asked for, each.
    cache_bytes: int = 48 * MIB
    #: How long an upload, and a blob that no manifest refers to, is left alone.
    grace: timedelta = timedelta(hours=24)
    #: How long a deletion can be taken back.
    undo: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class Pushed:
    """What became of a manifest's push."""

    digest: str
    subject: str | None


class Registry:
    """One registry."""

    def __init__(
        self,
        store: BlobStore,
        metadata: Metadata,
        catalog: Catalog,
        rules: Rules,
        *,
        clock: Clock,
        limits: Limits,
        alone: bool = True,
        quotas: Quotas | None = None,
    ) -> None:
        """``alone`` says that no other process changes what repositories have, so that it may be remembered."""
        self.store, self.metadata, self.catalog, self.rules = store, metadata, catalog, rules
        self.limits, self._quotas = limits, quotas
        self._clock = clock
        self._manifests: RepositoryCache[StoredManifest] = RepositoryCache(
            limits.cache_bytes if alone else 0, lambda manifest: len(manifest.content) + 500
        )
        self._names: RepositoryCache[str] = RepositoryCache(_MOST_NAMES if alone else 0)
        self._links: RepositoryCache[LinkedBlob] = RepositoryCache(_MOST_NAMES if alone else 0)
        self._small: Lru[str, BytesContent] = Lru(limits.cache_bytes, lambda content: content.size + 200)

    async def manifest(self, repository: str, reference: str) -> StoredManifest:
        """Return what a tag or digest names. Raises ManifestUnknownError."""
        digest = reference if ":" in reference else self._names.get(repository, reference)
        if digest is not None:
            kept = self._manifests.get(repository, digest)
            if kept is not None:
                return kept
        state, names_state = self._manifests.state(repository), self._names.state(repository)
        found = await self.metadata.manifest(repository, reference)
        if found is None:
            raise ManifestUnknownError(f"{repository} has no manifest {reference}")
        self._manifests.put(repository, found.digest, found, state=state)
        if found.digest != reference:
            self._names.put(repository, reference, found.digest, state=names_state)
        return found

    async def blob(self, repository: str, digest: str, *, relied_on: bool = False) -> Content:
        """Return a repository's blob. Raises BlobUnknownError.

        ``relied_on`` says that the caller will not push it because it is there: so it stays for a while.
        """
        linked = await self._linked(repository, digest)
        now = self._clock.now()
        if relied_on and now - linked.touched > self.limits.grace / 2:
            state = self._links.state(repository)
            if not await self.metadata.touch_blob(repository, digest, now=now):
                raise _no_blob(repository, digest)
            self._links.put(repository, digest, LinkedBlob(linked.stored, now), state=state)
        small = self._small.get(linked.stored.key)
        if small is not None:
            return small
        content = await self.store.content(linked.stored.key)
        if content is None:
            # A collection may have just removed what this process remembers.
            self._links.changed(repository)
            raise _no_blob(repository, digest)
        if content.size <= _SMALL:
            kept = await _in_memory(content)
            self._small.put(linked.stored.key, kept)
            return kept
        return content

    async def finish_upload(self, repository: str, upload: str, digest: Digest, *, has_room: bool = False) -> None:
        """Make an upload a blob of its repository; ``has_room`` says that the caller holds :meth:`room` for it.

        Raises QuotaExceededError, after which the upload is over.
        """
        if has_room or self._quotas is None or not self._quotas.limits(repository):
            await self._finish(repository, upload, digest)
            return
        try:
            async with self._quotas.room(repository, str(digest), await self.store.size(repository, upload)):
                await self._finish(repository, upload, digest)
        except QuotaExceededError:
            await self.store.cancel(repository, upload)
            raise

    async def _finish(self, repository: str, upload: str, digest: Digest) -> None:
        stored = await self.store.finish(repository, upload, str(digest))
        try:
            kept = await self.metadata.link_blob(repository, stored, now=self._clock.now())
            if kept.key != stored.key and await self.store.content(kept.key) is None:
                kept = await self._found_again(repository, stored, kept.key)
        finally:
            self._links.changed(repository)
        if kept.key != stored.key:
            # Somebody else pushed the same before. What cannot be removed now is a stray for a collection.
            with contextlib.suppress(BlobStoreAwayError):
                await self.store.remove([stored.key])

    async def _found_again(self, repository: str, stored: StoredBlob, lost_key: str) -> StoredBlob:
        """Put content in the place of a file that is lost: of a copy that was not whole, or of a broken disk."""
        _log.warning("lost content was pushed again", digest=stored.digest, lost=lost_key, key=stored.key)
        try:
            return await self.metadata.link_blob(repository, stored, now=self._clock.now(), lost_key=lost_key)
        finally:
            # Other repositories' links name the lost file too.
            self._links.clear()

    async def push_blob(self, repository: str, digest: Digest, parts: AsyncIterator[bytes]) -> None:
        """Take a whole blob at once. Nobody knows the upload's name, so it ends with whatever goes wrong."""
        upload = await self.store.begin(repository)
        try:
            await self.store.append(repository, upload, parts)
            await self.finish_upload(repository, upload, digest)
        except BaseException:
            with contextlib.suppress(HaneulError, OSError):
                await self.store.cancel(repository, upload)
            raise

    async def mount(self, repository: str, digest: str, sources: Sequence[str]) -> bool:
        """Give a repository a blob that one of the sources has; False if none has, or its content is lost."""
        for source in sources:
            try:
                linked = await self._linked(source, digest)
            except BlobUnknownError:
                continue
            if await self.store.content(linked.stored.key) is None:
                self._links.changed(source)
                continue
            try:
                async with self.room(repository, digest, linked.stored.size):
                    mounted = await self.metadata.mount_blob(
                        digest, source=source, target=repository, now=self._clock.now()
                    )
            finally:
                self._links.changed(repository)
            if mounted:
                return True
        return False

    async def put_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str, by: str, *, address: str = ""
    ) -> Pushed:
        """Take a manifest, under a tag or by its digest. ``address`` is where it comes from."""
        if len(content) > self.limits.manifest_bytes:
            raise self.too_large()
        tag = ""
        if ":" in reference:
            wanted = parse_digest(reference)
            digest = digest_of(content, wanted.algorithm)
            if digest != wanted:
                raise DigestInvalidError(f"the manifest's digest is {digest}, not {reference}")
        else:
            tag, digest = parse_tag(reference), digest_of(content)
        manifest = parse_manifest(content, media_type)
        change = ManifestPush(
            repository,
            str(digest),
            content,
            manifest,
            now=self._clock.now(),
            by=by,
            tag=tag,
            immutable=bool(tag) and self.keeps(repository, tag),
            origin=self.origin(repository, Happening.PUSH, address),
        )
        try:
            async with self.room(repository, change.digest, len(content)):
                await self.metadata.put_manifest(change)
        finally:
            self._changed(repository)
        return Pushed(str(digest), manifest.subject)

    async def delete_manifest(
        self,
        repository: str,
        reference: str,
        by: str,
        *,
        expected: TagEntry | None = None,
        address: str = "",
        happening: Happening = Happening.DELETE,
        forced: bool = False,
    ) -> None:
        """Delete a tag, if it is still as ``expected``, or a manifest; ``happening`` is why.

        Raises ManifestUnknownError, TagImmutableError, and ImageInUseError unless it is ``forced``.
        """
        stays = self.rules.rules(project_of(repository)).keeps_tag
        origin = self.origin(repository, happening, address)
        order = DeletionOrder(repository, reference, self._clock.now(), by, expected, stays, origin, forced)
        try:
            found = await self.metadata.delete(order)
        finally:
            self._changed(repository)
        if not found:
            raise ManifestUnknownError(f"{repository} has no manifest {reference}")

    async def delete_blob(self, repository: str, digest: str, by: str = "", *, address: str = "") -> None:
        """Take a blob from a repository. Raises BlobUnknownError."""
        origin = self.origin(repository, Happening.DELETE, address)
        try:
            found = await self.metadata.delete_blob(repository, digest, now=self._clock.now(), by=by, origin=origin)
        finally:
            self._changed(repository)
        if not found:
            raise _no_blob(repository, digest)

    async def undelete(self, repository: str, reference: str, by: str = "", *, address: str = "") -> None:
        """Bring back a tag or manifest. Raises ManifestUnknownError."""
        origin = self.origin(repository, Happening.UNDELETE, address)
        try:
            found = await self.catalog.undelete(repository, reference, now=self._clock.now(), by=by, origin=origin)
        finally:
            self._changed(repository)
        if not found:
            raise ManifestUnknownError(
                f"nothing deleted of {repository} is called {reference}",
                hint="'haneul image deleted' shows what can be brought back",
            )

    def room(self, repository: str, digest: str, size: int) -> AbstractAsyncContextManager[None]:
        """Hold room for content, if there are quotas at all. Raises QuotaExceededError."""
        return contextlib.nullcontext() if self._quotas is None else self._quotas.room(repository, digest, size)

    def origin(self, repository: str, happening: Happening, address: str = "") -> Origin:
        """Return where a change comes from and who is told of it, by the rules of the repository's project."""
        receivers = self.rules.rules(project_of(repository)).receivers_of(happening)
        return Origin(address, receivers, happening)

    def changed(self, repositories: Sequence[str]) -> None:
        """Forget what repositories have, after somebody else changed it."""
        for repository in repositories:
            self._changed(repository)

    def collected(self) -> None:
        """Forget where content lies, after a collection."""
        self._links.clear()

    def too_large(self) -> ManifestTooLargeError:
        """Return the error for too large a manifest."""
        return ManifestTooLargeError(f"a manifest may have {self.limits.manifest_bytes} bytes at most")

    def keeps(self, repository: str, tag: str) -> bool:
        """Say whether a tag, once set, stays what it is."""
        return self.rules.rules(project_of(repository)).keeps_tag(tag)

    async def _linked(self, repository: str, digest: str) -> LinkedBlob:
        linked = self._links.get(repository, digest)
        if linked is None:
            state = self._links.state(repository)
            linked = await self.metadata.blob(repository, digest)
            if linked is None:
                raise _no_blob(repository, digest)
            self._links.put(repository, digest, linked, state=state)
        return linked

    def _changed(self, repository: str) -> None:
        self._manifests.changed(repository)
        self._names.changed(repository)
        self._links.changed(repository)


async def _in_memory(content: Content) -> BytesContent:
    match content:
        case FileContent():
            return BytesContent(content.path.read_bytes())
        case RemoteContent():
            return BytesContent(await content.whole())
        case _:
            return content


def _no_blob(repository: str, digest: str) -> BlobUnknownError:
    return BlobUnknownError(f"{repository} has no blob {digest}")
