"""What identity does: keeps people, projects, members and tokens.

Every change goes through the audit record, which holds all others back meanwhile.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select, union_all, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity import tables
from haneul.identity.audit import AuditLog
from haneul.identity.guards import an_admin_stays, demand_person, demand_project, keep_an_owner
from haneul.identity.issuer.endings import end_everything
from haneul.identity.memberships import granted_anywhere, memberships, projects_of
from haneul.identity.model import (
    DEFAULT_TOKEN_DAYS,
    LONGEST_NAME,
    MOST_TOKEN_DAYS,
    Caller,
    IssuedToken,
    Member,
    Origin,
    Person,
    PlatformRole,
    Project,
    Reach,
    Role,
    Token,
)
from haneul.identity.rights import effective_role, reaches
from haneul.identity.rows import all_rows, first_row
from haneul.identity.secrets import SecretHasher, new_token
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from haneul.kernel.names import parse_label


class Identity:
    """People, projects and rights, in one database."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditLog, hasher: SecretHasher, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._hasher = hasher
        self._clock = clock

    async def bootstrap_admin(self, *, now: datetime) -> IssuedToken:
        """Return a fresh token of the person ``admin``, who is made if there is nobody of that name yet."""
        issued, row = await self._new_token("admin", "made by 'haneul up'", DEFAULT_TOKEN_DAYS)
        origin = Origin(person="admin", source="host")
        async with self._audit.change(origin, "token.create", f"admin/{issued.token.id}") as connection:
            if await first_row(connection, tables.people, name="admin") is None:
                await connection.execute(
                    insert(tables.people).values(
                        name="admin", display_name="Administrator", email="", disabled=False, created=now
                    )
                )
                await connection.execute(insert(tables.platform_roles).values(person="admin", role=PlatformRole.ADMIN))
            await connection.execute(insert(tables.tokens).values(**row))
        return issued

    async def create_person(self, person: Person, *, origin: Origin) -> Person:
        """Add a person. Raises InvalidInputError for a bad name, ConflictError for a taken one."""
        parse_label(person.name, what="person's name", longest=LONGEST_NAME)
        try:
            async with self._audit.change(origin, "person.create", person.name) as connection:
                await connection.execute(insert(tables.people).values(**person.model_dump(exclude={"platform_roles"})))
                for role in person.platform_roles:
                    await connection.execute(insert(tables.platform_roles).values(person=person.name, role=role))
        except IntegrityError as error:
            raise ConflictError(f"a person named {person.name} exists already", hint="choose another name") from error
        return person

    async def list_people(self) -> list[Person]:
        """Return everybody, by name."""
        held: dict[str, list[PlatformRole]] = {}
        for row in await all_rows(self._engine, select(tables.platform_roles)):
            held.setdefault(row["person"], []).append(PlatformRole(row["role"]))
        rows = await all_rows(self._engine, select(tables.people).order_by("name"))
        return [_person(row, held.get(row["name"], [])) for row in rows]

    async def set_disabled(self, name: str, disabled: bool, *, origin: Origin) -> Person:
        """Let a person in or keep them out; their tokens follow at once."""
        async with self._audit.change(origin, "person.disable" if disabled else "person.enable", name) as connection:
            async with an_admin_stays(connection):
                await connection.execute(
                    update(tables.people).where(tables.people.c.name == name).values(disabled=disabled)
                )
            if disabled:
                await end_everything(connection, name)
            row = await first_row(connection, tables.people, name=name)
            if row is None:
                raise NotFoundError(f"there is no person named {name}", hint="'haneul person list' shows who there is")
            roles = select(tables.platform_roles.c.role).where(tables.platform_roles.c.person == name)
            held = [PlatformRole(role) for role in (await connection.execute(roles)).scalars()]
        return _person(row, held)

    async def create_token(self, person: str, description: str, days: int, *, origin: Origin) -> IssuedToken:
        """Make a token for a person; its secret is in the answer and nowhere else."""
        if not 1 <= days <= MOST_TOKEN_DAYS:
            raise InvalidInputError(f"a token lives 1 to {MOST_TOKEN_DAYS} days, not {days}", hint="choose fewer days")
        issued, row = await self._new_token(person, description, days)
        async with self._audit.change(origin, "token.create", f"{person}/{issued.token.id}") as connection:
            await demand_person(connection, person)
            await connection.execute(insert(tables.tokens).values(**row))
        return issued

    async def list_tokens(self, person: str) -> list[Token]:
        """Return a person's tokens, newest first."""
        query = select(tables.tokens).where(tables.tokens.c.person == person)
        return [_token(row) for row in await all_rows(self._engine, query.order_by(tables.tokens.c.created.desc()))]

    async def revoke_token(self, person: str, identity: str, *, origin: Origin) -> None:
        """Make a person's token void."""
        matches = (tables.tokens.c.id == identity) & (tables.tokens.c.person == person)
        async with self._audit.change(origin, "token.revoke", f"{person}/{identity}") as connection:
            result = await connection.execute(update(tables.tokens).where(matches).values(revoked=True))
            if result.rowcount == 0:
                raise NotFoundError(f"{person} has no token {identity}", hint="'haneul token list' shows them")

    async def create_project(self, name: str, description: str, *, origin: Origin) -> Project:
        """Add a project; its maker is its first owner."""
        parse_label(name, what="project name", longest=LONGEST_NAME)
        now = self._clock.now()
        try:
            async with self._audit.change(origin, "project.create", name, name) as connection:
                await connection.execute(
                    insert(tables.projects).values(name=name, description=description, created=now)
                )
                await connection.execute(
                    insert(tables.members).values(project=name, person=origin.person, role=Role.OWNER)
                )
        except IntegrityError as error:
            raise ConflictError(f"a project named {name} exists already", hint="choose another name") from error
        return Project(name=name, description=description, created=now)

    async def list_projects(self, caller: Caller) -> list[Project]:
        """Return the projects that the caller may see."""
        query = select(tables.projects).order_by(tables.projects.c.name)
        if not caller.admin:
            query = query.where(tables.projects.c.name.in_(projects_of(caller)))
        return [_project(row) for row in await all_rows(self._engine, query)]

    async def memberships(self, caller: Caller) -> tuple[str, ...]:
        """Return the names of the projects that a caller has a role in."""
        return await memberships(self._engine, caller)

    async def created(self, project: str) -> datetime:
        """Return when a project came to be. Raises NotFoundError."""
        async with self._engine.connect() as connection:
            return aware((await demand_project(connection, project))["created"])

    async def delete_project(self, name: str, *, origin: Origin) -> None:
        """Remove a project and its memberships."""
        async with self._audit.change(origin, "project.delete", name, name) as connection:
            await connection.execute(delete(tables.members).where(tables.members.c.project == name))
            await connection.execute(delete(tables.projects).where(tables.projects.c.name == name))

    async def list_members(self, project: str) -> list[Member]:
        """Return a project's members, by name."""
        query = select(tables.members).where(tables.members.c.project == project).order_by(tables.members.c.person)
        return [Member(person=row["person"], role=row["role"]) for row in await all_rows(self._engine, query)]

    async def set_member(self, project: str, person: str, role: Role, *, origin: Origin) -> Member:
        """Give a person a role in a project."""
        async with self._audit.change(origin, "member.set", f"{person}={role}", project) as connection:
            await demand_project(connection, project)
            await demand_person(connection, person)
            await connection.execute(delete(tables.members).where(_member(project, person)))
            await connection.execute(insert(tables.members).values(project=project, person=person, role=role))
            await keep_an_owner(connection, [project])
        return Member(person=person, role=role)

    async def remove_member(self, project: str, person: str, *, origin: Origin) -> None:
        """Take a person out of a project."""
        async with self._audit.change(origin, "member.remove", person, project) as connection:
            await demand_project(connection, project)
            result = await connection.execute(delete(tables.members).where(_member(project, person)))
            if result.rowcount == 0:
                raise NotFoundError(f"{person} is no member of {project}")
            await keep_an_owner(connection, [project])

    async def require(self, caller: Caller, project: str, least: Role) -> Role:
        """Return the caller's role in a project, which an administrator owns like every other.

        Raises NotFoundError for a project that is not there or not the caller's to know of, ForbiddenError for too
        low a role.
        """
        async with self._engine.connect() as connection:
            known = await first_row(connection, tables.projects, name=project)
            granted = [Role(role) for role in (await connection.execute(_granted(caller, project))).scalars()]
        if caller.project == project and caller.project_role is not None:
            granted.append(caller.project_role)
        role = effective_role(granted, admin=caller.admin)
        if known is None or role is None:
            raise NotFoundError(f"there is no project named {project}", hint="'haneul project list' shows yours")
        if not reaches(role, least):
            raise ForbiddenError(
                f"{caller.person} is {role} in {project}; this needs {least}", hint="ask an owner of the project"
            )
        return role

    async def reach(self, caller: Caller) -> Reach:
        """Return the caller's roles in all projects that they have one in, in the order of their names."""
        granted: dict[str, list[Role]] = {}
        for row in await all_rows(self._engine, granted_anywhere(caller.person)):
            granted.setdefault(row["project"], []).append(Role(row["role"]))
        if caller.project_role is not None:
            granted[caller.project] = [caller.project_role]
        best = {project: effective_role(roles) for project, roles in sorted(granted.items())}
        return Reach(caller=caller, roles={project: role for project, role in best.items() if role is not None})

    async def ready(self) -> None:
        """Raise if the database does not answer."""
        async with self._engine.connect() as connection:
            await connection.execute(select(1))

    async def _new_token(self, person: str, description: str, days: int) -> tuple[IssuedToken, dict[str, Any]]:
        """Return a token and its row. Hashing takes long, so it is done before the database is held."""
        identity, secret, text = new_token()
        now = self._clock.now()
        values = {"id": identity, "person": person, "description": description, "created": now}
        values |= {"expires": now + timedelta(days=days), "revoked": False, "last_used": None}
        hashed = await asyncio.to_thread(self._hasher.hash, secret)
        return IssuedToken(token=Token.model_validate(values), secret=text), {**values, "hash": hashed}


def _member(project: str, person: str) -> Any:
    return (tables.members.c.project == project) & (tables.members.c.person == person)


def _granted(caller: Caller, project: str) -> Any:
    """Return a query of the roles that a person has in a project, their own and those of their groups."""
    through = tables.group_roles.join(tables.group_members, tables.group_roles.c.group == tables.group_members.c.group)
    groups = select(tables.group_roles.c.role).select_from(through)
    return union_all(
        select(tables.members.c.role).where(_member(project, caller.person)),
        groups.where((tables.group_roles.c.project == project) & (tables.group_members.c.person == caller.person)),
    )


def _person(row: RowMapping, roles: list[PlatformRole]) -> Person:
    return Person(**{**row, "created": aware(row["created"])}, platform_roles=tuple(sorted(roles)))


def _project(row: RowMapping) -> Project:
    return Project(name=row["name"], description=row["description"], created=aware(row["created"]))


def _token(row: RowMapping) -> Token:
    return Token(
        id=row["id"],
        person=row["person"],
        description=row["description"],
        created=aware(row["created"]),
        expires=aware(row["expires"]),
        last_used=aware(row["last_used"]) if row["last_used"] else None,
        revoked=row["revoked"],
    )
