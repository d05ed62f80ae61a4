"""Identity's part of the REST API.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.identity.gate import Gate
from haneul.identity.model import (
    DEFAULT_TOKEN_DAYS,
    Caller,
    IssuedToken,
    Member,
    Person,
    PlatformRole,
    Project,
    Reach,
    Role,
    Token,
)
from haneul.identity.ports import ProjectContents
from haneul.identity.rights import PlatformRight, demand, demand_a_person
from haneul.identity.service import Identity
from haneul.kernel.errors import ConflictError


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


def identity_router(identity: Identity, gate: Gate, *, contents: ProjectContents) -> APIRouter:
    """Return the routes for people, tokens, projects and members."""
    router = APIRouter(tags=["identity"], dependencies=[Depends(gate.refusals)])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    def only_admins(caller: Caller) -> None:
        demand(PlatformRight.ADMINISTER, caller)

    @router.get("/whoami")
    async def whoami(caller: signed_in) -> Caller:
        return caller.model_copy(update={"projects": await identity.memberships(caller)})

    @router.get("/whoami/roles")
    async def show_roles(caller: signed_in) -> Reach:
        return await identity.reach(caller)

    @router.get("/people")
    async def list_people(caller: signed_in) -> list[Person]:
        only_admins(caller)
        return await identity.list_people()

    @router.post("/people", status_code=201)
    async def create_person(body: NewPerson, request: Request, caller: signed_in) -> Person:
        only_admins(caller)
        roles = (PlatformRole.ADMIN,) if body.admin else ()
        person = Person(**body.model_dump(exclude={"admin"}), platform_roles=roles, created=gate.now())
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
        demand_a_person(caller)
        return await identity.create_project(body.name, body.description, origin=gate.origin(request, caller))

    @router.delete("/projects/{project}", status_code=204)
    async def delete_project(project: str, request: Request, caller: signed_in) -> None:
        await gate.manage(caller, project)
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
        await gate.manage(caller, project)
        return await identity.set_member(project, person, body.role, origin=gate.origin(request, caller))

    @router.delete("/projects/{project}/members/{person}", status_code=204)
    async def remove_member(project: str, person: str, request: Request, caller: signed_in) -> None:
        await gate.manage(caller, project)
        await identity.remove_member(project, person, origin=gate.origin(request, caller))

    return router
