"""What identity needs of others."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class ProjectContents(Protocol):
    """What other products keep in a project."""

    def closed(self, project: str) -> AbstractAsyncContextManager[list[str]]:
        """Let nothing be added to the project as long as the context lasts.

        Yields what is in it, in words such as "cluster shop"; a project with contents is not deleted. Raises
        ConflictError while something is being added.
        """
        ...
