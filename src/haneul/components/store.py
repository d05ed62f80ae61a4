"""The component store: where other products find built programs and images, and what builds them."""

from __future__ import annotations

from pathlib import Path

from haneul.components.base_images.builder import BaseImageBuilder
from haneul.components.environments import EnvironmentBuilder
from haneul.components.images import ImageBuilder
from haneul.components.paths import CacheLayout
from haneul.components.programs import ProgramBuilder
from haneul.components.table import (
    COMPONENTS,
    IMAGES,
    PYTHON_COMPONENTS,
    GoComponent,
    Image,
    PythonComponent,
    component_of,
    image,
    image_reference,
    python_component,
)
from haneul.kernel.errors import HostNotReadyError, NotFoundError
from haneul.kernel.progress import Progress


class ComponentStore:
    """One cache of built components and the project folder that they are built from."""

    def __init__(self, *, cache: Path, project: Path) -> None:
        self.cache = cache
        layout = CacheLayout(cache)
        self.programs = ProgramBuilder(layout=layout, sources=project / "components")
        self.environments = EnvironmentBuilder(layout=layout, sources=project / "components")
        self.images = ImageBuilder(layout=layout, project=project, programs=self.programs)
        self.base_images = BaseImageBuilder(layout=layout, project=project)

    def program(self, name: str) -> Path:
        """Return a built executable. Raises HostNotReadyError if it is not built."""
        return self.programs.program(name)

    def python_command(self, component: str, program: str) -> tuple[str, str]:
        """Return interpreter and file of a Python component's program. Raises HostNotReadyError if not built."""
        return self.environments.command(python_component(component), program)

    def image_archive(self, name: str) -> Path:
        """Return a built image's OCI archive. Raises HostNotReadyError if it is not built."""
        row = image(name)
        if not self.images.is_built(row):
            raise HostNotReadyError(f"the image {name} is not built", hint="run 'haneul components build'")
        return self.images.archive(row)

    def image_reference(self, name: str) -> str:
        """Return the name under which an image is known once it is loaded."""
        return image_reference(name)

    def missing(self) -> list[GoComponent | PythonComponent | Image]:
        """Return what the platform needs and is not built yet, in the order in which it is needed."""
        programs = [row for row in COMPONENTS if not row.on_demand and not self.programs.is_built(row)]
        python = [row for row in PYTHON_COMPONENTS if not row.on_demand and not self.environments.is_built(row)]
        return [*programs, *python, *(row for row in IMAGES if not self.images.is_built(row))]

    async def build(self, names: list[str], progress: Progress) -> None:
        """Build the named components and images, or all that is missing; an image's components come before it."""
        components, images = select(names or [row.name for row in self.missing()])
        for component in COMPONENTS:
            if component.name in components:
                await self.programs.build(component, progress)
        for python in PYTHON_COMPONENTS:
            if python.name in components:
                await self.environments.build(python, progress)
        for made in IMAGES:
            if made.name in images:
                await self.images.build(made, progress)


def select(wanted: list[str]) -> tuple[set[str], set[str]]:
    """Return the names of the components and of the images to build. Raises NotFoundError for an unknown name."""
    known_components = {row.name for row in COMPONENTS} | {row.name for row in PYTHON_COMPONENTS}
    known_images = {row.name for row in IMAGES}
    for name in wanted:
        if name not in known_components | known_images:
            raise NotFoundError(
                f"there is no component or image {name!r}", hint="'haneul components list' shows their names"
            )
    images = known_images.intersection(wanted)
    images |= {carried for name in images for carried in image(name).images}
    needed = {component_of(program).name for name in images for program in image(name).programs}
    return known_components.intersection(wanted) | needed, images
