"""Building upstream programs from their Go modules into the content-addressed cache."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from filelock import FileLock

from haneul.components.paths import CacheLayout, digest, folder_digest
from haneul.components.table import GoComponent, Program, component_of, file_name
from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.process import run
from haneul.kernel.progress import Progress

_BUILD_SECONDS = 2400.0


class ProgramBuilder:
    """Builds Go components. ``sources`` is the project's ``components`` folder."""

    def __init__(self, *, layout: CacheLayout, sources: Path) -> None:
        self._layout = layout
        self._sources = sources

    def folder(self, component: GoComponent) -> Path:
        """Return where the component's executables are, or will be once they are built."""
        return self._layout.program_folder(component.name, self._key(component))

    def is_built(self, component: GoComponent) -> bool:
        """Say whether the component was built, and every executable of it is in the cache."""
        folder = self.folder(component)
        return folder.is_dir() and all((folder / program.name).is_file() for program in component.programs)

    def program(self, name: str) -> Path:
        """Return a built executable. Raises HostNotReadyError if it is not built."""
        component = component_of(name)
        path = self.folder(component) / file_name(name)
        if not path.is_file():
            raise HostNotReadyError(
                f"the program {name} is not built", hint=f"run 'haneul components build {component.name}'"
            )
        return path

    async def build(self, component: GoComponent, progress: Progress) -> None:
        """Build what is missing of a component; a killed build leaves nothing that counts as built."""
        if self.is_built(component):
            return
        target = self.folder(component)
        self._layout.lock(component.name).parent.mkdir(parents=True, exist_ok=True)
        with (
            progress.stage(f"build {component.name} {component.version}", expected_seconds=component.estimate) as stage,
            FileLock(self._layout.lock(component.name)),
        ):
            if self.is_built(component):
                return
            unfinished = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            for program in component.programs:
                stage.note(program.name)
                await self._compile(component, program, unfinished / program.name)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(target)
            unfinished.rename(target)

    async def _compile(self, component: GoComponent, program: Program, output: Path) -> None:
        ldflags = " ".join(("-s", "-w", *component.ldflags))
        tags = ["-tags", ",".join(program.tags)] if program.tags else []
        await run(
            ["go", "build", "-trimpath", *tags, "-ldflags", ldflags, "-o", str(output), program.package],
            cwd=self._sources / component.name,
            env={"CGO_ENABLED": "1" if component.cgo else "0", "GOFLAGS": "-buildvcs=false -mod=readonly"},
            timeout=_BUILD_SECONDS,
        )

    def _key(self, component: GoComponent) -> str:
        return digest([repr(component), folder_digest(self._sources / component.name)])
