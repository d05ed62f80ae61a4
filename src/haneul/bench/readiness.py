"""Asking an API server from outside whether it is ready, often enough to take its time."""

from __future__ import annotations

import asyncio

from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeClient
from haneul.kernel.waiting import wait_for

#: Between two questions, in seconds: the error of what is measured.
INTERVAL = 0.05
# Where nothing listens yet, packets may be dropped; then a new connection is better than waiting for this one.
_CALL_SECONDS = 1.0


async def wait_ready(client: KubeClient, *, what: str, timeout: float, clock: Clock) -> None:  # noqa: ASYNC109 - as wait_for
    """Return at the first success of ``/readyz``, over TLS that is verified. Raises DeadlineExceededError."""

    async def ready() -> bool:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await client.raw_get("/readyz")
        except (HaneulError, TimeoutError):
            return False
        return True

    await wait_for(ready, what=what, timeout=timeout, clock=clock, interval=INTERVAL, max_interval=INTERVAL)
