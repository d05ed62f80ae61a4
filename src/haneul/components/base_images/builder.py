"""Building base images into the content-addressed cache.

The key of an image is a digest of everything that goes into it: its row, the house's files, this code, and the version
and digest of each package. So a build after an update of one of its packages makes a new image, and any other does
nothing. Equal keys make equal bytes, whenever and wherever: all dates are those of packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from filelock import FileLock

from haneul.components.base_images.apt import Apt, Package
from haneul.components.base_images.bytecode import compile_library
from haneul.components.base_images.deb import Unpacked, unpack
from haneul.components.base_images.layout import Layout
from haneul.components.base_images.record import SBOM_TYPE, bill_of_materials, moment
from haneul.components.base_images.root import root_of
from haneul.components.base_images.table import ENTRYPOINT, USER_ID, BaseImage, base_image, lineage, repository
from haneul.components.base_images.tree import Tree
from haneul.components.paths import CacheLayout, digest, folder_digest
from haneul.kernel.errors import CommandFailedError, ConflictError, HostNotReadyError
from haneul.kernel.progress import Progress, Stage

_ANNOTATION: Final = "org.opencontainers.image."


@dataclass(frozen=True)
class Plan:
    """What an image would consist of now, and the key of that."""

    row: BaseImage
    packages: tuple[Package, ...]
    key: str

    @property
    def version(self) -> str:
        """Return the version of the package that the image is named for. Raises ConflictError if it is another's."""
        version = next(package.version for package in self.packages if package.name == self.row.main)
        if not f"{version}.".startswith(f"{self.row.version}."):
            raise ConflictError(f"{self.row.main} is {version} here, and the image is for {self.row.version}")
        return version


@dataclass(frozen=True)
class Built:
    """An image in the cache. ``size`` is bytes of its layers as they are transferred."""

    row: BaseImage
    layout: Layout
    digest: str
    size: int
    version: str
    created: str
    key: str

    @property
    def tags(self) -> tuple[str, str]:
        """Return the tag that moves with updates, and the one that is this image's for ever."""
        day = datetime.fromisoformat(self.created)
        return self.row.version, f"{self.row.version}-{day:%Y%m%d}-{self.key[:8]}"


class PackageSource(Protocol):
    """Where packages come from."""

    async def resolve(self, names: Sequence[str], *, without: Iterable[str] = ()) -> tuple[Package, ...]:
        """Return what is named and all that it needs."""
        ...

    async def fetch(self, packages: Sequence[Package], *, without: Iterable[str] = ()) -> dict[Package, Path]:
        """Return the packages' files."""
        ...

    async def refresh(self) -> None:
        """Find out which packages there are now."""
        ...


