"""Looks in memory."""

from __future__ import annotations

from collections.abc import Mapping

from haneul.compliance.model import Look


class MemoryLooks:
    """Keeps looks as long as the process lives."""

    def __init__(self) -> None:
        self._looks: dict[str, Look] = {}

    async def write(self, namespace: str, labels: Mapping[str, str], look: Look) -> None:
        """Keep a look."""
        self._looks[namespace] = look

    async def read(self, namespace: str) -> Look | None:
        """Return the look."""
        return self._looks.get(namespace)
