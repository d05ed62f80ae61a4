"""Robots in the REST API.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.identity.gate import Gate
from haneul.identity.model import DEFAULT_TOKEN_DAYS, Caller, IssuedRobotToken, Robot, RobotToken, Role
from haneul.identity.rights import demand_a_person, reaches
from haneul.identity.robots import Robots
from haneul.kernel.errors import ForbiddenError


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewRobot(_Body):
    """A robot to add."""

    name: str
    role: Role = Role.DEVELOPER
    description: str = Field(default="", max_length=200)
    days: int = DEFAULT_TOKEN_DAYS


class Rotation(_Body):
    """How long a robot's new token lives, and how long its old ones go on."""

    days: int = DEFAULT_TOKEN_DAYS
    overlap_hours: float = 24.0


def robots_router(robots: Robots, gate: Gate) -> APIRouter:
    """Return the routes of a project's robots. A developer has robots with roles up to their own; robots have none."""
    router = APIRouter(prefix="/projects/{project}/robots", tags=["robots"], dependencies=[Depends(gate.refusals)])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    async def demand_at_least(caller: Caller, project: str, role: Role) -> None:
        own = await gate.require(caller, project, Role.DEVELOPER)
        demand_a_person(caller)
        if not reaches(own, role):
            raise ForbiddenError(
                f"{caller.person} is {own} in {project}; this robot is {role}", hint="ask somebody of that role"
            )

    async def one(project: str, name: str, caller: signed_in) -> Robot:
        await gate.require(caller, project, Role.DEVELOPER)
        robot = await robots.get(project, name)
        await demand_at_least(caller, project, robot.role)
        return robot

    managed = Annotated[Robot, Depends(one)]

    @router.get("")
    async def list_robots(project: str, caller: signed_in) -> Sequence[Robot]:
        await gate.require(caller, project, Role.VIEWER)
        return await robots.list(project)

    @router.post("", status_code=201)
    async def create_robot(project: str, body: NewRobot, request: Request, caller: signed_in) -> IssuedRobotToken:
        await demand_at_least(caller, project, body.role)
        return await robots.create(
            project,
            body.name,
            body.role,
            description=body.description,
            days=body.days,
            origin=gate.origin(request, caller),
        )

    @router.get("/{name}/tokens")
    async def list_robot_tokens(robot: managed) -> Sequence[RobotToken]:
        return await robots.tokens(robot.project, robot.name)

    @router.post("/{name}/rotate", status_code=201)
    async def rotate_robot(robot: managed, body: Rotation, request: Request, caller: signed_in) -> IssuedRobotToken:
        return await robots.rotate(
            robot.project,
            robot.name,
            days=body.days,
            overlap_hours=body.overlap_hours,
            origin=gate.origin(request, caller),
        )

    @router.delete("/{name}/tokens/{token}", status_code=204)
    async def revoke_robot_token(robot: managed, token: str, request: Request, caller: signed_in) -> None:
        await robots.revoke_token(robot.project, robot.name, token, origin=gate.origin(request, caller))

    @router.delete("/{name}", status_code=204)
    async def delete_robot(robot: managed, request: Request, caller: signed_in) -> None:
        await robots.delete(robot.project, robot.name, origin=gate.origin(request, caller))

    return router
