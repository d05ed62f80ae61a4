"""Building OCI images with buildah, reproducibly, into the content-addressed cache.

Every file date is the epoch and no layer depends on when or where it was made, so the same inputs give the same
digest. A Debian root is made once for each list of packages, by mmdebstrap from the package sources that this
machine already trusts.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from haneul.components.debian import DEBIAN, debian_sources
from haneul.components.paths import CacheLayout, digest, folder_digest
from haneul.components.programs import ProgramBuilder
from haneul.components.table import Image, component_of, file_name, image, image_reference
from haneul.kernel.process import run
from haneul.kernel.progress import Progress, Stage

_STEP_SECONDS = 900.0
# Documentation, translations and other architectures' files have no place in an image.
_LEAVE_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/var/cache/*")


class ImageBuilder:
    """Builds images. ``project`` is the project's root folder."""

    def __init__(self, *, layout: CacheLayout, project: Path, programs: ProgramBuilder) -> None:
        self._layout = layout
        self._project = project
        self._programs = programs
        # One process speaks of one state of the sources, also while somebody edits them.
        self._keys: dict[str, str] = {}

    def archive(self, row: Image) -> Path:
        """Return where the image's OCI archive is, or will be once it is built."""
        if row.name not in self._keys:
            self._keys[row.name] = self._key(row)
        return self._layout.image_archive(row.name, self._keys[row.name])

    def is_built(self, row: Image) -> bool:
        """Say whether the archive is in the cache."""
        return self.archive(row).is_file()

    async def build(self, row: Image, progress: Progress) -> None:
        """Build the image unless it is there; its programs must have been built before."""
        if self.is_built(row):
            return
        self._layout.lock("images").parent.mkdir(parents=True, exist_ok=True)
        with (
            progress.stage(f"build image {row.name}", expected_seconds=row.estimate) as stage,
            FileLock(self._layout.lock("images")),
            tempfile.TemporaryDirectory(prefix="image-", dir=self._layout.root) as scratch,
        ):
            if self.is_built(row):
                return
            context = Path(scratch)
            await self._fill_context(row, context, stage)
            await self._assemble(row, context, stage)

    async def _fill_context(self, row: Image, context: Path, stage: Stage) -> None:
        shutil.copytree(self._sources(row), context, dirs_exist_ok=True)
        programs = context / "bin"
        programs.mkdir(exist_ok=True)
        for name in row.programs:
            shutil.copy(self._programs.program(name), programs / file_name(name))
        for name in row.host_files:
            shutil.copy(name, programs / Path(name).name)
        for module, folder, name in row.module_folders:
            shutil.copytree(await self._module_folder(row, module) / folder, context / name)
        for name in row.images:
            (context / "images").mkdir(exist_ok=True)
            (context / "images" / f"{name}.tar").hardlink_to(self.archive(image(name)))
        if row.packages:
            stage.note("Debian packages")
            (context / "rootfs.tar").hardlink_to(await self._debian_root(row.packages))
        if row.project:
            stage.note("Python packages")
            await self._fill_project(context)

    async def _module_folder(self, row: Image, module: str) -> Path:
        wrapper = self._project / "components" / component_of(row.programs[0]).name
        listed = await run(["go", "list", "-m", "-f", "{{.Dir}}", module], cwd=wrapper, timeout=_STEP_SECONDS)
        return Path(listed.stdout.strip())

    async def _fill_project(self, context: Path) -> None:
        """Put the project and everything it needs into the context, as a folder of installed packages."""
        site = context / "site"
        uv = [str(self._project / ".venv" / "bin" / "uv"), "pip", "install", "--quiet", "--target", str(site)]
        await run(
            [*uv, "--python-version", "3.11", "--require-hashes", "-r", str(self._project / "requirements.lock")],
            timeout=_STEP_SECONDS,
        )
        shutil.copytree(self._project / "src" / "haneul", site / "haneul", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.rmtree(site / "bin", ignore_errors=True)
        # What installers note about their own run differs from run to run and is read by nobody.
        for pattern in ("*.dist-info/RECORD", "*.dist-info/direct_url.json", "*.dist-info/uv_cache.json"):
            for path in site.glob(pattern):
                path.unlink()

    async def _debian_root(self, packages: tuple[str, ...]) -> Path:
        sources = await debian_sources()
        target = self._layout.debian_root(digest([DEBIAN, sources, *packages, *_LEAVE_OUT]))
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished.tar")
        leave_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAVE_OUT]
        await run(
            [
                "mmdebstrap",
                "--variant=minbase",
                "--mode=root",
                f"--include={','.join(packages)}",
                '--aptopt=Apt::Install-Recommends "false"',
                *leave_out,
                "--quiet",
                DEBIAN,
                str(unfinished),
                "-",
            ],
            stdin=sources.encode(),
            env={"SOURCE_DATE_EPOCH": "0"},
            timeout=_STEP_SECONDS,
        )
        unfinished.rename(target)
        return target

    async def _assemble(self, row: Image, context: Path, stage: Stage) -> None:
        stage.note("layers")
        target = self.archive(row)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        storage = self._layout.image_storage
        buildah = [
            "buildah",
            "--root",
            str(storage / "root"),
            "--runroot",
            str(storage / "run"),
            "--storage-driver",
            "vfs",
        ]
        reference = image_reference(row.name)
        build = ["build", "--isolation", "chroot", "--timestamp", "0", "--format", "oci", "--pull-never"]
        # The working store holds nothing of value; starting it afresh also clears what a killed build left.
        shutil.rmtree(storage, ignore_errors=True)
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(shutil.rmtree, storage, ignore_errors=True)
            await run([*buildah, *build, "--tag", reference, str(context)], timeout=_STEP_SECONDS)
            await run(
                [*buildah, "push", "--disable-compression", reference, f"oci-archive:{unfinished}:{reference}"],
                timeout=_STEP_SECONDS,
            )
        unfinished.rename(target)

    def _sources(self, row: Image) -> Path:
        return self._project / "components" / "images" / row.repository

    def _key(self, row: Image) -> str:
        parts = [repr(row), folder_digest(self._sources(row))]
        parts += [str(self._programs.folder(component_of(name)).name) for name in row.programs]
        parts += [self.archive(image(name)).name for name in row.images]
        if row.project:
            parts.append(folder_digest(self._project / "src" / "haneul"))
            parts.append((self._project / "requirements.lock").read_text())
        return digest(parts)
