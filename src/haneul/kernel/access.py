"""Who asks, and what they may do in a project: the words that products and the gate before them share.

Identity knows people, tokens and members; the other products know none of that. They take a :class:`Caller` and ask
the :class:`Gate` for the caller's role in a project. ``haneul.app`` wires identity's gate in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from haneul.kernel.errors import ForbiddenError


class Role(StrEnum):
    """What a person is in a project.

    Viewers see; developers also make, change and use; owners also delete and say who belongs to the project.
    """

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"

    def includes(self, needed: Role) -> bool:
        """Say whether this role may do all that ``needed`` may."""
        return _RANK[self] >= _RANK[needed]


_RANK: Final[Mapping[Role, int]] = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}


@dataclass(frozen=True)
class Caller:
    """The person behind a request, and what the audit record needs to know of the request itself."""

    name: str
    admin: bool
    address: str
    request_id: str

    def demand_admin(self) -> None:
        """Raise ForbiddenError unless the caller is an administrator of the platform."""
        if not self.admin:
            raise ForbiddenError(
                f"{self.name} is no administrator of the platform", hint="ask an administrator to do this"
            )


class Gate(Protocol):
    """Tells who a caller is and what they are in a project."""

    async def caller(self, authorization: str, *, address: str, request_id: str) -> Caller:
        """Return the person whom an ``Authorization`` header proves. Raises UnauthenticatedError."""
        ...

    async def role(self, caller: Caller, project: str) -> Role:
        """Return the caller's role. Raises NotFoundError if they may not know the project, or there is none."""
        ...


async def demand_role(gate: Gate, caller: Caller, project: str, needed: Role) -> Role:
    """Return the caller's role in ``project``; raise ForbiddenError if it does not include ``needed``."""
    role = await gate.role(caller, project)
    if not role.includes(needed):
        raise ForbiddenError(
            f"{caller.name} is {role} of project {project!r}, and this takes {needed}",
            hint=f"ask an owner of the project: haneul project members add {project} {caller.name} --role {needed}",
        )
    return role
