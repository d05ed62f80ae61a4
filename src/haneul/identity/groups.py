"""Groups of people, their roles in projects, and platform roles of people and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity import tables
from haneul.identity.audit import AuditLog
from haneul.identity.guards import an_admin_stays, demand_person, demand_project, keep_an_owner, owned_through
from haneul.identity.model import LONGEST_NAME, Group, GroupRole, Origin, PlatformRole, Role
from haneul.identity.rows import all_rows, first_row
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import ConflictError, NotFoundError
from haneul.kernel.names import parse_label


class Groups:
    """Groups in one database."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditLog, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._clock = clock

    async def create(self, name: str, description: str, external: str, *, origin: Origin) -> Group:
        """Add a group; with ``external``, the one of that name at the company's provider."""
        parse_label(name, what="group name", longest=LONGEST_NAME)
        now = self._clock.now()
        row = {"name": name, "description": description, "external": external or None, "created": now}
        try:
            async with self._audit.change(origin, "group.create", name) as connection:
                await connection.execute(insert(tables.groups).values(**row))
        except IntegrityError as error:
            raise ConflictError(
                f"there is a group named {name}, or one for {external!r} already", hint="'haneul group list' shows them"
            ) from error
        return Group(name=name, description=description, external=external, created=now)

    async def list(self) -> Sequence[Group]:
        """Return all groups by name."""
        held: dict[str, list[PlatformRole]] = {}
        for row in await all_rows(self._engine, select(tables.group_platform_roles)):
            held.setdefault(row["group"], []).append(PlatformRole(row["role"]))
        rows = await all_rows(self._engine, select(tables.groups).order_by("name"))
        return [_group(row, held.get(row["name"], [])) for row in rows]

    async def delete(self, name: str, *, origin: Origin) -> None:
        """Remove a group with its roles."""
        async with self._audit.change(origin, "group.delete", name) as connection:
            await _demand_group(connection, name)
            projects = await owned_through(connection, name)
            async with an_admin_stays(connection):
                await connection.execute(delete(tables.groups).where(tables.groups.c.name == name))
            await keep_an_owner(connection, projects)

    async def members(self, name: str) -> Sequence[str]:
        """Return who is in a group, by name."""
        async with self._engine.connect() as connection:
            await _demand_group(connection, name)
            table = tables.group_members
            query = select(table.c.person).where(table.c.group == name).order_by(table.c.person)
            return list((await connection.execute(query)).scalars())

    async def add_member(self, name: str, person: str, *, origin: Origin) -> None:
        """Put a person into a group; again changes nothing."""
        async with self._audit.change(origin, "group-member.set", f"{name}/{person}") as connection:
            _demand_own(await _demand_group(connection, name))
            await demand_person(connection, person)
            await connection.execute(delete(tables.group_members).where(_membership(name, person)))
            await connection.execute(insert(tables.group_members).values(group=name, person=person))

    async def remove_member(self, name: str, person: str, *, origin: Origin) -> None:
        """Take a person out of a group."""
        async with self._audit.change(origin, "group-member.remove", f"{name}/{person}") as connection:
            _demand_own(await _demand_group(connection, name))
            async with an_admin_stays(connection):
                result = await connection.execute(delete(tables.group_members).where(_membership(name, person)))
            if result.rowcount == 0:
                raise NotFoundError(f"{person} is not in the group {name}", hint="'haneul group members' shows who is")
            await keep_an_owner(connection, await owned_through(connection, name))

    async def roles_in(self, project: str) -> Sequence[GroupRole]:
        """Return the groups that have a role in a project."""
        table = tables.group_roles
        query = select(table).where(table.c.project == project).order_by(table.c.group)
        return [GroupRole(group=row["group"], role=row["role"]) for row in await all_rows(self._engine, query)]

    async def set_role(self, project: str, group: str, role: Role, *, origin: Origin) -> GroupRole:
        """Give a group a role in a project."""
        async with self._audit.change(origin, "project-group.set", f"{group}={role}", project) as connection:
            await demand_project(connection, project)
            await _demand_group(connection, group)
            await connection.execute(delete(tables.group_roles).where(_role(project, group)))
            await connection.execute(insert(tables.group_roles).values(project=project, group=group, role=role))
            await keep_an_owner(connection, [project])
        return GroupRole(group=group, role=role)

    async def remove_role(self, project: str, group: str, *, origin: Origin) -> None:
        """Take a group's role in a project away."""
        async with self._audit.change(origin, "project-group.remove", group, project) as connection:
            result = await connection.execute(delete(tables.group_roles).where(_role(project, group)))
            if result.rowcount == 0:
                raise NotFoundError(f"the group {group} has no role in {project}")
            await keep_an_owner(connection, [project])

    async def grant(self, kind: str, name: str, role: PlatformRole, *, origin: Origin) -> None:
        """Give a person or a group (``kind``) a platform role; again changes nothing."""
        table, row = _holder(kind, name, role)
        async with self._audit.change(origin, f"{kind}-role.grant", f"{name}={role}") as connection:
            await (demand_person if kind == "person" else _demand_group)(connection, name)
            await connection.execute(delete(table).where(_equal(table, row)))
            await connection.execute(insert(table).values(**row))

    async def withdraw(self, kind: str, name: str, role: PlatformRole, *, origin: Origin) -> None:
        """Take a platform role away."""
        table, row = _holder(kind, name, role)
        async with self._audit.change(origin, f"{kind}-role.withdraw", f"{name}={role}") as connection:
            async with an_admin_stays(connection):
                result = await connection.execute(delete(table).where(_equal(table, row)))
            if result.rowcount == 0:
                raise NotFoundError(f"the {kind} {name} has not the role {role}")


async def _demand_group(connection: AsyncConnection, name: str) -> RowMapping:
    row = await first_row(connection, tables.groups, name=name)
    if row is None:
        raise NotFoundError(f"there is no group named {name}", hint="'haneul group list' shows them")
    return row


def _demand_own(group: RowMapping) -> None:
    if group["external"] is not None:
        raise ConflictError(
            f"who is in {group['name']} is said by the company's provider", hint="change the group there"
        )


def _group(row: RowMapping, roles: Sequence[PlatformRole]) -> Group:
    values = {**row, "external": row["external"] or "", "created": aware(row["created"])}
    return Group(**values, platform_roles=tuple(sorted(roles)))


def _membership(group: str, person: str) -> Any:
    return (tables.group_members.c.group == group) & (tables.group_members.c.person == person)


def _role(project: str, group: str) -> Any:
    return (tables.group_roles.c.project == project) & (tables.group_roles.c.group == group)


def _holder(kind: str, name: str, role: PlatformRole) -> tuple[Any, dict[str, str]]:
    table = tables.platform_roles if kind == "person" else tables.group_platform_roles
    return table, {kind: name, "role": role}


def _equal(table: Any, row: dict[str, str]) -> Any:
    first, second = row
    return (table.c[first] == row[first]) & (table.c[second] == row[second])
