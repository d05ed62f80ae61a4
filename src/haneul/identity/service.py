"""What identity does: signs callers in, keeps people, projects, members and tokens, and records every change.

A change of identity's own and its audit record are written in one transaction: there is never one without the other.
What other products change is recorded when it was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity import tables
from haneul.identity.model import (
    DEFAULT_TOKEN_DAYS,
    LONGEST_NAME,
    MOST_TOKEN_DAYS,
    AuditRecord,
    Caller,
    IssuedToken,
    Member,
    Origin,
    Person,
    Project,
    Role,
    Token,
)
from haneul.identity.secrets import SecretHasher, new_token, split_token
from haneul.kernel.clock import Clock
from haneul.kernel.database import writing
from haneul.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
)
from haneul.kernel.names import parse_label

_RANK = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}
_LAST_USED_EVERY = timedelta(minutes=1)


class Identity:
    """People, projects and rights, in one database."""

    def __init__(self, engine: AsyncEngine, *, hasher: SecretHasher, clock: Clock) -> None:
        self._engine = engine
        self._hasher = hasher
        self._clock = clock

    async def authenticate(self, token: str) -> Caller:
        """Return who holds ``token``. Raises UnauthenticatedError; the reason is the same for every cause."""
        identity, secret = split_token(token)
        query = select(tables.tokens, tables.people.c.admin, tables.people.c.disabled).join(tables.people)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query.where(tables.tokens.c.id == identity))).mappings().first()
        now = self._clock.now()
        # The secret is checked in any case, so that time does not tell one cause from another either.
        matches = await asyncio.to_thread(self._hasher.matches, None if row is None else row["hash"], secret)
        if row is None or not matches or row["revoked"] or row["disabled"] or _aware(row["expires"]) <= now:
            raise UnauthenticatedError(
                "the token is unknown, expired or revoked",
                hint="ask an administrator for a new token, then 'haneul login'",
            )
        if row["last_used"] is None or now - _aware(row["last_used"]) > _LAST_USED_EVERY:
            async with writing(self._engine) as connection:
                await connection.execute(
                    update(tables.tokens).where(tables.tokens.c.id == identity).values(last_used=now)
                )
        return Caller(person=row["person"], admin=row["admin"], token_id=identity)

    async def bootstrap_admin(self, *, now: datetime) -> IssuedToken:
        """Return a fresh token of the person ``admin``, who is made if there is nobody of that name yet."""
        issued, row = await self._new_token("admin", "made by 'haneul up'", DEFAULT_TOKEN_DAYS)
        origin = Origin(person="admin", source="host")
        async with self._change(origin, "token.create", f"admin/{issued.token.id}") as connection:
            if await _row(connection, tables.people, name="admin") is None:
                await connection.execute(
                    insert(tables.people).values(
                        name="admin", display_name="Administrator", email="", admin=True, disabled=False, created=now
                    )
                )
            await connection.execute(insert(tables.tokens).values(**row))
        return issued

    async def create_person(self, person: Person, *, origin: Origin) -> Person:
        """Add a person. Raises InvalidInputError for a bad name, ConflictError for a taken one."""
        parse_label(person.name, what="person's name", longest=LONGEST_NAME)
        try:
            async with self._change(origin, "person.create", person.name) as connection:
                await connection.execute(insert(tables.people).values(**person.model_dump()))
        except IntegrityError as error:
            raise ConflictError(f"a person named {person.name} exists already", hint="choose another name") from error
        return person

    async def list_people(self) -> list[Person]:
        """Return everybody, by name."""
        return [Person(**_person(row)) for row in await self._rows(select(tables.people).order_by("name"))]

    async def set_disabled(self, name: str, disabled: bool, *, origin: Origin) -> Person:
        """Let a person in or keep them out; their tokens follow at once."""
        async with self._change(origin, "person.disable" if disabled else "person.enable", name) as connection:
            await connection.execute(
                update(tables.people).where(tables.people.c.name == name).values(disabled=disabled)
            )
            row = await _row(connection, tables.people, name=name)
            if row is None:
                raise NotFoundError(f"there is no person named {name}", hint="'haneul person list' shows who there is")
        return Person(**_person(row))

    async def create_token(self, person: str, description: str, days: int, *, origin: Origin) -> IssuedToken:
        """Make a token for a person; its secret is in the answer and nowhere else."""
        if not 1 <= days <= MOST_TOKEN_DAYS:
            raise InvalidInputError(f"a token lives 1 to {MOST_TOKEN_DAYS} days, not {days}", hint="choose fewer days")
        issued, row = await self._new_token(person, description, days)
        async with self._change(origin, "token.create", f"{person}/{issued.token.id}") as connection:
            if await _row(connection, tables.people, name=person) is None:
                raise NotFoundError(f"there is no person named {person}")
            await connection.execute(insert(tables.tokens).values(**row))
        return issued

    async def list_tokens(self, person: str) -> list[Token]:
        """Return a person's tokens, newest first."""
        query = select(tables.tokens).where(tables.tokens.c.person == person)
        return [_token(row) for row in await self._rows(query.order_by(tables.tokens.c.created.desc()))]

    async def revoke_token(self, person: str, identity: str, *, origin: Origin) -> None:
        """Make a person's token void."""
        matches = (tables.tokens.c.id == identity) & (tables.tokens.c.person == person)
        async with self._change(origin, "token.revoke", f"{person}/{identity}") as connection:
            result = await connection.execute(update(tables.tokens).where(matches).values(revoked=True))
            if result.rowcount == 0:
                raise NotFoundError(f"{person} has no token {identity}", hint="'haneul token list' shows them")

    async def create_project(self, name: str, description: str, *, origin: Origin) -> Project:
        """Add a project; its maker is its first owner."""
        parse_label(name, what="project name", longest=LONGEST_NAME)
        now = self._clock.now()
        try:
            async with self._change(origin, "project.create", name, name) as connection:
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
            query = query.join(tables.members).where(tables.members.c.person == caller.person)
        return [_project(row) for row in await self._rows(query)]

    async def delete_project(self, name: str, *, origin: Origin) -> None:
        """Remove a project and its memberships."""
        async with self._change(origin, "project.delete", name, name) as connection:
            await connection.execute(delete(tables.members).where(tables.members.c.project == name))
            await connection.execute(delete(tables.projects).where(tables.projects.c.name == name))

    async def list_members(self, project: str) -> list[Member]:
        """Return a project's members, by name."""
        query = select(tables.members).where(tables.members.c.project == project).order_by(tables.members.c.person)
        return [Member(person=row["person"], role=row["role"]) for row in await self._rows(query)]

    async def set_member(self, project: str, person: str, role: Role, *, origin: Origin) -> Member:
        """Give a person a role in a project."""
        async with self._change(origin, "member.set", f"{person}={role}", project) as connection:
            await _hold(connection, project)
            if await _row(connection, tables.people, name=person) is None:
                raise NotFoundError(f"there is no person named {person}", hint="'haneul person create' adds one")
            await connection.execute(delete(tables.members).where(_member(project, person)))
            await connection.execute(insert(tables.members).values(project=project, person=person, role=role))
            await _keep_an_owner(connection, project)
        return Member(person=person, role=role)

    async def remove_member(self, project: str, person: str, *, origin: Origin) -> None:
        """Take a person out of a project."""
        async with self._change(origin, "member.remove", person, project) as connection:
            await _hold(connection, project)
            result = await connection.execute(delete(tables.members).where(_member(project, person)))
            if result.rowcount == 0:
                raise NotFoundError(f"{person} is no member of {project}")
            await _keep_an_owner(connection, project)

    async def require(self, caller: Caller, project: str, least: Role) -> Role:
        """Return the caller's role in a project, which an administrator owns like every other.

        Raises NotFoundError for a project that is not there or not the caller's to know of, ForbiddenError for too
        low a role.
        """
        async with self._engine.connect() as connection:
            known = await _row(connection, tables.projects, name=project)
            member = await _row(connection, tables.members, project=project, person=caller.person)
        if known is None or (member is None and not caller.admin):
            raise NotFoundError(f"there is no project named {project}", hint="'haneul project list' shows yours")
        role = Role.OWNER if caller.admin or member is None else Role(member["role"])
        if _RANK[role] < _RANK[least]:
            raise ForbiddenError(
                f"{caller.person} is {role} in {project}; this needs {least}", hint="ask an owner of the project"
            )
        return role

    async def record(self, origin: Origin, action: str, target: str, project: str = "", result: str = "done") -> None:
        """Append a change that another product made to the audit record."""
        async with writing(self._engine) as connection:
            await self._append(connection, origin, action, target, project, result)

    @asynccontextmanager
    async def change(
        self, origin: Origin, action: str, target: str, project: str = ""
    ) -> AsyncIterator[AsyncConnection]:
        """Open the transaction of a change and of its record; other products use it for theirs in this database."""
        async with self._change(origin, action, target, project) as connection:
            yield connection

    async def token_makers(self, person: str) -> frozenset[str]:
        """Return who else made tokens in a person's name, and so can act as them."""
        records = tables.audit.c
        query = select(records.person, records.object).where(records.action == "token.create").distinct()
        made = await self._rows(query.where(records.object.startswith(f"{person}/", autoescape=True)))
        return frozenset(row["person"] for row in made) - {person}

    async def list_audit(self, *, before: int | None, limit: int) -> list[AuditRecord]:
        """Return records, newest first, older than number ``before``."""
        query = select(tables.audit).order_by(tables.audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(tables.audit.c.id < before)
        return [AuditRecord(**{**row, "moment": _aware(row["moment"])}) for row in await self._rows(query)]

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

    @asynccontextmanager
    async def _change(
        self, origin: Origin, action: str, target: str, project: str = ""
    ) -> AsyncIterator[AsyncConnection]:
        """Open the transaction of a change and of its record."""
        async with writing(self._engine) as connection:
            yield connection
            await self._append(connection, origin, action, target, project, "done")

    async def _append(
        self, connection: AsyncConnection, origin: Origin, action: str, target: str, project: str, result: str
    ) -> None:
        values = {**origin.model_dump(), "moment": self._clock.now(), "action": action, "object": target}
        await connection.execute(insert(tables.audit).values(**values, project=project, result=result))

    async def _rows(self, query: Any) -> list[RowMapping]:
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).mappings())


