"""Comparing what is rendered with golden files; ``HANEUL_UPDATE_GOLDEN=1`` writes them anew for review."""

import os
from pathlib import Path


def compare(folder: Path, name: str, text: str) -> None:
    """Hold ``text`` to the golden file ``name`` of a folder."""
    path = folder / name
    if os.environ.get("HANEUL_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{name} is not there; HANEUL_UPDATE_GOLDEN=1 makes it"
    assert text == path.read_text()
