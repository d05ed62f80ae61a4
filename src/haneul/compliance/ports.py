"""What the benchmark needs of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from starlette.requests import Request

from haneul.compliance.model import Look, Report


class LookStore(Protocol):
    """Keeps the last look at each cluster, by the namespace of its masters."""

    async def write(self, namespace: str, labels: Mapping[str, str], look: Look) -> None:
        """Keep a look instead of the one before; ``labels`` mark whose it is."""
        ...

    async def read(self, namespace: str) -> Look | None:
        """Return the last look; None if there is none, or not yet the right to read it."""
        ...


class Examinations(Protocol):
    """Has clusters examined; both methods raise NotFoundError for a cluster that is not there."""

    async def ask(self, project: str, name: str) -> str:
        """Ask for an examination; return the request, which the report of it names. Raises ConflictError if asleep."""
        ...

    async def report(self, project: str, name: str) -> Report | None:
        """Return the last report; None before the first."""
        ...


class ExaminationAccess(Protocol):
    """Who may have a project's clusters examined."""

    async def look(self, request: Request, project: str) -> None:
        """Let through who may see the project."""
        ...