class BaseImageBuilder:
    """Builds base images. ``project`` is the project's root folder; packages come from this machine's sources."""

    def __init__(self, *, layout: CacheLayout, project: Path, packages: PackageSource | None = None) -> None:
        self._layout = layout
        self._house = project / "components" / "base-images"
        self._code = Path(__file__).parent
        self._source = packages or Apt(layout.packages, layout.lock("apt"))
        # One process speaks of one state of the lists.
        self._packages: dict[str, tuple[Package, ...]] = {}

    async def refresh(self) -> None:
        """Ask this machine's package sources what they have now."""
        await self._source.refresh()
        self._packages.clear()

    async def plan(self, row: BaseImage) -> Plan:
        """Return what the image would consist of, by this machine's lists of packages."""
        if row.name not in self._packages:
            self._packages[row.name] = await self._source.resolve(_asked(row), without=_without(row))
        packages = self._packages[row.name]
        parts = [repr(image) for image in lineage(row)] + [repr(package) for package in packages]
        parts += [folder_digest(self._house / image.name) for image in lineage(row)]
        return Plan(row, packages, digest([*parts, folder_digest(self._code)]))

    def built(self, plan: Plan) -> Built | None:
        """Return the image if exactly this one is in the cache."""
        folder = self._layout.base_image_folder(plan.row.name, plan.key)
        if not (folder / "index.json").is_file():
            return None
        layout = Layout(folder)
        manifest = layout.manifest()
        return Built(
            plan.row,
            layout,
            str(layout.manifests()[0]["digest"]),
            sum(int(layer["size"]) for layer in manifest["layers"]),
            manifest["annotations"][f"{_ANNOTATION}version"],
            manifest["annotations"][f"{_ANNOTATION}created"],
            plan.key,
        )

    async def build(self, row: BaseImage, progress: Progress) -> Built:
        """Return the image of the packages that there are now, built unless it is there.

        Lists of packages age, and what they name goes from the sources: they are asked for once then.
        Raises HostNotReadyError, CommandFailedError.
        """
        try:
            return await self._build(row, progress)
        except (CommandFailedError, HostNotReadyError):
            with progress.stage("package lists"):
                await self.refresh()
            return await self._build(row, progress)

    async def _build(self, row: BaseImage, progress: Progress) -> Built:
        below = await self._build(base_image(row.base), progress) if row.base else None
        plan = await self.plan(row)
        if found := self.built(plan):
            return found
        lock = self._layout.lock("base-images")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with progress.stage(f"build {repository(row)}") as stage, FileLock(lock):
            if found := self.built(plan):
                return found
            with tempfile.TemporaryDirectory(prefix="base-image-", dir=self._layout.root) as scratch:
                await self._make(plan, below, Path(scratch), stage)
        made = self.built(plan)
        assert made is not None  # noqa: S101 - it was just made
        return made

    async def _make(self, plan: Plan, below: Built | None, scratch: Path, stage: Stage) -> None:
        stage.note("Debian packages")
        unpacked = await self._unpacked(plan, scratch)
        stage.note("files")
        made = Layout(scratch / "layout")
        version = plan.version
        date = max(entry.date for entry in unpacked)
        layers = made.share(below.layout) if below else []
        tree = await self._tree(plan.row, unpacked, date, scratch)
        if below:
            tree = tree.without(await self._tree(below.row, await self._of(below, unpacked), date, scratch))
        stage.note("layers")
        layers.append(await asyncio.to_thread(made.layer, tree))
        annotations = _annotations(plan, version, date, below)
        config = _config(plan, date, annotations)
        image = made.image(layers, config, annotations=annotations, tag=plan.row.version)
        bill = bill_of_materials(repository(plan.row), version, unpacked, date=date, subject=str(image["digest"]))
        created = {f"{_ANNOTATION}created": moment(date)}
        made.finish([image, made.attachment(bill, SBOM_TYPE, subject=image, annotations=created)])
        target = self._layout.base_image_folder(plan.row.name, plan.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(target)
        made.folder.rename(target)

    async def _unpacked(self, plan: Plan, scratch: Path) -> list[Unpacked]:
        files = await self._source.fetch(plan.packages, without=_without(plan.row))
        return [await unpack(files[package], package, scratch) for package in plan.packages]

    async def _of(self, below: Built, unpacked: Sequence[Unpacked]) -> list[Unpacked]:
        """Return those packages that the image below has. Raises ConflictError if it has others."""
        packages = (await self.plan(below.row)).packages
        known = {entry.package: entry for entry in unpacked}
        if other := sorted(package.name for package in packages if package not in known):
            raise ConflictError(f"the image {below.row.name} has another {other[0]}")
        return [known[package] for package in packages]

    async def _tree(self, row: BaseImage, unpacked: Sequence[Unpacked], date: int, scratch: Path) -> Tree:
        house = {image.name: self._house / image.name / "files" for image in lineage(row)}
        tree = root_of(lineage(row), {row.name: unpacked}, house, date=date)
        if row.python_library:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                await compile_library(tree, row.python_library, Path(folder))
        return tree


def _asked(row: BaseImage) -> list[str]:
    return sorted({name for image in lineage(row) for name in image.packages})


def _without(row: BaseImage) -> list[str]:
    return sorted({name for image in lineage(row) for name in image.without})


def _annotations(plan: Plan, version: str, date: int, below: Built | None) -> dict[str, str]:
    """Return what the image says of itself: https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md"""
    said = {
        "created": moment(date),
        "title": repository(plan.row),
        "description": plan.row.description,
        "version": version,
        "revision": plan.key,
        "vendor": "Haneul",
    }
    if below:
        said |= {"base.name": f"{repository(below.row)}:{below.tags[1]}", "base.digest": below.digest}
    return {f"{_ANNOTATION}{name}": value for name, value in said.items()}


def _config(plan: Plan, date: int, labels: dict[str, str]) -> dict[str, Any]:
    """Return the image's configuration: https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md"""
    row = plan.row
    environment = {setting.name: setting.value for image in lineage(row) for setting in image.environment}
    config: dict[str, Any] = {
        "User": f"{USER_ID}:{USER_ID}",
        "WorkingDir": "/app",
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": list(ENTRYPOINT),
        "Cmd": list(row.command),
        "Labels": labels,
        "StopSignal": row.stop_signal,
    }
    if row.port:
        config["ExposedPorts"] = {f"{row.port}/tcp": {}}
    architecture = next(package.architecture for package in plan.packages if package.architecture != "all")
    names = [image.name for image in lineage(row)]
    history = [{"created": moment(date), "created_by": f"haneul base-image build {name}"} for name in names]
    return {
        "created": moment(date),
        "os": "linux",
        # Debian and OCI have the same names for amd64 and arm64.
        "architecture": architecture,
        "config": config,
        "history": history,
    }
