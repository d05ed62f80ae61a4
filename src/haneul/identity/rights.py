"""Who may do what: pure decisions.

In a project the best of one's own role and the roles of one's groups counts; a platform administrator owns every
project. Platform rights hang on platform roles, one's own and one's groups', and on nothing else: to decide on
firewall access is no part of being an administrator, and robots have no platform role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from haneul.identity.model import Caller, CallerKind, PlatformRole, Role
from haneul.kernel.errors import ForbiddenError

_RANK: Final = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}


class PlatformRight(StrEnum):
    """What one may do outside of projects."""

    ADMINISTER = "administer people, groups and clients"
    READ_AUDIT = "read the whole audit record"
    DECIDE_FIREWALL = "decide on firewall access"


_HOLDERS: Final[Mapping[PlatformRight, frozenset[PlatformRole]]] = {
    PlatformRight.ADMINISTER: frozenset({PlatformRole.ADMIN}),
    PlatformRight.READ_AUDIT: frozenset({PlatformRole.ADMIN, PlatformRole.AUDITOR}),
    PlatformRight.DECIDE_FIREWALL: frozenset({PlatformRole.FIREWALL_APPROVER}),
}
_NAMES: Final = {
    PlatformRole.ADMIN: "platform administrators",
    PlatformRole.AUDITOR: "auditors",
    PlatformRole.FIREWALL_APPROVER: "firewall approvers",
}


def effective_role(granted: Iterable[Role], *, admin: bool = False) -> Role | None:
    """Return the best of all roles that somebody has in a project; None for who has none."""
    return Role.OWNER if admin else max(granted, key=_RANK.__getitem__, default=None)


def reaches(role: Role, least: Role) -> bool:
    """Say whether ``role`` includes what ``least`` may."""
    return _RANK[role] >= _RANK[least]


def may(right: PlatformRight, roles: Iterable[PlatformRole]) -> bool:
    """Say whether platform roles give a right."""
    return not _HOLDERS[right].isdisjoint(roles)


def demand(right: PlatformRight, caller: Caller) -> None:
    """Let through who has the right. Raises ForbiddenError."""
    if not may(right, caller.platform_roles):
        names = " and ".join(_NAMES[role] for role in sorted(_HOLDERS[right]))
        raise ForbiddenError(
            f"this is for {names}", hint="'haneul whoami' shows your roles; an administrator gives them"
        )


def demand_a_person(caller: Caller) -> None:
    """Let people through. Raises ForbiddenError for robots: they work in their project and manage nothing."""
    if caller.kind is not CallerKind.PERSON:
        raise ForbiddenError(f"{caller.person} is a robot; only people do this", hint="sign in as a person")
