"""The names of all clusters: each one's are followed, and what a deleted one had is withdrawn.

What all share is the DNS server, which does one batch after the other.
"""

from __future__ import annotations

import structlog

from haneul.app.record_worker import Connect
from haneul.dkos.cluster_record import ClusterRecord
from haneul.dns.controller import ClusterController, Pace
from haneul.dns.metrics import Metrics
from haneul.dns.model import ClusterDomain, absolute
from haneul.dns.ports import DnsProvider
from haneul.dns.withdrawal import withdraw
from haneul.kernel.clock import Clock

_log = structlog.get_logger(__name__)


class NameWork:
    """Publishes a cluster's names."""

    def __init__(
        self, provider: DnsProvider, metrics: Metrics, connect: Connect, clock: Clock, *, pace: Pace | None = None
    ) -> None:
        self._provider = provider
        self._connect = connect
        self._clock = clock
        self._pace = pace
        self._metrics = metrics

    async def follow(self, record: ClusterRecord) -> None:
        """Publish what the cluster says."""
        if record.access is None:
            return
        domain = ClusterDomain(absolute(record.domain), networks=record.networks)
        async with self._connect(record.access, record.project) as client:
            controller = ClusterController(
                client,
                self._provider,
                record.owner,
                domain,
                clock=self._clock,
                pace=self._pace,
                figures=self._metrics.of(record.owner),
            )
            _log.info("names are followed", cluster=record.uid, domain=domain.name)
            await controller.run()

    async def rest(self, record: ClusterRecord) -> None:
        """Leave names as they are."""

    async def withdraw(self, record: ClusterRecord) -> None:
        """Take a deleted cluster's names away, whichever of its own ids they were published under."""
        # A batch whose answer was lost may be done after the first look.
        while count := await withdraw(self._provider, lambda owner: owner.startswith(f"{record.owner}/")):
            _log.info("names are withdrawn", cluster=record.uid, sets=count)
