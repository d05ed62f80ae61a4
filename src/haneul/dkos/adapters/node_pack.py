"""The node image's files as one stream that can be sent in parts.

The stream is a tar archive that depends on nothing but the files: the same image gives the same bytes everywhere. It
is cut into parts that are named by their SHA-256, so that a machine knows which it has, and verifies what arrives.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from haneul.kernel.errors import HostNotReadyError

PART_BYTES = 8 << 20
_BLOCK = 1 << 20
#: What the kernel or the start of a node puts there.
_LEFT_OUT = frozenset({"dev", "proc", "run", "sys", "tmp"})


@dataclass(frozen=True)
class NodePack:
    """A tree of files, cut into parts. ``parts`` are their SHA-256 sums in order."""

    tree: Path
    parts: tuple[str, ...]
    size: int

    @property
    def name(self) -> str:
        """Return the folder that the files have on a machine, named after their contents."""
        return f"root-{hashlib.sha256(' '.join(self.parts).encode()).hexdigest()[:16]}"

    def read(self, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the wanted parts in order."""
        for part in _cut(_stream(self.tree)):
            name = hashlib.sha256(part).hexdigest()
            if name in wanted:
                yield name, part


def pack(tree: Path) -> NodePack:
    """Look at all files of the unpacked node image. Raises HostNotReadyError if it is not there."""
    if not (tree / "usr/local/lib/haneul/start-node").is_file():
        raise HostNotReadyError(
            f"the node image is not at {tree}", hint="the operator's pod mounts it; 'haneul up' makes that pod"
        )
    parts, size = [], 0
    for part in _cut(_stream(tree)):
        parts.append(hashlib.sha256(part).hexdigest())
        size += len(part)
    return NodePack(tree, tuple(parts), size)


def archive(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return a tar archive of files by name, with their modes."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as made:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            made.addfile(entry)
        for name, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            made.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def _entries(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.iterdir()):
        if path.name not in _LEFT_OUT:
            yield from _below(path)


def _below(path: Path) -> Iterator[Path]:
    """Yield what everybody may read: what only root may read of an image is no program of a node."""
    if path.is_symlink():
        yield path
    elif path.is_dir():
        if path.stat().st_mode & 0o005 == 0o005:
            yield path
            for entry in sorted(path.iterdir()):
                yield from _below(entry)
    elif path.is_file() and path.stat().st_mode & 0o004:
        yield path


def _stream(tree: Path) -> Iterator[bytes]:
    for path in _entries(tree):
        entry = tarfile.TarInfo(str(path.relative_to(tree)))
        if path.is_symlink():
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        elif path.is_dir():
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        else:
            status = path.stat()
            # No program of a node changes who it is, so no such right arrives on a machine.
            entry.size, entry.mode = status.st_size, status.st_mode & 0o755
        yield entry.tobuf(tarfile.GNU_FORMAT)
        if entry.isreg():
            yield from _contents(path, entry.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _contents(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
    yield bytes(-size % tarfile.BLOCKSIZE)


def _cut(stream: Iterator[bytes]) -> Iterator[bytes]:
    kept = bytearray()
    for block in stream:
        kept += block
        while len(kept) >= PART_BYTES:
            yield bytes(kept[:PART_BYTES])
            del kept[:PART_BYTES]
    if kept:
        yield bytes(kept)
