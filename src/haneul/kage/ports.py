"""What Kage needs of others: something that runs Swift's parts, and its API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from haneul.kage.model import Part, Secrets


class Parts(Protocol):
    """Runs Swift's servers and daemons."""

    async def make_rings(self, described: Mapping[str, Any]) -> None:
        """Write rings into the configuration's folder."""
        ...

    async def start(self, parts: Sequence[Part]) -> None:
        """Start those that do not run."""
        ...

    async def ended(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return those that ended since they were started, and that nobody starts again."""
        ...

    async def stop(self, parts: Sequence[Part], *, at_once: bool = False) -> None:
        """End parts and wait for it; ``at_once`` gives them no chance to finish anything."""
        ...

    def said(self, part: Part) -> str:
        """Return the last of what a part said."""
        ...


class StoreApi(Protocol):
    """The store as its owner sees it from outside."""

    async def answers(self) -> bool:
        """Say whether the proxy serves."""
        ...

    async def listens(self, part: Part) -> bool:
        """Say whether a server takes connections."""
        ...

    async def make_bucket(self, name: str, secrets: Secrets) -> None:
        """Make a bucket, or leave it as it is. Raises UnavailableError."""
        ...
