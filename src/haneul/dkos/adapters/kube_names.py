"""The face of names' controllers to Kubernetes: the records of clusters, which they may read, and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from haneul.dkos.adapters.kube_records import follow_records
from haneul.dkos.name_record import NAMESPACE, RECORD_LABELS, NameRecord, record_name, record_of
from haneul.kernel.kube import SECRETS, KubeClient


class KubeNames:
    """Records as Secrets in the controllers' namespace."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def ready(self) -> None:
        """Return if the records can be read. Raises UnavailableError."""
        await self._client.list(SECRETS, NAMESPACE, labels=RECORD_LABELS)

    async def run(
        self, know: Callable[[NameRecord], Awaitable[None]], forget: Callable[[str], Awaitable[None]]
    ) -> None:
        """Tell of every record and its changes, until cancelled."""
        await follow_records(self._client, NAMESPACE, RECORD_LABELS, read=record_of, know=know, forget=forget)

    async def forget(self, uid: str) -> None:
        """Delete a cluster's record: nothing of it is published any more."""
        await self._client.delete(SECRETS, record_name(uid), NAMESPACE)
