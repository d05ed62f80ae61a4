"""The pages of ``docs/reference`` that are written from the code: commands, errors, components, the cluster.

``python -m haneul.app.reference`` writes them anew; tests hold the files to what is returned here. It stands in the
composition root because the errors are those of every product.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import haneul
from haneul.app.command_reference import cli_page
from haneul.bench.report import replace_section
from haneul.chaos.report import catalogue_markdown
from haneul.compliance.reference import benchmark_page
from haneul.components.base_images.reference import base_image_page
from haneul.components.base_images.table import BASE_IMAGES
from haneul.components.table import COMPONENTS, IMAGES, PYTHON_COMPONENTS, GoComponent, Image, PythonComponent
from haneul.dkos.reference import cluster_events_page, cluster_spec_page, kubernetes_versions_page
from haneul.ingress.reference import ingress_page
from haneul.kernel.errors import HaneulError
from haneul.kernel.files import write_atomically

_FOLDER: Final = Path(__file__).parents[3] / "docs" / "reference"
# Alembic's scripts work when they are imported, and only then.
_NOT_IMPORTED: Final = ".migrations"

_ERRORS_HEAD: Final = """# Errors

Every error that a person may meet has a stable code, a title that names the class of trouble, a detail that says what
happened this time, and where there is one a hint with the next step. The API answers with problem details (RFC 9457,
`application/problem+json`) whose `code` is the one below; the command line prints the same words on standard error
and ends with the exit code. Codes are never reused.

```json
{
  "type": "urn:haneul:error:not-found",
  "title": "Not found",
  "status": 404,
  "detail": "shop has no cluster named fisrt",
  "hint": "'haneul cluster list -p shop' shows them",
  "code": "not-found",
  "requestId": "5f0c2a9e"
}
```

`errors` is added where single fields are wrong: a list of `field` (a path such as `spec.network.pods`) and `message`.
`requestId` is also in the answer's header `X-Request-Id`, in the platform's log and in the audit record.

| code | HTTP status | exit code | title | meaning |
| --- | --- | --- | --- | --- |
"""

_COMPONENTS_HEAD: Final = """# Components

Upstream programs are built on the machine from Go modules, images from those programs and Debian packages. No image
comes from a registry. Each component has a small Go module of its own in `components/<name>`; its `go.mod` pins the
release, its `go.sum` every byte of it and of its dependencies. Results lie in a cache outside the checkout
(`/var/cache/haneul`, or the folder that `HANEUL_CACHE` names) under a digest of everything that went into them: what
did not change is never built again, and a changed recipe never meets an old result. What only benchmarks and tests need
is built on demand: when one of them, or `haneul components build NAME`, asks for it. [Base
images](../howto/build-base-images.md), which people's own images begin with, have commands of their own.

"""

_PYTHON_HEAD: Final = """## Python environments

Python packages that have no place beside those of this project, each with an environment of its own, locked with hashes
in `components/<name>/requirements.lock`. They are built when they are named: `haneul components build swift`.

"""


def pages() -> Mapping[str, Callable[[], str]]:
    """Return what writes each page, by file name."""
    return {
        **{f"base-images/{row.name}.md": partial(base_image_page, row) for row in BASE_IMAGES},
        "cis-benchmark.md": benchmark_page,
        "cli.md": cli_page,
        "cluster-events.md": cluster_events_page,
        "cluster-spec.md": cluster_spec_page,
        "components.md": components_page,
        "errors.md": errors_page,
        "faults.md": faults_page,
        "ingress.md": ingress_page,
        "kubernetes-versions.md": kubernetes_versions_page,
    }


def errors_page() -> str:
    """Return the table of all errors of all products, as Markdown."""
    rows = []
    for error in sorted(_errors(), key=lambda error: (error.exit_code, error.code)):
        meaning = " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split()).replace("``", "`")
        cells = (f"`{error.code}`", str(error.http_status), str(error.exit_code), error.title, meaning)
        rows.append(f"| {' | '.join(cells)} |")
    return _ERRORS_HEAD + "\n".join(rows) + "\n"


def faults_page() -> str:
    """Return the page of faults as it is, with the catalogue as the code has it; its figures are measured."""
    return replace_section((_FOLDER / "faults.md").read_text(), "catalogue", catalogue_markdown())


def components_page() -> str:
    """Return the tables of upstream components and of images, as Markdown."""
    programs = ["| component | version | licence | Go module | programs |", "| --- | --- | --- | --- | --- |"]
    programs += [_component_row(row) for row in COMPONENTS]
    python = ["| component | version | licence | Python package |", "| --- | --- | --- | --- |"]
    python += [_python_row(row) for row in PYTHON_COMPONENTS]
    images = ["| image | made of |", "| --- | --- |", *(_image_row(row) for row in IMAGES)]
    return (
        f"{_COMPONENTS_HEAD}## Programs\n\n{_lines(programs)}\n{_PYTHON_HEAD}{_lines(python)}\n"
        f"## Images\n\n{_lines(images)}"
    )


def _component_row(row: GoComponent) -> str:
    programs = ", ".join(f"`{program.name}`" for program in row.programs)
    module = f"`{row.module}`" if row.module else "of our own"
    name = f"{row.name} (on demand)" if row.on_demand else row.name
    return f"| {name} | {row.version} | {row.licence} | {module} | {programs} |"


def _python_row(row: PythonComponent) -> str:
    return f"| {row.name} | {row.version} | {row.licence} | `{row.package}` |"


def _image_row(row: Image) -> str:
    parts = []
    if row.programs:
        parts.append("programs " + ", ".join(f"`{name}`" for name in row.programs))
    if row.host_files:
        parts.append("files of this machine " + ", ".join(f"`{name}`" for name in row.host_files))
    if row.packages:
        parts.append("a minimal Debian with " + ", ".join(f"`{name}`" for name in row.packages))
    if row.module_folders:
        parts.append("sources " + ", ".join(f"`{folder}` of `{module}`" for module, folder, _ in row.module_folders))
    if row.project:
        parts.append("this project with its locked Python packages")
    if row.images:
        parts.append("images " + ", ".join(row.images))
    return f"| `haneul.local/{row.repository}:v{row.version}` | {'; '.join(parts)} |"


def _lines(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"


def _errors() -> Iterator[type[HaneulError]]:
    """Yield every error class that has a code of its own."""
    for module in pkgutil.walk_packages(haneul.__path__, "haneul."):
        if _NOT_IMPORTED not in module.name:
            importlib.import_module(module.name)
    waiting: list[type[HaneulError]] = [HaneulError]
    seen: set[str] = set()
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        # Tests and plug-ins may have errors of their own; this is the reference of the project's.
        if "code" in vars(error) and error.__module__.startswith("haneul.") and error.code not in seen:
            seen.add(error.code)
            yield error


def write(folder: Path) -> None:
    """Write all pages into ``folder``."""
    for name, render in pages().items():
        write_atomically(folder / name, render())


if __name__ == "__main__":
    write(_FOLDER)
