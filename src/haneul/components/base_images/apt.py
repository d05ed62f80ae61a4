"""Which Debian packages an image consists of, and their files: asked of apt, for a machine that has nothing yet.

apt resolves and fetches as this machine is set up to (mirror, proxy, keys), but sees no package of this machine, only
sources of Debian, and keeps what it needs in a folder of our own. What an image does without, though a package in it
depends on it, is told to apt as being there already.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from filelock import FileLock

from haneul.components.debian import debian_sources
from haneul.kernel.errors import CommandFailedError
from haneul.kernel.process import run

_RESOLVE_SECONDS: Final = 120.0
_FETCH_SECONDS: Final = 900.0
# As 'apt-get --print-uris' writes them: the address, the name of the file, its size, its digest.
_LINE: Final = re.compile(r"'[^']+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
# No package that is there has this version; apt never replaces it.
_THERE: Final = (
    "Package: {name}\nStatus: install ok installed\nMaintainer: nobody\nArchitecture: all\nVersion: 99999\n"
    "Description: is done without\n\n"
)


@dataclass(frozen=True)
class Package:
    """One Debian package, to the byte. ``size`` is bytes of its file."""

    name: str
    version: str
    architecture: str
    file_name: str
    size: int
    sha256: str


class Apt:
    """apt with a state of its own in ``folder``; processes that share it take turns by the file ``lock``."""

    def __init__(self, folder: Path, lock: Path) -> None:
        self._folder, self._lock = folder, lock
        self._sources = ""

    async def resolve(self, names: Sequence[str], *, without: Iterable[str] = ()) -> tuple[Package, ...]:
        """Return ``names`` and all that they need, by name, as this machine's lists of packages have them.

        Raises HostNotReadyError, CommandFailedError.
        """
        said = await self._install(("--print-uris", "--quiet=2"), names, without, timeout=_RESOLVE_SECONDS)
        return packages_of(said)

    async def fetch(self, packages: Sequence[Package], *, without: Iterable[str] = ()) -> dict[Package, Path]:
        """Return the file of each package, with the digest that apt's signed lists gave. Raises CommandFailedError."""
        archives = self._archives()
        places = {package: archives / package.file_name for package in packages}
        missing = [package for package, path in places.items() if not _is(path, package)]
        if missing:
            for package in missing:
                places[package].unlink(missing_ok=True)
            exactly = [f"{package.name}={package.version}" for package in packages]
            await self._install(
                ("--download-only", "--quiet"), exactly, without, archives=archives, timeout=_FETCH_SECONDS
            )
            for package in missing:
                if not _is(places[package], package):
                    raise CommandFailedError(f"apt did not fetch {package.file_name} as its lists describe it")
        return places

    async def refresh(self) -> None:
        """Ask this machine's package sources what they have now. Raises CommandFailedError."""
        await run(["apt-get", "update", "--quiet"], timeout=_FETCH_SECONDS)
        self._sources = ""

    async def _install(
        self,
        how: Sequence[str],
        names: Sequence[str],
        without: Iterable[str],
        *,
        archives: Path | None = None,
        timeout: float,  # noqa: ASYNC109 - of the program
    ) -> str:
        self._sources = self._sources or await debian_sources()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock), tempfile.TemporaryDirectory(prefix="apt-", dir=self._folder) as scratch:
            listed, status = Path(scratch) / "sources.list", Path(scratch) / "status"
            listed.write_text(self._sources)
            status.write_text("".join(_THERE.format(name=name) for name in sorted(without)))
            options = {
                "Acquire::ForceHash": "SHA256",
                "Acquire::Retries": "3",
                "APT::Install-Recommends": "false",
                # Who fetches as somebody else could not write here.
                "APT::Sandbox::User": "root",
                "Debug::NoLocking": "true",
                "Dir::Cache": str(self._folder),
                # apt names no file that it has already, so what is only asked for is looked for where there is none.
                "Dir::Cache::archives": str(archives or scratch),
                # The one would hold what is installed, which each image has another state of; the other, what there is.
                "Dir::Cache::pkgcache": "",
                "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
                "Dir::Etc::preferences": "/dev/null",
                "Dir::Etc::preferencesparts": "/dev/null",
                "Dir::Etc::sourcelist": str(listed),
                "Dir::Etc::sourceparts": "/dev/null",
                "Dir::State::status": str(status),
            }
            flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
            done = await run(["apt-get", "install", "--yes", *how, *flags, *names], timeout=timeout)
        return done.stdout

    def _archives(self) -> Path:
        archives = self._folder / "archives"
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        return archives


def packages_of(said: str) -> tuple[Package, ...]:
    """Return the packages that ``apt-get --print-uris`` lists, by name."""
    found = []
    for line in said.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            name, version, architecture = match["file"].removesuffix(".deb").split("_")
            found.append(
                Package(name, unquote(version), architecture, match["file"], int(match["size"]), match["sha256"])
            )
    return tuple(sorted(found, key=lambda package: package.name))


def _is(path: Path, package: Package) -> bool:
    if not path.is_file() or path.stat().st_size != package.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256
