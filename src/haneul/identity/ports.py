"""What identity needs of others."""

from __future__ import annotations

from typing import Protocol


class ProjectContents(Protocol):
    """What other products keep in a project."""

    async def of(self, project: str) -> list[str]:
        """Return what is in the project, in words such as "cluster shop"; a project with contents is not deleted."""
        ...

    async def forget(self, project: str) -> None:
        """Remove what was made for the project itself."""
        ...
