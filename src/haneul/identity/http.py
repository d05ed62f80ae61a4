"""Identity's part of the REST API.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.identity.model import (
    DEFAULT_TOKEN_DAYS,
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
from haneul.identity.ports import ProjectContents
from haneul.identity.service import Identity
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, ForbiddenError, InvalidInputError, UnauthenticatedError
from haneul.kernel.http import decode_continue, encode_continue


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewPerson(_Body):
    """A person to add."""

    name: str
    display_name: str = Field(default="", max_length=200)
    email: str = Field(default="", max_length=200)
    admin: bool = False


class PersonChange(_Body):
    """What changes about a person."""

    disabled: bool


class NewToken(_Body):
    """A token to make."""

    description: str = Field(default="", max_length=200)
    days: int = DEFAULT_TOKEN_DAYS


class NewProject(_Body):
    """A project to add."""

    name: str
    description: str = Field(default="", max_length=500)


class NewRole(_Body):
    """The role of a member."""

    role: Role


class AuditPage(_Body):
    """A page of the audit record, newest first."""

    items: list[AuditRecord]
    continue_token: str | None = Field(default=None, alias="continue")


class Gate:
    """Signs callers in and records what they change; routers of every product depend on it."""

    def __init__(self, identity: Identity, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock

    async def caller(self, request: Request) -> Caller:
        """Return who is behind the request. Raises UnauthenticatedError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("the request carries no token", hint="run 'haneul login'")
        return await self._identity.authenticate(token)

    def now(self) -> datetime:
        """Return the moment that changes are recorded with."""
        return self._clock.now()

    async def require(self, caller: Caller, project: str, least: Role) -> Role:
        """Return the caller's role in a project, at least ``least``."""
        return await self._identity.require(caller, project, least)

    async def record(
        self, request: Request, caller: Caller, action: str, target: str, project: str = "", result: str = "done"
    ) -> None:
        """Append a change that another product made to the audit record."""
        await self._identity.record(self.origin(request, caller), action, target, project, result)

    @staticmethod
    def origin(request: Request, caller: Caller) -> Origin:
        """Return what the audit record says of where a change comes from."""
        source = request.client.host if request.client else ""
        return Origin(person=caller.person, source=source, request_id=request.state.request_id)


def identity_router(identity: Identity, gate: Gate, *, contents: ProjectContents) -> APIRouter:
    """Return the routes for people, tokens, projects, members and the audit record."""
    router = APIRouter(tags=["identity"])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    def only_admins(caller: Caller) -> None:
        if not caller.admin:
            raise ForbiddenError("this is for platform administrators", hint="ask one of them")

    @router.get("/whoami")
    async def whoami(caller: signed_in) -> Caller:
        return caller

    @router.get("/people")
    async def list_people(caller: signed_in) -> list[Person]:
        only_admins(caller)
        return await identity.list_people()

    @router.post("/people", status_code=201)
    async def create_person(body: NewPerson, request: Request, caller: signed_in) -> Person:
        only_admins(caller)
        person = Person(**body.model_dump(), created=gate.now())
        return await identity.create_person(person, origin=gate.origin(request, caller))

    @router.patch("/people/{name}")
    async def change_person(name: str, body: PersonChange, request: Request, caller: signed_in) -> Person:
        only_admins(caller)
        if name == caller.person and body.disabled:
            raise ConflictError("nobody locks themselves out", hint="ask another administrator")
        return await identity.set_disabled(name, body.disabled, origin=gate.origin(request, caller))

    def own_or_admin(caller: Caller, person: str) -> None:
        if caller.person != person:
            only_admins(caller)

    @router.get("/people/{name}/tokens")
    async def list_tokens(name: str, caller: signed_in) -> list[Token]:
        own_or_admin(caller, name)
        return await identity.list_tokens(name)

    @router.post("/people/{name}/tokens", status_code=201)
    async def create_token(name: str, body: NewToken, request: Request, caller: signed_in) -> IssuedToken:
        own_or_admin(caller, name)
        return await identity.create_token(name, body.description, body.days, origin=gate.origin(request, caller))

    @router.delete("/people/{name}/tokens/{token}", status_code=204)
    async def revoke_token(name: str, token: str, request: Request, caller: signed_in) -> None:
        own_or_admin(caller, name)
        await identity.revoke_token(name, token, origin=gate.origin(request, caller))

    @router.get("/projects")
    async def list_projects(caller: signed_in) -> list[Project]:
        return await identity.list_projects(caller)

    @router.post("/projects", status_code=201)
    async def create_project(body: NewProject, request: Request, caller: signed_in) -> Project:
        return await identity.create_project(body.name, body.description, origin=gate.origin(request, caller))

    @router.delete("/projects/{project}", status_code=204)
    async def delete_project(project: str, request: Request, caller: signed_in) -> None:
        await identity.require(caller, project, Role.OWNER)
        async with contents.closed(project) as things:
            if things:
                raise ConflictError(f"{project} still has {', '.join(things)}", hint="delete them first")
            await identity.delete_project(project, origin=gate.origin(request, caller))

    @router.get("/projects/{project}/members")
    async def list_members(project: str, caller: signed_in) -> list[Member]:
        await identity.require(caller, project, Role.VIEWER)
        return await identity.list_members(project)

    @router.put("/projects/{project}/members/{person}")
    async def set_member(project: str, person: str, body: NewRole, request: Request, caller: signed_in) -> Member:
        await identity.require(caller, project, Role.OWNER)
        return await identity.set_member(project, person, body.role, origin=gate.origin(request, caller))

    @router.delete("/projects/{project}/members/{person}", status_code=204)
    async def remove_member(project: str, person: str, request: Request, caller: signed_in) -> None:
        await identity.require(caller, project, Role.OWNER)
        await identity.remove_member(project, person, origin=gate.origin(request, caller))

    @router.get("/audit")
    async def list_audit(
        caller: signed_in,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_token: Annotated[str | None, Query(alias="continue")] = None,
    ) -> AuditPage:
        only_admins(caller)
        position = decode_continue(continue_token) if continue_token else ""
        # No longer than the database's numbers.
        if position and not re.fullmatch(r"[0-9]{1,18}", position):
            raise InvalidInputError("the continue token is of another list", hint="start again from the first page")
        before = int(position) if position else None
        items = await identity.list_audit(before=before, limit=limit + 1)
        page = items[:limit]
        more = encode_continue(str(page[-1].id)) if len(items) > limit else None
        return AuditPage(items=page, **{"continue": more})

    return router
