"""The files of an image, as a table of paths that is written as one layer.

Paths are relative and have no dot in front: ``usr/bin/sh``. What packages put into ``/bin``, ``/sbin`` and ``/lib*`` is
below ``usr``, as on every Debian since 12. Of a file only its place in a package's archive is known until a layer is
written. Layers have their entries in the order of their names, so that equal trees are equal bytes.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from haneul.kernel.errors import ConflictError

_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOLDER_MODE: Final = 0o7777
# No program has the rights of another user by its file's mode.
_FILE_MODE: Final = 0o0777


@dataclass(frozen=True)
class Piece:
    """Bytes inside an archive."""

    archive: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Entry:
    """A file, folder or link. ``kind`` is tarfile's type; ``target`` that of a link; ``date`` in seconds."""

    kind: bytes
    mode: int
    date: int
    uid: int = 0
    gid: int = 0
    target: str = ""
    content: bytes | Piece = b""


class Tree:
    """All entries by path. ``date``, in seconds since the epoch, is that of what is not a package's."""

    def __init__(self, date: int) -> None:
        self.date = date
        self.entries: dict[str, Entry] = {}

    def folder(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Have a folder, whatever was at its path."""
        self.entries[path] = Entry(tarfile.DIRTYPE, mode, self.date, uid, gid)

    def file(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Have a file, whatever was at its path."""
        data = content.encode() if isinstance(content, str) else content
        self.entries[path] = Entry(tarfile.REGTYPE, mode, self.date, content=data)

    def link(self, path: str, target: str) -> None:
        """Have a symbolic link, whatever was at its path."""
        self.entries[path] = Entry(tarfile.SYMTYPE, 0o777, self.date, target=target)

    def remove(self, path: str) -> None:
        """Have nothing at a path, nor below it."""
        for known in [known for known in self.entries if known == path or known.startswith(f"{path}/")]:
            del self.entries[known]

    def read(self, path: str) -> bytes:
        """Return a file's content, through symbolic links. Raises KeyError."""
        entry = self.entries[path]
        if entry.kind == tarfile.SYMTYPE:
            return self.read(posixpath.normpath(posixpath.join("/", posixpath.dirname(path), entry.target))[1:])
        if isinstance(entry.content, bytes):
            return entry.content
        with entry.content.archive.open("rb") as archive:
            archive.seek(entry.content.offset)
            return archive.read(entry.content.size)

    def add_archive(self, archive: Path, wanted: Callable[[str, bool], bool]) -> list[str]:
        """Add what is ``wanted`` (path, whether it is a folder or link) of a package's files; return the paths.

        Raises ConflictError if another package has one of the files.
        """
        added = []
        with tarfile.open(archive, encoding="utf-8") as members:
            for member in members:
                path = merged(member.name)
                if not path or not wanted(path, member.isdir() or member.issym()):
                    continue
                if member.isdir() and path in self.entries:
                    added.append(path)
                    continue
                if path in self.entries:
                    raise ConflictError(f"two packages have /{path}: one is {archive.name}")
                self.entries[path] = _entry(member, archive)
                added.append(path)
        for path in added:
            if self.entries[path].kind == tarfile.LNKTYPE and self.entries[path].target not in self.entries:
                raise ConflictError(f"/{path} is the same file as /{self.entries[path].target}, which is left out")
        return added

    def part(self, wanted: Callable[[str], bool]) -> Tree:
        """Return the entries whose paths are wanted."""
        rest = Tree(self.date)
        rest.entries = {path: entry for path, entry in self.entries.items() if wanted(path)}
        return rest

    def without(self, before: Tree) -> Tree:
        """Return what a layer on top of ``before`` has to have. Raises ConflictError if it would have to remove."""
        gone = sorted(set(before.entries) - set(self.entries))
        if gone:
            raise ConflictError(f"the image has no /{gone[0]}, which the image has that it is based on")
        rest = Tree(self.date)
        for path, entry in self.entries.items():
            known = before.entries.get(path)
            # One date is not the other's if that is all that differs.
            if known is None or replace(known, date=entry.date) != entry:
                rest.entries[path] = entry
        return rest

    def write(self, output: io.RawIOBase | io.BufferedIOBase) -> None:
        """Write the entries, with the folders above them, as a tar archive."""
        with (
            tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as layer,
            ExitStack() as opened,
        ):
            archives: dict[Path, BinaryIO] = {}
            for path, entry in self._in_order():
                info = tarfile.TarInfo(path)
                info.type, info.mode, info.mtime = entry.kind, entry.mode, min(entry.date, self.date)
                info.uid, info.gid, info.linkname = entry.uid, entry.gid, entry.target
                content: BinaryIO = io.BytesIO(b"")
                if isinstance(entry.content, bytes):
                    info.size, content = len(entry.content), io.BytesIO(entry.content)
                else:
                    archive = entry.content.archive
                    if archive not in archives:
                        archives[archive] = opened.enter_context(archive.open("rb"))
                    info.size, content = entry.content.size, archives[archive]
                    content.seek(entry.content.offset)
                layer.addfile(info, content)

    def _in_order(self) -> Iterator[tuple[str, Entry]]:
        complete: dict[str, Entry] = dict(self.entries)
        for path in self.entries:
            above = posixpath.dirname(path)
            while above and above not in complete:
                complete[above] = Entry(tarfile.DIRTYPE, 0o755, self.date)
                above = posixpath.dirname(above)
        ordered = sorted(complete.items())
        # A hard link comes after the file whose name it repeats.
        yield from (pair for pair in ordered if pair[1].kind != tarfile.LNKTYPE)
        yield from (pair for pair in ordered if pair[1].kind == tarfile.LNKTYPE)


def merged(name: str) -> str:
    """Return a member's path as it is in an image; empty for the root itself."""
    path = posixpath.normpath(posixpath.join("/", name)).lstrip("/")
    first = path.partition("/")[0]
    return f"usr/{path}" if first in _MERGED else path


def merged_links() -> Mapping[str, str]:
    """Return the links at the root that stand for folders below ``usr``, and their targets."""
    return {name: f"usr/{name}" for name in _MERGED[:3]} | {"lib64": "usr/lib64"}


def _entry(member: tarfile.TarInfo, archive: Path) -> Entry:
    mode = member.mode & (_FOLDER_MODE if member.isdir() else _FILE_MODE)
    target = merged(member.linkname) if member.islnk() else member.linkname
    content: bytes | Piece = Piece(archive, member.offset_data, member.size) if member.isreg() else b""
    return Entry(member.type, mode, int(member.mtime), member.uid, member.gid, target, content)
