"""Making an etcd's data folder from a backup, by the program ``etcd-replay``; restores and drills take the same way."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from haneul.dkos.backup.names import Segment, milliseconds
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.timeline import Stretch, Wish
from haneul.kernel.errors import BackupDamagedError, BackupIncompleteError, CommandFailedError
from haneul.kernel.process import run

_SECONDS: Final = 1800.0
_HINT: Final = "restore another moment, from before or after it"


@dataclass(frozen=True)
class Member:
    """The etcd for which a data folder is made: its name, its URL for peers, and a word that no other one had."""

    name: str = "etcd-0"
    peer_url: str = "http://127.0.0.1:2380"
    token: str = "restored"  # noqa: S105 - etcd's word for a name that is no secret


@dataclass(frozen=True)
class Alteration:
    """What is other in the result than in the backup: keys that it shall not have, and who seals its secrets.

    ``seal`` is name and key (in base 64) of the encryption of Secrets in the result; what others sealed is sealed anew,
    also if another cluster gave its key the same name.
    """

    remove: tuple[str, ...] = ()
    seal: tuple[str, str] | None = None


@dataclass(frozen=True)
class Made:
    """What ``etcd-replay`` made: the revision of the state, how many keys it has, digests of all of them."""

    revision: int
    keys: int
    digest: str
    applied: int = 0
    #: What an etcd answered that was started on the result; empty if none was.
    served: str = field(default="")


class Replayer:
    """Runs ``etcd-replay``, one at a time, in a scratch folder that may hold a cluster's data for a moment."""

    def __init__(self, program: Path, scratch: Path) -> None:
        self._program = program
        self._scratch = scratch
        self._one = asyncio.Semaphore(1)

    def tidy(self) -> None:
        """Delete what a process left that ended in the middle."""
        for folder in self._scratch.glob("replay-*"):
            shutil.rmtree(folder, ignore_errors=True)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """Give a folder that is deleted afterwards."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="replay-", dir=self._scratch))
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def inspect(self, snapshot: Path) -> Made:
        """Return what a snapshot holds, once its checksum was compared."""
        async with self._one, self.folder() as work:
            return await self._run(snapshot, work, {"until": 0}, [])

    async def restore(
        self,
        objects: SealedObjects,
        stretch: Stretch,
        wish: Wish,
        *,
        output: Path,
        member: Member,
        alteration: Alteration = Alteration(),
        keys: Mapping[str, str] | None = None,
        serve: bool = False,
    ) -> Made:
        """Make the data folder ``output`` with what is wished of a stretch; with ``serve``, try an etcd on it.

        ``keys`` are those that may have sealed Secrets in the backup, by name and in base 64. Raises
        BackupIncompleteError, BackupDamagedError; then there is no ``output``, or one that is not to be used.
        """
        async with self._one, self.folder() as work:
            snapshot, changes = work / "snapshot", work / "changes"
            await _write(objects, stretch.snapshot.key, snapshot)
            last = await write_changes(objects, stretch, wish, changes)
            until = wish.revision or stretch.reaches
            if wish.moment is not None:
                until = max(last, stretch.snapshot.revision)
            if until < wish.least:
                raise BackupIncompleteError(
                    f"the backup ends with revision {until}, and revision {wish.least} was there by then", hint=_HINT
                )
            plan: dict[str, object] = {"until": until, "remove": list(alteration.remove)}
            if alteration.seal is not None:
                name, key = alteration.seal
                plan |= {"seal": name, "sealKey": key, "keys": {name: key, **(keys or {})}}
            arguments = [
                f"--output={output}",
                f"--name={member.name}",
                f"--peer-url={member.peer_url}",
                f"--token={member.token}",
                f"--changes={changes}",
                *(["--start"] if serve else []),
            ]
            return await self._run(snapshot, work, plan, arguments)

    async def _run(self, snapshot: Path, work: Path, plan: Mapping[str, object], arguments: Sequence[str]) -> Made:
        scratch = work / "work"
        scratch.mkdir()
        command = [str(self._program), f"--snapshot={snapshot}", f"--work={scratch}", *arguments]
        try:
            # The plan may hold keys, so it goes through a pipe.
            done = await run(command, stdin=json.dumps(plan).encode() + b"\n", timeout=_SECONDS)
        except CommandFailedError as error:
            said = error.detail.splitlines()[-1].removeprefix("etcd-replay: ")
            raise BackupDamagedError(f"the backup cannot be replayed: {said}", hint=_HINT) from error
        found = json.loads(done.stdout)
        return Made(found["revision"], found["keys"], found["digest"], found["applied"], found["served"])


async def write_changes(objects: SealedObjects, stretch: Stretch, wish: Wish, path: Path) -> int:
    """Write the lines of a stretch's segments that a wish takes into a file; return the last one's revision."""
    limit = None if wish.moment is None else milliseconds(wish.moment)

    def taken(text: bytes) -> bool:
        return limit is None or int(json.loads(text)["time"]) <= limit

    last = 0
    with path.open("xb") as handle:
        for segment in stretch.segments:
            cut = limit is not None and segment.end > limit
            async for text in _lines(objects, segment):
                if not cut or taken(text):
                    handle.write(text + b"\n")
                    if limit is not None:
                        last = json.loads(text)["revision"] if cut else segment.last
    return last


async def _lines(objects: SealedObjects, segment: Segment) -> AsyncIterator[bytes]:
    """Yield a segment's lines without holding all of it."""
    inflate = _inflater()
    pending = b""
    async for part in objects.read(segment.key):
        try:
            pending += inflate(part)
        except zlib.error as error:
            raise BackupDamagedError(f"{segment.key} cannot be read: {error}", hint=_HINT) from error
        *whole, pending = pending.split(b"\n")
        for text in whole:
            yield text
    if pending:
        raise BackupDamagedError(f"{segment.key} is cut off", hint=_HINT)


def _inflater() -> Callable[[bytes], bytes]:
    """Return what decompresses gzip members that follow each other, part by part."""
    member = zlib.decompressobj(wbits=31)

    def inflate(part: bytes) -> bytes:
        nonlocal member
        found = b""
        while part:
            if member.eof:
                member = zlib.decompressobj(wbits=31)
            found += member.decompress(part)
            part = member.unused_data
        return found

    return inflate


async def _write(objects: SealedObjects, name: str, path: Path) -> None:
    with path.open("xb") as handle:
        async for part in objects.read(name):
            await asyncio.to_thread(handle.write, part)


async def file_content(path: Path) -> AsyncGenerator[bytes, None]:
    """Yield a file's bytes. It is opened here and not in a thread: who is cancelled meanwhile would leave it open."""
    with path.open("rb") as handle:
        while part := await asyncio.to_thread(handle.read, 1 << 20):
            yield part
