"""Clusters' records, which are Secrets in the namespace of whoever works by them, as they come, change and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from haneul.kernel.kube import SECRETS, KubeClient, Manifest


class OfCluster(Protocol):
    """A record of one cluster."""

    @property
    def uid(self) -> str:
        """Return which cluster it is of."""
        ...


R = TypeVar("R", bound=OfCluster)


async def follow_records(
    client: KubeClient,
    namespace: str,
    labels: str,
    *,
    read: Callable[[Manifest], R | None],
    know: Callable[[R], Awaitable[None]],
    forget: Callable[[str], Awaitable[None]],
) -> None:
    """Tell of every record and its changes, until cancelled; what cannot be read is none."""
    async for event in client.watch(SECRETS, namespace, labels=labels):
        record = read(event.object)
        if record is None:
            continue
        if event.type == "DELETED":
            await forget(record.uid)
        else:
            await know(record)
