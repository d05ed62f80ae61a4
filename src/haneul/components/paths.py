"""Where things lie in the component cache, and under which keys. Pure: nothing is read but what is passed in.

The cache is content-addressed: the key of a result is a digest of everything that goes into it, so a result is never
rebuilt while nothing changed, never reused when something did, and never has to be invalidated::

    <cache>/programs/<component>-<key>/<program>
    <cache>/environments/<component>-<key>/   Python packages with an interpreter of their own
    <cache>/roots/<key>.tar             minimal Debian roots, by package list
    <cache>/images/<name>-<key>.tar     OCI archives
    <cache>/storage/                    buildah's working store, may be deleted at any time
    <cache>/base-images/<name>-<key>/   OCI layouts of base images
    <cache>/apt/                        Debian packages of base images, may be deleted at any time
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CacheLayout:
    """The folders of one cache."""

    root: Path

    def program_folder(self, component: str, key: str) -> Path:
        """Return the folder of a component's executables."""
        return self.root / "programs" / f"{component}-{key}"

    def environment_folder(self, component: str, key: str) -> Path:
        """Return the folder of a component's Python environment."""
        return self.root / "environments" / f"{component}-{key}"

    def debian_root(self, key: str) -> Path:
        """Return the archive of a minimal Debian root."""
        return self.root / "roots" / f"{key}.tar"

    def image_archive(self, name: str, key: str) -> Path:
        """Return an image's OCI archive."""
        return self.root / "images" / f"{name}-{key}.tar"

    def base_image_folder(self, name: str, key: str) -> Path:
        """Return a base image's OCI layout."""
        return self.root / "base-images" / f"{name}-{key}"

    @property
    def packages(self) -> Path:
        """Return apt's own folder for base images: what it computed, and the packages that it fetched."""
        return self.root / "apt"

    @property
    def image_storage(self) -> Path:
        """Return buildah's working store."""
        return self.root / "storage"

    def lock(self, name: str) -> Path:
        """Return the lock file that serialises builds of ``name`` between processes."""
        return self.root / "locks" / f"{name}.lock"


def digest(parts: Iterable[str | bytes]) -> str:
    """Return 16 hexadecimal digits over ``parts``, each delimited so that no two lists meet in one digest."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()[:16]


def folder_digest(folder: Path, *, ignore: frozenset[str] = frozenset({"__pycache__"})) -> str:
    """Return a digest of all files below ``folder``: their relative names, modes and bytes."""
    parts: list[str | bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not ignore.intersection(path.parts):
            parts += [str(path.relative_to(folder)), str(path.stat().st_mode & 0o111 != 0), path.read_bytes()]
    return digest(parts)
