"""``/api/v1/audit`` and ``/api/v1/deliveries``: what happened in a project, and who was told. For its owners.

The token is one that allows ``delete`` in the repository that is called like the project: owners and administrators
get it, nobody else.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from haneul.d2hub.deliveries import Delivery, DeliveryState
from haneul.d2hub.errors import RequestInvalidError
from haneul.d2hub.exchange import Reply, Request, json_reply
from haneul.d2hub.happenings import AuditEntry
from haneul.d2hub.http_auth import Doorkeeper
from haneul.d2hub.model import Action
from haneul.d2hub.names import parse_repository, project_of
from haneul.d2hub.ports import Catalog
from haneul.d2hub.receivers import shown
from haneul.d2hub.record_ports import Audit, Outbox, Span
from haneul.d2hub.rules import ProjectRules, Rules
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, ForbiddenError, NotFoundError

_PAGE: Final = 200


class RecordsHttp:
    """Answers for records."""

    def __init__(
        self, audit: Audit, outbox: Outbox, catalog: Catalog, rules: Rules, door: Doorkeeper, *, clock: Clock
    ) -> None:
        self._audit, self._outbox, self._door, self._clock = audit, outbox, door, clock
        self._catalog, self._rules = catalog, rules

    async def answer(self, request: Request) -> Reply:
        """Find what is asked for and answer. Raises what is refused."""
        match request.method, request.segments[2:]:
            case "GET", ["audit"]:
                return await self._entries(request)
            case "GET", ["deliveries"]:
                return await self._deliveries(request)
            case "POST", ["deliveries", number, "redeliver"]:
                return await self._again(request, number)
        raise NotFoundError(f"there is no {request.method} {request.path[:200]}")

    async def _entries(self, request: Request) -> Reply:
        project = self._project(request)
        span = Span(_moment(request, "since"), _moment(request, "until"))
        after = request.parameter("continue")
        found, more = await self._audit.entries(project, span, before=after, limit=_PAGE)
        if not found and not after:
            await self._check_exists(project)
        return json_reply(200, {"items": [_entry(entry) for entry in found], "continue": more})

    async def _deliveries(self, request: Request) -> Reply:
        project = self._project(request)
        state = request.parameter("state")
        if state and state not in list(DeliveryState):
            raise RequestInvalidError(f"state={state[:40]!r} is none", hint=f"of {', '.join(DeliveryState)}")
        before = _number(request.parameter("continue") or "0")
        found = await self._outbox.listed(
            project, state=DeliveryState(state) if state else None, before=before, limit=_PAGE
        )
        if not found and not before:
            await self._check_exists(project)
        more = str(found[-1].number) if len(found) == _PAGE else ""
        return json_reply(200, {"items": [_delivery(delivery) for delivery in found], "continue": more})

    async def _again(self, request: Request, text: str) -> Reply:
        project, number = self._project(request), _number(text)
        if not await self._outbox.again(project, number, now=self._clock.now()):
            if waiting := await self._waiting(project, number):
                raise ConflictError(
                    f"{text[:20]} waits: {waiting}", hint="it is tried by itself; no need to ask for it"
                )
            raise NotFoundError(
                f"{project} has no failed delivery {text[:20]}", hint="'haneul image deliveries' shows them"
            )
        return json_reply(202, {"id": text, "state": str(DeliveryState.WAITING)})

    def _project(self, request: Request) -> str:
        project = project_of(parse_repository(request.parameter("project")))
        try:
            self._door.check(request, project, Action.DELETE)
        except ForbiddenError as error:
            raise ForbiddenError(
                f"only an owner of the project {project}, or an administrator, may do that",
                hint="ask one of them; roles are under 'projects' of a user in DATA/accounts.yaml",
            ) from error
        return project

    async def _waiting(self, project: str, number: int) -> str:
        """Return when a delivery that waits is tried, or for which it waits; "" if it does not wait."""
        page = await self._outbox.listed(project, state=DeliveryState.WAITING, before=number + 1, limit=_PAGE)
        if not page or page[0].number != number:
            return ""
        first = asked = page[0]
        while page:
            same = [one for one in page if (one.receiver, one.repository) == (asked.receiver, asked.repository)]
            first = same[-1] if same else first
            page = await self._outbox.listed(project, state=DeliveryState.WAITING, before=page[-1].number, limit=_PAGE)
        due = f"{first.due:%Y-%m-%d %H:%M:%S} UTC"
        return f"for {first.number}, which is tried at {due}" if first is not asked else f"it is tried at {due}"

    async def _check_exists(self, project: str) -> None:
        """Raise NotFoundError if nobody has pushed to a project or made rules for it."""
        if self._rules.rules(project) == ProjectRules() and project not in await self._catalog.projects():
            raise NotFoundError(
                f"there is no project {project}", hint="'haneul image usage' shows those that you may see"
            )


def _entry(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": entry.at.isoformat(),
        "action": str(entry.happening),
        "repository": entry.repository,
        "tag": entry.reference,
        "digest": entry.digest,
        "account": entry.account,
        "address": entry.address,
        "result": entry.result,
        "weight": entry.weight,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    waits = delivery.state is DeliveryState.WAITING
    return {
        "id": str(delivery.number),
        "event": delivery.identity,
        "repository": delivery.repository,
        "receiver": shown(delivery.receiver),
        "state": str(delivery.state),
        "attempts": delivery.attempts,
        "answer": delivery.answer,
        "created": delivery.created.isoformat(),
        "due": delivery.due.isoformat() if waits else None,
        "ended": delivery.ended.isoformat() if delivery.ended else None,
    }


def _moment(request: Request, name: str) -> datetime | None:
    text = request.parameter(name)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestInvalidError(f"{name}={text[:40]!r} is no moment", hint="such as 2026-11-27T09:00:00Z") from error
    if found.tzinfo is None:
        raise RequestInvalidError(f"{name} has no time zone", hint="such as 2026-11-27T09:00:00Z")
    return found.astimezone(UTC)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise RequestInvalidError(f"{text[:40]!r} is no number of a delivery")
    return int(text)
