"""What usage needs of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from starlette.requests import Request

from haneul.usage.model import Sighting


class Sightings(Protocol):
    """Shows all clusters of the platform."""

    async def look(self) -> Sequence[Sighting]:
        """Return every cluster as it is now."""
        ...


class UsageAccess(Protocol):
    """Whose usage a caller may see."""

    async def visible(self, request: Request) -> Mapping[str, datetime] | None:
        """Return the caller's projects, each with the moment since when it exists; None stands for all projects.

        Raises UnauthenticatedError for who is not known.
        """
        ...