def _member(project: str, person: str) -> Any:
    return (tables.members.c.project == project) & (tables.members.c.person == person)


async def _row(connection: AsyncConnection, table: Any, **equal: str) -> RowMapping | None:
    query = select(table)
    for column, value in equal.items():
        query = query.where(table.c[column] == value)
    return (await connection.execute(query)).mappings().first()


async def _hold(connection: AsyncConnection, project: str) -> None:
    """Let nobody else change the project's members meanwhile: of two owners, both might leave at once."""
    query = select(tables.projects).where(tables.projects.c.name == project).with_for_update()
    if (await connection.execute(query)).first() is None:
        raise NotFoundError(f"there is no project named {project}", hint="'haneul project list' shows yours")


async def _keep_an_owner(connection: AsyncConnection, project: str) -> None:
    """A project without an owner could be managed by nobody but administrators."""
    owners = select(tables.members).where((tables.members.c.project == project) & (tables.members.c.role == Role.OWNER))
    if (await connection.execute(owners)).first() is None:
        raise ConflictError(f"{project} would be left without an owner", hint="make somebody else an owner first")


def _aware(moment: datetime) -> datetime:
    """SQLite forgets time zones; all moments are written in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _person(row: RowMapping) -> dict[str, Any]:
    return {**row, "created": _aware(row["created"])}


def _project(row: RowMapping) -> Project:
    return Project(name=row["name"], description=row["description"], created=_aware(row["created"]))


def _token(row: RowMapping) -> Token:
    return Token(
        id=row["id"],
        person=row["person"],
        description=row["description"],
        created=_aware(row["created"]),
        expires=_aware(row["expires"]),
        last_used=_aware(row["last_used"]) if row["last_used"] else None,
        revoked=row["revoked"],
    )
