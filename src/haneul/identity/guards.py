"""What must stay so whatever changes: every project has an owner, the platform an administrator.

Groups whose members the company's provider decides do not count: nothing here could stop it from emptying one. Changes
come one after the other (:mod:`haneul.identity.audit`), so what is checked at a change's end is still so when it is
written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import RowMapping, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from haneul.identity import tables
from haneul.identity.model import PlatformRole, Role
from haneul.identity.rows import first_row
from haneul.kernel.errors import ConflictError, NotFoundError


async def keep_an_owner(connection: AsyncConnection, projects: Iterable[str]) -> None:
    """Raise ConflictError for a project without an owner: nobody but administrators could manage it."""
    members, group_roles = tables.members, tables.group_roles
    for project in projects:
        direct = select(members.c.person).where((members.c.project == project) & (members.c.role == Role.OWNER))
        through = _own_group_members().join(group_roles, group_roles.c.group == tables.groups.c.name)
        through = through.where((group_roles.c.project == project) & (group_roles.c.role == Role.OWNER))
        if (await connection.execute(union_all(direct, through).limit(1))).first() is None:
            raise ConflictError(f"{project} would be left without an owner", hint="make somebody else an owner first")


@asynccontextmanager
async def an_admin_stays(connection: AsyncConnection) -> AsyncIterator[None]:
    """Raise ConflictError if what is done meanwhile takes away the last administrator who may sign in."""
    before = await _has_admin(connection)
    yield
    if before and not await _has_admin(connection):
        raise ConflictError(
            "the platform would be left without an administrator", hint="make somebody else an administrator first"
        )


async def demand_project(connection: AsyncConnection, project: str) -> RowMapping:
    """Return a project's row. Raises NotFoundError."""
    row = await first_row(connection, tables.projects, name=project)
    if row is None:
        raise NotFoundError(f"there is no project named {project}", hint="'haneul project list' shows yours")
    return row


async def demand_person(connection: AsyncConnection, name: str) -> RowMapping:
    """Return a person's row. Raises NotFoundError."""
    row = await first_row(connection, tables.people, name=name)
    if row is None:
        raise NotFoundError(f"there is no person named {name}", hint="'haneul person list' shows who there is")
    return row


async def owned_through(connection: AsyncConnection, group: str) -> list[str]:
    """Return the projects that a group is an owner of."""
    table = tables.group_roles
    query = select(table.c.project).where((table.c.group == group) & (table.c.role == Role.OWNER))
    return list((await connection.execute(query)).scalars())


async def _has_admin(connection: AsyncConnection) -> bool:
    roles, group_roles, people = tables.platform_roles, tables.group_platform_roles, tables.people
    direct = select(roles.c.person).join(people).where((roles.c.role == PlatformRole.ADMIN) & ~people.c.disabled)
    through = _own_group_members().join(group_roles, group_roles.c.group == tables.groups.c.name)
    through = through.join(people, people.c.name == tables.group_members.c.person)
    through = through.where((group_roles.c.role == PlatformRole.ADMIN) & ~people.c.disabled)
    return (await connection.execute(union_all(direct, through).limit(1))).first() is not None


def _own_group_members() -> Any:
    """Return a query of the people in groups that are kept here."""
    join = tables.group_members.join(tables.groups, tables.group_members.c.group == tables.groups.c.name)
    return select(tables.group_members.c.person).select_from(join).where(tables.groups.c.external.is_(None))
