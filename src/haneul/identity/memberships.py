"""In which projects somebody has any role: their own, through a group, or as the project's robot."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity import tables
from haneul.identity.model import Caller


def granted_anywhere(person: str) -> Any:
    """Return a query of the projects that a person has a role in and of these roles, their own and their groups'."""
    through = tables.group_roles.join(tables.group_members, tables.group_roles.c.group == tables.group_members.c.group)
    groups = select(tables.group_roles.c.project, tables.group_roles.c.role).select_from(through)
    return union_all(
        select(tables.members.c.project, tables.members.c.role).where(tables.members.c.person == person),
        groups.where(tables.group_members.c.person == person),
    )


def projects_of(caller: Caller) -> Any:
    """Return a query of the projects that a caller has any role in; some may come twice."""
    granted = granted_anywhere(caller.person).subquery()
    return union_all(
        select(granted.c.project),
        select(tables.robots.c.project).where(tables.robots.c.project == caller.project),
    )


async def memberships(engine: AsyncEngine, caller: Caller) -> tuple[str, ...]:
    """Return the names of those projects, sorted. That an administrator owns every project makes nobody a member."""
    async with engine.connect() as connection:
        found = await connection.execute(projects_of(caller))
        return tuple(sorted(set(found.scalars())))
