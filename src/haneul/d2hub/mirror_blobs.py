"""Blobs on their way from upstreams: one fetch for all who ask, which follow what has arrived.

A fetch is an upload of the registry's own. It becomes a blob once its size and digest are right, as a push does, and
then outlives everything. Whoever asks meanwhile reads along from the file that grows, at their own pace; the last bytes
are held back until all was verified, so nobody gets the whole of something wrong. A fetch that breaks off goes on where
it ended; one for which the project has no room is not begun. It belongs to no request: it goes on when all who asked
are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import structlog

from haneul.d2hub.digests import parse_digest
from haneul.d2hub.errors import (
    BlobUploadUnknownError,
    DigestInvalidError,
    UpstreamError,
    UpstreamWrongError,
)
from haneul.d2hub.metrics import MirrorCounts
from haneul.d2hub.mirrors import Mirror, may_pass
from haneul.d2hub.model import BytesContent, Content, FileContent, GrowingContent, RemoteContent
from haneul.d2hub.ports import GrowingStore
from haneul.d2hub.registry import Registry
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)
_ATTEMPTS: Final = 4
_BACK_OFF_SECONDS: Final = 0.2
#: Blobs that are fetched from one upstream at a time; more wait.
_AT_ONCE: Final = 16
#: Smaller blobs are answered when they are here.
_STREAMED: Final = 256 << 10
#: Bytes at the end that are not sent before everything was verified.
_HELD: Final = 64 << 10
_PIECE: Final = 256 << 10
#: No blob is larger, whatever an upstream sends.
_LARGEST: Final = 1 << 40


class BlobFetches:
    """All fetches of a registry."""

    def __init__(self, registry: Registry, store: GrowingStore, *, counts: MirrorCounts, clock: Clock) -> None:
        self._registry, self._store, self._counts, self._clock = registry, store, counts, clock
        self._fetches: dict[tuple[str, str], _Fetch] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def content(self, mirror: Mirror, repository: str, digest: str, *, whole: bool) -> Content | GrowingContent:
        """Fetch a blob, or join who does.

        Raises BlobUnknownError, NameUnknownError, UpstreamError, and what keeps it from being kept.
        """
        name = mirror.upstream_name(repository)
        fetch = self._fetches.get((repository, digest))
        if fetch is None:
            mirror.memory.check(f"{name}@{digest}")
            fetch = self._begun(mirror, repository, name, digest)
        await fetch.begun.wait()
        size = fetch.size
        if not whole and size is not None and size > _STREAMED and not fetch.task.done():
            return GrowingContent(size, fetch.parts)
        await asyncio.shield(fetch.task)
        return await self._registry.blob(repository, digest)

    async def end(self) -> None:
        """Break off all fetches; nothing of them stays."""
        tasks = [fetch.task for fetch in self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begun(self, mirror: Mirror, repository: str, name: str, digest: str) -> _Fetch:
        slot = self._slots.setdefault(mirror.project, asyncio.Semaphore(_AT_ONCE))
        fetch = _Fetch(self._registry, self._store, mirror, repository, name, digest, counts=self._counts)

        async def run() -> None:
            async with slot:
                await fetch.run(self._clock)

        def ended(task: asyncio.Task[None]) -> None:
            del self._fetches[repository, digest]
            if not task.cancelled():
                # Looked at: it may be that nobody waits any more, and a failure was logged.
                task.exception()
            fetch.ended()

        fetch.task = asyncio.create_task(run())
        fetch.task.add_done_callback(ended)
        self._fetches[repository, digest] = fetch
        return fetch


class _Fetch:
    """One blob that is fetched."""

    task: asyncio.Task[None]

    def __init__(
        self,
        registry: Registry,
        store: GrowingStore,
        mirror: Mirror,
        repository: str,
        name: str,
        digest: str,
        *,
        counts: MirrorCounts,
    ) -> None:
        self._registry, self._store, self._mirror, self._counts = registry, store, mirror, counts
        self._repository, self._name, self._digest = repository, name, digest
        self._upload = ""
        self._moved = asyncio.Event()
        #: Set when bytes have arrived, or it ended before.
        self.begun = asyncio.Event()
        self.size: int | None = None

    async def run(self, clock: Clock) -> None:
        """Fetch, verify and keep the blob; remember and tell what went wrong."""
        try:
            await self._kept(clock)
        except DigestInvalidError as error:
            wrong = UpstreamWrongError(
                f"the upstream sent something else for {self._name}@{self._digest}: {error.detail}",
                hint="nothing of it was kept; ask whoever runs the upstream, or what stands in front of it",
            )
            self._failed(wrong)
            raise wrong from error
        except HaneulError as error:
            # Also what is wrong here, such as a quota: it would be fetched again and again, and never kept.
            self._failed(error)
            raise
        self._counts.count("blobs_fetched", self._mirror.project)

    def ended(self) -> None:
        """Wake all who wait."""
        self.begun.set()
        self._moved.set()

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the blob as it arrives, the last bytes when all was verified. Raises what ends the fetch."""
        size = self.size or 0
        try:
            reader = self._store.follow(self._repository, self._upload)
        except BlobUploadUnknownError:
            # It ended just now.
            await asyncio.shield(self.task)
            async for part in _all_of(await self._registry.blob(self._repository, self._digest)):
                yield part
            return
        at = 0
        try:
            while at < size:
                moved, landed = self._moved, self.task.done()
                if landed:
                    self.task.result()
                most = min(_PIECE, (size if landed else size - _HELD) - at)
                part = await reader.read(at, most) if most > 0 else b""
                if part:
                    at += len(part)
                    yield part
                elif landed:
                    raise UpstreamWrongError(f"only {at} bytes of {self._name}@{self._digest} can be read")
                else:
                    await moved.wait()
        finally:
            reader.close()

    async def _kept(self, clock: Clock) -> None:
        self._upload = await self._store.begin(self._repository)
        try:
            async with contextlib.AsyncExitStack() as room:
                await self._receive(clock, room)
                await self._registry.finish_upload(
                    self._repository, self._upload, parse_digest(self._digest), has_room=self.size is not None
                )
        except BaseException:
            with contextlib.suppress(HaneulError, OSError):
                await self._store.cancel(self._repository, self._upload)
            raise

    async def _receive(self, clock: Clock, room: contextlib.AsyncExitStack) -> None:
        """Take in the blob's bytes, in as many answers as it takes, once there is room for them."""
        for attempt in range(1, _ATTEMPTS + 1):
            at = await self._store.size(self._repository, self._upload)
            if at and at == self.size:
                return
            try:
                async with self._mirror.upstream.blob(self._name, self._digest, at=at) as sent:
                    if self.size is not None and sent.size not in (None, self.size):
                        raise UpstreamWrongError(f"{self._name}@{self._digest} had {self.size} bytes, now {sent.size}")
                    if self.size is None and sent.size is not None:
                        await room.enter_async_context(self._registry.room(self._repository, self._digest, sent.size))
                        self.size = sent.size
                    await self._store.append(self._repository, self._upload, self._counted(sent.parts, at), at=at)
                    return
            except UpstreamError as error:
                if attempt == _ATTEMPTS or not may_pass(error, begun=self.begun.is_set()):
                    raise
                _log.warning("a fetch is tried again", name=self._name, digest=self._digest, detail=error.detail)
            await clock.sleep(_BACK_OFF_SECONDS * 2**attempt)

    async def _counted(self, parts: AsyncIterator[bytes], at: int) -> AsyncIterator[bytes]:
        """Yield bytes up to the size that was said. Raises UpstreamWrongError, or UpstreamError if some are missing."""
        received, most = at, _LARGEST if self.size is None else self.size
        async for part in parts:
            received += len(part)
            if received > most:
                raise UpstreamWrongError(f"the upstream sent more than {most} bytes for {self._name}@{self._digest}")
            self._counts.received(self._mirror.project, len(part))
            yield part
            self.begun.set()
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()
        if self.size is not None and received < self.size:
            raise UpstreamError(f"the upstream's answer ended after {received} of {self.size} bytes", hint="pull again")

    def _failed(self, error: HaneulError) -> None:
        self._counts.failed(self._mirror.project, error.code)
        self._mirror.memory.failed(f"{self._name}@{self._digest}", error, self._mirror.rules.negative_seconds)
        _log.warning("a blob cannot be fetched", name=self._name, digest=self._digest, code=error.code,
                     detail=error.detail)  # fmt: skip


async def _all_of(content: Content) -> AsyncIterator[bytes]:
    match content:
        case BytesContent():
            yield content.data
        case RemoteContent():
            async with contextlib.aclosing(await content.read(0, content.size - 1)) as parts:
                async for part in parts:
                    yield part
        case FileContent():
            with content.path.open("rb") as file:
                while part := await asyncio.to_thread(file.read, _PIECE):
                    yield part
