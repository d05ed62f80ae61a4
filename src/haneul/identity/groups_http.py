"""Groups and platform roles in the REST API.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.identity.gate import Gate
from haneul.identity.groups import Groups
from haneul.identity.model import Caller, Group, GroupRole, PlatformRole, Role
from haneul.identity.rights import PlatformRight, demand


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewGroup(_Body):
    """A group to add; ``external`` is what the company's sign-on provider calls it."""

    name: str
    description: str = Field(default="", max_length=500)
    external: str = Field(default="", max_length=200)


class NewGroupRole(_Body):
    """The role of a group."""

    role: Role


def groups_router(groups: Groups, gate: Gate) -> APIRouter:
    """Return the routes of groups and of platform roles."""
    router = APIRouter(tags=["groups"], dependencies=[Depends(gate.refusals)])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    async def admin(caller: signed_in) -> Caller:
        demand(PlatformRight.ADMINISTER, caller)
        return caller

    administrator = Annotated[Caller, Depends(admin)]

    @router.get("/groups")
    async def list_groups(_: signed_in) -> Sequence[Group]:
        return await groups.list()

    @router.post("/groups", status_code=201)
    async def create_group(body: NewGroup, request: Request, caller: administrator) -> Group:
        return await groups.create(body.name, body.description, body.external, origin=gate.origin(request, caller))

    @router.delete("/groups/{name}", status_code=204)
    async def delete_group(name: str, request: Request, caller: administrator) -> None:
        await groups.delete(name, origin=gate.origin(request, caller))

    @router.get("/groups/{name}/members")
    async def list_group_members(name: str, _: signed_in) -> Sequence[str]:
        return await groups.members(name)

    @router.put("/groups/{name}/members/{person}", status_code=204)
    async def set_group_member(name: str, person: str, request: Request, caller: administrator) -> None:
        await groups.add_member(name, person, origin=gate.origin(request, caller))

    @router.delete("/groups/{name}/members/{person}", status_code=204)
    async def remove_group_member(name: str, person: str, request: Request, caller: administrator) -> None:
        await groups.remove_member(name, person, origin=gate.origin(request, caller))

    @router.put("/groups/{name}/roles/{role}", status_code=204)
    async def grant_group_role(name: str, role: PlatformRole, request: Request, caller: administrator) -> None:
        await groups.grant("group", name, role, origin=gate.origin(request, caller))

    @router.delete("/groups/{name}/roles/{role}", status_code=204)
    async def withdraw_group_role(name: str, role: PlatformRole, request: Request, caller: administrator) -> None:
        await groups.withdraw("group", name, role, origin=gate.origin(request, caller))

    @router.put("/people/{name}/roles/{role}", status_code=204)
    async def grant_person_role(name: str, role: PlatformRole, request: Request, caller: administrator) -> None:
        await groups.grant("person", name, role, origin=gate.origin(request, caller))

    @router.delete("/people/{name}/roles/{role}", status_code=204)
    async def withdraw_person_role(name: str, role: PlatformRole, request: Request, caller: administrator) -> None:
        await groups.withdraw("person", name, role, origin=gate.origin(request, caller))

    @router.get("/projects/{project}/groups")
    async def list_project_groups(project: str, caller: signed_in) -> Sequence[GroupRole]:
        await gate.require(caller, project, Role.VIEWER)
        return await groups.roles_in(project)

    @router.put("/projects/{project}/groups/{group}")
    async def set_project_group(
        project: str, group: str, body: NewGroupRole, request: Request, caller: signed_in
    ) -> GroupRole:
        await gate.manage(caller, project)
        return await groups.set_role(project, group, body.role, origin=gate.origin(request, caller))

    @router.delete("/projects/{project}/groups/{group}", status_code=204)
    async def remove_project_group(project: str, group: str, request: Request, caller: signed_in) -> None:
        await gate.manage(caller, project)
        await groups.remove_role(project, group, origin=gate.origin(request, caller))

    return router
