"""The REST API's route for usage: members see their projects, administrators all.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError, NotFoundError
from haneul.kernel.http import decode_continue, encode_continue
from haneul.usage.accounting import totals
from haneul.usage.model import Usage
from haneul.usage.ports import UsageAccess
from haneul.usage.record import UsageRecord

_AGO: Final = re.compile(r"([0-9]{1,5})([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class UsageBy(StrEnum):
    """What each entry stands for."""

    CLUSTER = "cluster"
    PROJECT = "project"


class UsagePage(BaseModel):
    """A page of usage, by project and cluster, and the time that it is about."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    since: datetime
    until: datetime
    items: list[Usage]
    continue_token: str | None = Field(default=None, alias="continue")


def usage_router(record: UsageRecord, access: UsageAccess, clock: Clock) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["usage"])

    @router.get("/usage", response_model=UsagePage)
    async def show_usage(
        request: Request,
        project: str | None = None,
        since: str = "30d",
        until: str | None = None,
        by: UsageBy = UsageBy.CLUSTER,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_token: Annotated[str | None, Query(alias="continue")] = None,
    ) -> Any:
        visible = await access.visible(request)
        if project is not None and visible is not None and project not in visible:
            raise NotFoundError(f"there is no project named {project}", hint="'haneul project list' shows yours")
        now = clock.now()
        if continue_token is not None:
            first, last, after = _position(decode_continue(continue_token))
        else:
            first, last, after = moment(since, now), now if until is None else moment(until, now), []
        if last < first:
            raise InvalidInputError("the time ends before it begins", hint="let 'since' be before 'until'")
        wanted = visible if project is None else [project]
        spans, days = await record.between(first, last, wanted)
        found = totals(spans, days, since=first, until=last, visible=visible, by_project=by is UsageBy.PROJECT)
        rest = [entry for entry in found if _key(entry) > after]
        page = rest[:limit]
        more = None
        if len(rest) > limit:
            more = encode_continue(json.dumps([first.isoformat(), last.isoformat(), _key(page[-1])]))
        return UsagePage(since=first, until=last, items=page, **{"continue": more})

    return router


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that a text means: so many hours, days or weeks ago (``30d``), or an ISO 8601 date or time."""
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        read = datetime.fromisoformat(text)
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{text!r} is no moment", hint="write so long ago as '12h', '30d' or '4w', or a date such as 2026-11-01"
        ) from error


def _key(entry: Usage) -> list[str]:
    return [entry.project, entry.cluster, entry.uid]


def _position(text: str) -> tuple[datetime, datetime, list[str]]:
    try:
        since, until, after = json.loads(text)
        first, last = datetime.fromisoformat(since), datetime.fromisoformat(until)
        if first.tzinfo is None or last.tzinfo is None or not all(isinstance(part, str) for part in after):
            raise ValueError(text)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(
            "the continue token is of another list", hint="start again from the first page"
        ) from error
    return first, last, after
