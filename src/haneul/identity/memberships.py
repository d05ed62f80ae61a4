"""In which projects somebody has any role: their own, through a group, or as the project's robot."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity import tables
from haneul.identity.model import Caller


def projects_of(caller: Caller) -> Any:
    """Return a query of the projects that a caller has any role in; some may come twice."""
    through = tables.group_roles.join(tables.group_members, tables.group_roles.c.group == tables.group_members.c.group)
    groups = select(tables.group_roles.c.project).select_from(through)
    return union_all(
        select(tables.members.c.project).where(tables.members.c.person == caller.person),
        groups.where(tables.group_members.c.person == caller.person),
        select(tables.robots.c.project).where(tables.robots.c.project == caller.project),
    )


async def memberships(engine: AsyncEngine, caller: Caller) -> tuple[str, ...]:
    """Return the names of those projects, sorted. That an administrator owns every project makes nobody a member."""
    async with engine.connect() as connection:
        found = await connection.execute(projects_of(caller))
        return tuple(sorted(set(found.scalars())))
