"""What the image hub has to know of all clusters: whose pods may pull, and which images they run.

By whom a cluster's tokens are signed lies in a file beside the hub from when the cluster first answers until it is
deleted: neither a sleeping nor a dead cluster is asked for anything when a pod of it pulls. What runs is told again and
again, whole; of a sleeping cluster the last report holds, and a deleted one runs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from haneul.app.d2hub_report import reported, tell
from haneul.app.record_worker import Connect
from haneul.app.token_keys import json_web_keys
from haneul.cli.hub import HubClient, HubContext
from haneul.d2hub.workloads import WORKLOAD_USER
from haneul.dkos.cluster_record import ClusterRecord
from haneul.dkos.image_hub import TOKEN_ISSUER
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.files import write_atomically

_log = structlog.get_logger(__name__)
#: Seconds between two reports of a cluster, and after one that failed.
EVERY_SECONDS, AGAIN_SECONDS = 30.0, 5.0
_PRIVATE: Final = 0o600


@dataclass(frozen=True)
class HubSite:
    """The hub: the folder of its clusters, where it serves, whom tokens for it are for, and how to come to it.

    The token in ``token_file`` is another one every now and then.
    """

    folder: Path
    url: str
    audience: str
    authority: Path
    token_file: Path

    def client(self) -> HubClient:
        """Return a client of the hub, with the token as it is now."""
        return HubClient(HubContext(self.url, WORKLOAD_USER, self.authority), self.token_file.read_text().strip())


class HubWork:
    """Tells a hub of each cluster."""

    def __init__(
        self, site: HubSite, connect: Connect, clock: Clock, *, client: Callable[[], HubClient] | None = None
    ) -> None:
        self._site, self._connect, self._clock = site, connect, clock
        self._client = client or site.client

    async def follow(self, record: ClusterRecord) -> None:
        """Have its pods let in, and tell what they run."""
        await self.rest(record)
        if record.access is None:
            return
        async with self._connect(record.access, record.project) as kube:
            while True:
                try:
                    entries = await reported(kube, self._client, record.cluster)
                except HaneulError as error:
                    # The last report holds.
                    _log.warning("no report", cluster=record.uid, code=error.code, why=error.detail)
                    await self._clock.sleep(AGAIN_SECONDS)
                else:
                    _log.debug("reported", cluster=record.uid, entries=entries)
                    await self._clock.sleep(EVERY_SECONDS)

    async def rest(self, record: ClusterRecord) -> None:
        """Have its pods let in."""
        if not record.token_keys:
            return
        document = {
            "project": record.project,
            "cluster": record.name,
            "issuer": TOKEN_ISSUER,
            "audience": self._site.audience,
            "keys": json_web_keys(record.token_keys),
        }
        text = json.dumps(document, indent=2) + "\n"
        await asyncio.to_thread(write_atomically, self._file(record), text, mode=_PRIVATE)

    async def withdraw(self, record: ClusterRecord) -> None:
        """Say that it runs nothing, then have nobody of it let in: reports are for projects with clusters."""
        if not self._file(record).exists():
            return
        await tell((), self._client, record.cluster)
        await asyncio.to_thread(self._file(record).unlink, missing_ok=True)

    def _file(self, record: ClusterRecord) -> Path:
        return self._site.folder / f"{record.uid}.json"
