"""Which clusters of the platform have an audit trail: one file on the host, which root alone writes.

It says whether clusters have one, and which do otherwise. Without the file none has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock

from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import write_atomically

_LOCK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Switches:
    """Whether clusters have a trail, and which, as ``PROJECT/CLUSTER``, have or have none whatever others do."""

    usual: bool = False
    clusters: Mapping[str, bool] = field(default_factory=dict)

    def on(self, owner: str) -> bool:
        """Say whether a cluster has one."""
        return self.clusters.get(owner, self.usual)


class AuditSwitch:
    """The switches in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Switches:
        """Return all switches. Raises InvalidInputError if the file was spoiled."""
        try:
            found = json.loads(self._file.read_text())
            usual, clusters = found["all"], found["clusters"]
        except FileNotFoundError:
            return Switches()
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{self._file} has no switches: {error!r}", hint="delete it") from error
        if not isinstance(clusters, dict) or not all(isinstance(one, bool) for one in (usual, *clusters.values())):
            raise InvalidInputError(f"{self._file} has switches that are neither on nor off", hint="delete it")
        return Switches(usual, clusters)

    def turn(self, owner: str, *, on: bool | None) -> None:
        """Turn a cluster's switch, or with ``None`` let it have what others have. Raises InvalidInputError."""
        with self._locked():
            before = self.read()
            clusters = {name: value for name, value in before.clusters.items() if name != owner}
            self._write(Switches(before.usual, clusters if on is None else {**clusters, owner: on}))

    def turn_usual(self, *, on: bool) -> None:
        """Turn the switch of all clusters that have none of their own. Raises InvalidInputError."""
        with self._locked():
            self._write(Switches(on, self.read().clusters))

    def _locked(self) -> FileLock:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._file.with_suffix(".lock"), timeout=_LOCK_SECONDS)

    def _write(self, switches: Switches) -> None:
        told = {"all": switches.usual, "clusters": dict(sorted(switches.clusters.items()))}
        write_atomically(self._file, json.dumps(told, indent=1) + "\n", mode=0o600)
