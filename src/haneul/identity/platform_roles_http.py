"""The REST API's routes of platform roles.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from haneul.identity.http import Gate
from haneul.identity.model import Caller
from haneul.identity.platform_roles import PlatformRole, PlatformRoles
from haneul.kernel.errors import ForbiddenError


def platform_roles_router(roles: PlatformRoles, gate: Gate) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/people/{name}/roles", tags=["identity"])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    def only_admins(caller: Caller) -> None:
        if not caller.admin:
            raise ForbiddenError("this is for platform administrators", hint="ask one of them")

    @router.put("/{role}", status_code=204)
    async def grant_person_role(name: str, role: PlatformRole, request: Request, caller: signed_in) -> None:
        only_admins(caller)
        await roles.grant(name, role, origin=gate.origin(request, caller))

    @router.delete("/{role}", status_code=204)
    async def withdraw_person_role(name: str, role: PlatformRole, request: Request, caller: signed_in) -> None:
        only_admins(caller)
        await roles.withdraw(name, role, origin=gate.origin(request, caller))

    return router
