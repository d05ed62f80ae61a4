"""The audit record in the REST API.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.identity.audit import AuditLog
from haneul.identity.gate import Gate
from haneul.identity.model import AuditQuery, AuditRecord, Caller
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.hash_chain import Anchor
from haneul.kernel.http import decode_continue, encode_continue


class AuditPage(BaseModel):
    """A page of the audit record."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    items: list[AuditRecord]
    continue_token: str | None = Field(default=None, alias="continue")


def audit_router(audit: AuditLog, gate: Gate) -> APIRouter:
    """Return the routes of the audit record: all of it for auditors and administrators, a project's for its owners."""
    router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[Depends(gate.refusals)])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    @router.get("")
    async def list_audit(
        caller: signed_in,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_token: Annotated[str | None, Query(alias="continue")] = None,
        order: Literal["newest", "oldest"] = "newest",
        project: str = "",
        person: str = "",
    ) -> AuditPage:
        since = await gate.read_audit(caller, project)
        position = decode_continue(continue_token) if continue_token else ""
        # No longer than the database's numbers.
        if position and not re.fullmatch(r"[0-9]{1,18}", position):
            raise InvalidInputError("the continue token is of another list", hint="start again from the first page")
        query = AuditQuery(
            project=project,
            person=person,
            since=since,
            oldest_first=order == "oldest",
            behind=int(position) if position else None,
            limit=limit + 1,
        )
        items = await audit.list(query)
        page = items[:limit]
        more = encode_continue(str(page[-1].id)) if len(items) > limit else None
        return AuditPage(items=page, **{"continue": more})

    @router.get("/head")
    async def show_audit_head(caller: signed_in) -> Anchor:
        await gate.read_audit(caller, "")
        return await audit.head()

    return router
