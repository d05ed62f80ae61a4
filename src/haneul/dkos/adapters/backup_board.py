"""Catalogues of backups in memory: for trying things out, and for tests."""

from __future__ import annotations

from collections.abc import Sequence

from haneul.dkos.backup.catalogue import Catalogue


class MemoryCatalogues:
    """Catalogues that end with the process."""

    def __init__(self) -> None:
        self._shown: dict[str, Catalogue] = {}

    async def publish(self, catalogue: Catalogue) -> None:
        """Show a catalogue."""
        self._shown[catalogue.uid] = catalogue

    async def of(self, uid: str) -> Catalogue | None:
        """Return a cluster's catalogue."""
        return self._shown.get(uid)

    async def of_project(self, project: str) -> Sequence[Catalogue]:
        """Return all catalogues of a project."""
        return [catalogue for catalogue in self._shown.values() if catalogue.project == project]

    async def withdraw(self, project: str) -> None:
        """Forget the catalogues of a project."""
        for catalogue in await self.of_project(project):
            await self.forget(catalogue.uid)

    async def forget(self, uid: str) -> None:
        """Forget a cluster's catalogue."""
        self._shown.pop(uid, None)
