"""Upstream programs that are Python packages, each set in an environment of its own in the content-addressed cache.

What is installed is locked with hashes in ``components/<name>/requirements.lock``; programs of ours that run in the
environment lie beside it. Only ``bin/python`` of an environment is used, so it may be made in one place and renamed.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from haneul.components.paths import CacheLayout, digest, folder_digest
from haneul.components.table import PythonComponent
from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.process import run
from haneul.kernel.progress import Progress

_STEP_SECONDS = 900.0


class EnvironmentBuilder:
    """Builds Python components. ``sources`` is the project's ``components`` folder."""

    def __init__(self, *, layout: CacheLayout, sources: Path) -> None:
        self._layout = layout
        self._sources = sources

    def folder(self, component: PythonComponent) -> Path:
        """Return where the component's environment is, or will be once it is built."""
        return self._layout.environment_folder(component.name, self._key(component))

    def is_built(self, component: PythonComponent) -> bool:
        """Say whether the environment is in the cache."""
        return (self.folder(component) / "bin" / "python").exists()

    def command(self, component: PythonComponent, program: str) -> tuple[str, str]:
        """Return interpreter and file of one of the component's programs. Raises HostNotReadyError if not built."""
        if not self.is_built(component):
            raise HostNotReadyError(
                f"{component.name} is not built", hint=f"run 'haneul components build {component.name}'"
            )
        folder = self.folder(component)
        return str(folder / "bin" / "python"), str(folder / program)

    async def build(self, component: PythonComponent, progress: Progress) -> None:
        """Build the environment unless it is there; a killed build leaves nothing that counts as built."""
        if self.is_built(component):
            return
        target = self.folder(component)
        lock = self._layout.lock(component.name)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with (
            progress.stage(f"build {component.name} {component.version}", expected_seconds=component.estimate),
            FileLock(lock),
        ):
            if self.is_built(component):
                return
            unfinished = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            await self._install(component, unfinished)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(target)
            unfinished.rename(target)

    async def _install(self, component: PythonComponent, folder: Path) -> None:
        sources = self._sources / component.name
        uv = str(Path(sys.executable).with_name("uv"))
        folder.parent.mkdir(parents=True, exist_ok=True)
        await run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], timeout=_STEP_SECONDS)
        install = [uv, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes"]
        await run(
            [*install, "--python", str(folder / "bin" / "python"), str(sources / "requirements.lock")],
            timeout=_STEP_SECONDS,
        )
        for program in component.programs:
            shutil.copy(sources / program, folder / program)

    def _key(self, component: PythonComponent) -> str:
        # Compiled packages fit one release of Python.
        release = f"{platform.python_implementation()} {platform.python_version()} {sys.base_prefix}"
        return digest([repr(component), release, folder_digest(self._sources / component.name)])
