"""The REST API's routes of the firewall gate.

A decision is about one request and repeats its address and resource; there is no route for several at once. Annotations
are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.firewall.model import Actor, Decision, FirewallRequest, State
from haneul.firewall.ports import FirewallAccess
from haneul.firewall.service import FirewallService
from haneul.kernel.errors import InvalidInputError, NotFoundError
from haneul.kernel.http import decode_continue, encode_continue

_COLUMNS: Final = (
    "source",
    "destinations",
    "ports",
    "resource",
    "project",
    "cluster",
    "pool",
    "node",
    "approver",
    "approved",
)


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewDecision(_Body):
    """A decision on one request: its address and resource once more, word for word, and why."""

    address: str = Field(max_length=64)
    resource: str = Field(max_length=64)
    why: str = Field(min_length=1, max_length=1000)


class FirewallRequests(_Body):
    """A page of requests, by project, cluster and node."""

    items: list[FirewallRequest]
    continue_token: str | None = Field(default=None, alias="continue")


class FirewallHistory(_Body):
    """A page of decisions, newest first."""

    items: list[Decision]
    continue_token: str | None = Field(default=None, alias="continue")


class ExportFormat(StrEnum):
    """How approved ways are exported."""

    JSON = "json"
    CSV = "csv"


def firewall_router(service: FirewallService, access: FirewallAccess) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/firewall", tags=["firewall"])

    # As a dependency: who may not is told so before what else is wrong with the request.
    async def visible(request: Request) -> Sequence[str] | None:
        return await access.visible(request)

    async def approver(request: Request) -> Actor:
        return await access.approver(request)

    may_see = Annotated[Sequence[str] | None, Depends(visible)]

    async def seen(visible: may_see, project: str | None = None) -> Sequence[str] | None:
        if project is None:
            return visible
        if visible is not None and project not in visible:
            raise NotFoundError(f"there is no project named {project}", hint="'haneul project list' shows yours")
        return [project]

    projects = Annotated[Sequence[str] | None, Depends(seen)]

    @router.get("/requests")
    async def list_firewall_requests(
        visible: projects,
        state: State | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_token: Annotated[str | None, Query(alias="continue")] = None,
    ) -> FirewallRequests:
        found = [one for one in await service.requests(visible) if state in (None, one.state)]
        start = _number(continue_token) if continue_token else 0
        more = encode_continue(str(start + limit)) if len(found) > start + limit else None
        return FirewallRequests(items=found[start : start + limit], **{"continue": more})

    @router.get("/requests/{identity}")
    async def get_firewall_request(identity: str, visible: may_see) -> FirewallRequest:
        return await service.request(identity, visible)

    def decision(verb: str, decide: Callable[..., Awaitable[FirewallRequest]]) -> None:
        async def decide_firewall_request(
            identity: str, body: NewDecision, actor: Annotated[Actor, Depends(approver)]
        ) -> FirewallRequest:
            return await decide(actor, identity, address=body.address, resource=body.resource, why=body.why)

        router.add_api_route(
            f"/requests/{{identity}}/{verb}", decide_firewall_request, methods=["POST"], name=f"{verb}_firewall"
        )

    decision("approve", service.approve)
    decision("deny", service.deny)
    decision("revoke", service.revoke)

    @router.get("/history")
    async def list_firewall_history(
        visible: projects,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_token: Annotated[str | None, Query(alias="continue")] = None,
    ) -> FirewallHistory:
        before = _number(continue_token) if continue_token else None
        found = await service.history(visible, before=before, limit=limit + 1)
        page = found[:limit]
        more = encode_continue(str(page[-1].number)) if len(found) > limit else None
        return FirewallHistory(items=page, **{"continue": more})

    @router.get("/export", response_model=list[FirewallRequest])
    async def export_firewall(
        visible: projects,
        form: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.JSON,
    ) -> Any:
        approved = [one for one in await service.requests(visible) if one.state is State.APPROVED]
        return Response(as_csv(approved), media_type="text/csv") if form is ExportFormat.CSV else approved

    return router


def as_csv(approved: Sequence[FirewallRequest]) -> str:
    """Return approved ways for the team of a firewall that is managed elsewhere (RFC 4180).

    Every value is a name, an address or a moment: nothing that people wrote, which a spreadsheet might take for a
    formula.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for one in approved:
        way, resource = one.way, one.way.resource
        where = (way.project, way.cluster, way.pool, way.node)
        writer.writerow(
            [
                way.address,
                " ".join(resource.addresses),
                " ".join(resource.ports),
                resource.name,
                *where,
                one.decided_by,
                one.decided.isoformat() if one.decided else "",
            ]
        )
    return out.getvalue()


def _number(token: str) -> int:
    text = decode_continue(token)
    if not text.isdecimal() or len(text) > 18:
        raise InvalidInputError("the continue token is of another list", hint="start again from the first page")
    return int(text)
