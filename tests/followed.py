"""A cluster in memory for the tests of what follows one, and the wait for what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import NAMESPACES, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.waiting import wait_for


async def until(probe: Callable[[], bool | Awaitable[Any]], what: str) -> None:
    """Wait until a probe says something true, at once or after asking."""

    async def seen() -> bool:
        found = probe()
        return bool(found if isinstance(found, bool) else await found)

    await wait_for(seen, what=what, timeout=60, clock=SystemClock(), interval=0.005, max_interval=0.02)


class FollowedCluster(MemoryKubeClient):
    """A cluster whose lists may fail; it counts how often somebody began to look at it whole."""

    away = False
    looks = 0

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        self.looks += resource == NAMESPACES
        return await super().get(resource, name, namespace)

    async def looked_at_again(self) -> None:
        """Wait until the third look from now on began, so that at least one was whole."""
        wanted = self.looks + 3
        await until(lambda: self.looks >= wanted, "the cluster to be looked at again")

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        if self.away:
            raise UnavailableError("the API does not answer")
        return await super().list(resource, namespace, labels=labels, fields=fields)

    async def with_namespaces(self) -> None:
        """Have what every cluster has, and the namespace of what the tests make."""
        for name in ("kube-system", "shop"):
            await self.apply(NAMESPACES, {"metadata": {"name": name}})
