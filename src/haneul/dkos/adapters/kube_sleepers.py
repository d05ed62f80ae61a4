"""The waker's face to Kubernetes: the records of sleeping clusters, which it may read, and in which it may note."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from haneul.dkos.door import SLEEPER_LABELS, WAKER_NAMESPACE, Sleeper, record_name, request_patch, sleeper_of
from haneul.kernel.clock import Clock
from haneul.kernel.kube import CONFIG_MAPS, KubeClient


class KubeSleepers:
    """Sleeping clusters as ConfigMaps in the waker's namespace."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def ready(self) -> None:
        """Return if the records can be read. Raises UnavailableError."""
        await self._client.list(CONFIG_MAPS, WAKER_NAMESPACE, labels=SLEEPER_LABELS)

    async def request(self, uid: str) -> None:
        """Note that a cluster is asked for; the operator sees it."""
        patch = request_patch(self._clock.now().isoformat())
        await self._client.patch(CONFIG_MAPS, record_name(uid), patch, WAKER_NAMESPACE)

    async def run(self, know: Callable[[Sleeper], Awaitable[None]], forget: Callable[[str], Awaitable[None]]) -> None:
        """Tell of every sleeping cluster and its changes, until cancelled."""
        async for event in self._client.watch(CONFIG_MAPS, WAKER_NAMESPACE, labels=SLEEPER_LABELS):
            sleeper = sleeper_of(event.object)
            if sleeper is None:
                continue
            if event.type == "DELETED":
                await forget(sleeper.uid)
            else:
                await know(sleeper)
