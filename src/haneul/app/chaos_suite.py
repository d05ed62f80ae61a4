"""``haneul bench chaos`` put together: the ground, what breaks it, and the run between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from haneul.app.chaos_breaker import PlatformBreaker
from haneul.app.chaos_ground import PROJECT, PlatformGround
from haneul.app.installation import this_host
from haneul.bench.machine import machine_facts
from haneul.chaos.adapters.journal import Journal
from haneul.chaos.outcome import Outcome
from haneul.chaos.plan import Round
from haneul.chaos.run import ChaosRun
from haneul.cli.context import Contexts
from haneul.cli.progress import TerminalProgress
from haneul.components.table import COMPONENTS
from haneul.dkos.model import CLUSTERS, project_namespace
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError
from haneul.kernel.kube import KubeClient

_SHOWN: Final = ("kubernetes", "etcd", "containerd", "cilium")


async def run_chaos_suite(plan: Sequence[Round], beside_others: bool, outcome: Outcome) -> None:
    """Break this host's platform as planned. Raises ConflictError, with nothing changed, if others have clusters."""
    clock = SystemClock()
    installation = await this_host()
    journal = Journal(installation.settings.state / "chaos")
    async with installation.lifecycle.client() as management:
        others = await _others(management)
        if others and not beside_others:
            raise ConflictError(
                f"{others} clusters of other projects run here, and what all clusters share would be broken",
                hint="run it on a platform without them, or with --beside-others",
            )
        outcome.machine |= machine_facts() | {row.name: row.version for row in COMPONENTS if row.name in _SHOWN}
        outcome.machine["other clusters"] = str(others)
        with Contexts.default().client() as client:
            ground = PlatformGround(installation, management=management, client=client, journal=journal, clock=clock)
            breaker = PlatformBreaker(installation, ground, management=management, journal=journal, clock=clock)
            try:
                await ChaosRun(ground, breaker, clock=clock, progress=TerminalProgress()).run(plan, outcome)
            finally:
                await ground.close()


async def _others(management: KubeClient) -> int:
    mine = project_namespace(PROJECT)
    return sum(item["metadata"]["namespace"] != mine for item in await management.list(CLUSTERS))
