"""``/api/v1/inventory``: clusters report which images they run; administrators see which did, and forget them.

A cluster's name begins with its project: who may push there reports for it, with a token for the repository that is
called like the project.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from haneul.d2hub.errors import RequestInvalidError
from haneul.d2hub.exchange import Reply, Request, json_reply
from haneul.d2hub.http_auth import MAINTENANCE, Doorkeeper
from haneul.d2hub.inventory import MOST_SHOWN, Report, Running, Use, parse_cluster, parse_running, shown_to
from haneul.d2hub.model import Action, Grant
from haneul.d2hub.names import project_of
from haneul.d2hub.record_ports import Inventory
from haneul.kernel.clock import Clock
from haneul.kernel.errors import NotFoundError

_LARGEST_REPORT: Final = 8 << 20


class InventoryHttp:
    """Answers for what runs."""

    def __init__(self, inventory: Inventory, door: Doorkeeper, *, clock: Clock) -> None:
        self._inventory, self._door, self._clock = inventory, door, clock

    async def answer(self, request: Request) -> Reply:
        """Find what is asked for and answer. Raises what is refused."""
        match request.method, request.segments[2:]:
            case "GET", ["inventory"]:
                return await self._reports(request)
            case "PUT", ["inventory", project, name]:
                return await self._report(request, parse_cluster(f"{project}/{name}"))
            case "DELETE", ["inventory", project, name]:
                return await self._forget(request, parse_cluster(f"{project}/{name}"))
        raise NotFoundError(f"there is no {request.method} {request.path[:200]}")

    async def users(self, repository: str, digests: Sequence[str], grant: Grant | None) -> dict[str, Any]:
        """Return who runs one of some images of a repository; it is not for those whom nobody knows.

        Administrators see all, others those of the repository's project, and how many there are elsewhere.
        """
        if grant is None or not grant.account:
            return {"usedBy": [], "usedElsewhere": 0}
        uses = await self._inventory.in_use(digests, first=project_of(repository), limit=MOST_SHOWN)
        own, others = (uses, 0) if grant.maintenance else shown_to(project_of(repository), uses)
        return {"usedBy": [_use(use) for use in own], "usedElsewhere": others}

    async def running(self, digests: Sequence[str]) -> frozenset[str]:
        """Return which of some images run anywhere."""
        return await self._inventory.running(digests)

    async def _reports(self, request: Request) -> Reply:
        await self._door.check_registry(request, MAINTENANCE)
        items = [
            {
                "cluster": one.cluster,
                "reporter": one.reporter,
                "reported": one.reported.isoformat(),
                "entries": one.entries,
            }
            for one in await self._inventory.reports()
        ]
        return json_reply(200, {"items": items, "continue": ""})

    async def _report(self, request: Request, cluster: str) -> Reply:
        grant = self._door.check(request, project_of(cluster), Action.PUSH)
        data = await request.read(_LARGEST_REPORT)
        # In a thread: megabytes take long enough for others to notice.
        running = await asyncio.to_thread(_read, data)
        report = Report(cluster, grant.account if grant else "", running)
        await self._inventory.replace(report, now=self._clock.now())
        return json_reply(200, {"cluster": cluster, "entries": len(running)})

    async def _forget(self, request: Request, cluster: str) -> Reply:
        grant = await self._door.check_registry(request, MAINTENANCE)
        now = self._clock.now()
        if not await self._inventory.forget(cluster, now=now, by=grant.account, address=request.address):
            raise NotFoundError(f"no cluster {cluster} has reported", hint="'haneul image clusters' shows which have")
        return Reply(204)


def _read(data: bytes | None) -> frozenset[Running]:
    try:
        document = json.loads(data) if data is not None else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RequestInvalidError("the report is no JSON object, or too large")
    return parse_running(document)


def _use(use: Use) -> dict[str, Any]:
    return {"cluster": use.cluster, **vars(use.running), "reported": use.reported.isoformat()}
