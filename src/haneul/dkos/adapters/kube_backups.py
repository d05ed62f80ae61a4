"""The backup worker's face to Kubernetes: its records, which it may read, and the catalogues that it shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from haneul.dkos.adapters.kube_records import follow_records
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.record import (
    NAMESPACE,
    RECORD_LABELS,
    Record,
    Standing,
    catalogue_from,
    config_map_of,
    record_name,
    record_of,
)
from haneul.kernel.kube import CONFIG_MAPS, SECRETS, KubeApiError, KubeClient


class KubeBackups:
    """Records as Secrets and catalogues as ConfigMaps, in the worker's namespace."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def ready(self) -> None:
        """Return if the records can be read. Raises UnavailableError."""
        await self._client.list(SECRETS, NAMESPACE, labels=RECORD_LABELS)

    async def run(self, know: Callable[[Record], Awaitable[None]], forget: Callable[[str], Awaitable[None]]) -> None:
        """Tell of every record and its changes, until cancelled."""
        await follow_records(self._client, NAMESPACE, RECORD_LABELS, read=record_of, know=know, forget=forget)

    async def publish(self, catalogue: Catalogue) -> None:
        """Show a catalogue, but none of a deleted cluster that was withdrawn."""
        manifest, name = config_map_of(catalogue), record_name(catalogue.uid)
        try:
            await self._client.patch(CONFIG_MAPS, name, {"data": manifest["data"]}, NAMESPACE)
        except KubeApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            # Whether it was never there, or withdrawn, the record says: its cluster was deleted before the project was.
            found = await self._client.get(SECRETS, name, NAMESPACE)
            record = None if found is None else record_of(found)
            if record is not None and record.standing is not Standing.DELETED:
                await self._client.apply(CONFIG_MAPS, manifest)

    async def of(self, uid: str) -> Catalogue | None:
        """Return a cluster's catalogue."""
        found = await self._client.get(CONFIG_MAPS, record_name(uid), NAMESPACE)
        return None if found is None else catalogue_from(found)

    async def of_project(self, project: str) -> Sequence[Catalogue]:
        """Return all catalogues of a project."""
        found = await self._client.list(CONFIG_MAPS, NAMESPACE, labels=RECORD_LABELS)
        catalogues = [catalogue for entry in found if (catalogue := catalogue_from(entry)) is not None]
        return [catalogue for catalogue in catalogues if catalogue.project == project]

    async def withdraw(self, project: str) -> None:
        """Delete the catalogues of a project's deleted clusters; the worker deletes what has none."""
        for catalogue in await self.of_project(project):
            await self._client.delete(CONFIG_MAPS, record_name(catalogue.uid), NAMESPACE)

    async def forget(self, uid: str) -> None:
        """Delete a cluster's catalogue, then its record."""
        await self._client.delete(CONFIG_MAPS, record_name(uid), NAMESPACE)
        await self._client.delete(SECRETS, record_name(uid), NAMESPACE)
