"""The face of a reader to Kubernetes: the records of clusters in its namespace, which it may read, and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from haneul.dkos.adapters.kube_records import follow_records
from haneul.dkos.cluster_record import TROUBLE, ClusterRecord, record_of
from haneul.dkos.readers import Reader
from haneul.kernel.kube import SECRETS, KubeClient


class KubeRecords:
    """A reader's records, as Secrets."""

    def __init__(self, client: KubeClient, reader: Reader) -> None:
        self._client = client
        self._reader = reader

    async def ready(self) -> None:
        """Return if the records can be read. Raises UnavailableError."""
        await self._client.list(SECRETS, self._reader.name, labels=self._reader.record_labels)

    async def run(
        self, know: Callable[[ClusterRecord], Awaitable[None]], forget: Callable[[str], Awaitable[None]]
    ) -> None:
        """Tell of every record and its changes, until cancelled."""
        reader = self._reader
        await follow_records(self._client, reader.name, reader.record_labels, read=record_of, know=know, forget=forget)

    async def tell(self, uid: str, trouble: str) -> None:
        """Write down with a cluster's record why nothing more is done for it, or that there is no reason any more."""
        patch = {"metadata": {"annotations": {TROUBLE: trouble or None}}}
        await self._client.patch(SECRETS, self._reader.record_name(uid), patch, self._reader.name)

    async def forget(self, uid: str) -> None:
        """Delete a cluster's record: nothing that was made for it is left."""
        await self._client.delete(SECRETS, self._reader.record_name(uid), self._reader.name)
