"""What a run does to the host, written down before it is done, so that the next start can take it back.

One JSON file for each fault that lasts, in a folder of the platform's state: what kind it is, and whatever its healing
needs. A file is deleted once its fault is taken back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from haneul.kernel.files import write_atomically

Record = dict[str, Any]


class Journal:
    """The records of faults that last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, name: str, record: Record) -> None:
        """Write down what is about to be done."""
        write_atomically(self._file(name), json.dumps(record), mode=0o600)

    def end(self, name: str) -> None:
        """Forget what was taken back."""
        self._file(name).unlink(missing_ok=True)

    def open(self) -> dict[str, Record]:
        """Return what was begun and not taken back, by name."""
        files = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
        return {path.stem: json.loads(path.read_text()) for path in files}

    def _file(self, name: str) -> Path:
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise ValueError(f"{name!r} is no name of a record")
        return self._folder / f"{name}.json"
