"""Compiling an image's Python library, with the image's own Python and its own C library, outside of any container."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from haneul.components.base_images.tree import Tree
from haneul.kernel.errors import NotFoundError
from haneul.kernel.process import run

_SECONDS: Final = 300.0
_LOADER: Final = "usr/lib/*/ld-linux*.so.*"


async def compile_library(tree: Tree, library: str, scratch: Path) -> None:
    """Add what Python compiles of ``library`` to the tree, where Python looks for it.

    A file's code is found by what it was made of, not by a date, and is not compared when it is used: nobody can change
    the one without the other. Raises NotFoundError if the image has no Python, CommandFailedError.
    """
    root, archive = scratch / "root", scratch / "root.tar"
    python = f"usr/bin/{PurePosixPath(library).name}"
    with archive.open("wb") as file:
        tree.part(lambda path: path == python or path.startswith((f"{library}/", "usr/lib/"))).write(file)
    with tarfile.open(archive, encoding="utf-8") as members:
        members.extractall(root, filter="tar")
    archive.unlink()
    loaders = sorted(root.glob(_LOADER))
    if not loaders or not (root / python).is_file():
        raise NotFoundError("the image has no Python of its own, or no C library to run it with")
    command = [str(loaders[0]), "--library-path", str(loaders[0].parent), str(root / python)]
    how = ["-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    await run(
        [*command, "-S", "-s", "-m", "compileall", *how, str(root / library)],
        # Constants that are sets have the order of their hashes.
        env={"PYTHONHASHSEED": "0", "PYTHONHOME": str(root / "usr"), "PYTHONPATH": ""},
        timeout=_SECONDS,
    )
    for path in sorted((root / library).rglob("__pycache__/*.pyc")):
        tree.file(str(path.relative_to(root)), path.read_bytes())
