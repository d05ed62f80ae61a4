"""The values of identity."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_serializer
from pydantic.alias_generators import to_camel

LONGEST_NAME: Final = 24
DEFAULT_TOKEN_DAYS: Final = 90
MOST_TOKEN_DAYS: Final = 365


class Role(StrEnum):
    """What a member may do in a project: an owner everything, a developer change clusters, a viewer look."""

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class PlatformRole(StrEnum):
    """What somebody is for the platform as a whole, beside their roles in projects."""

    ADMIN = "admin"
    AUDITOR = "auditor"
    FIREWALL_APPROVER = "firewall-approver"


class CallerKind(StrEnum):
    """What calls: a person, or a robot of a project."""

    PERSON = "person"
    ROBOT = "robot"


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Person(_Value):
    """Somebody who signs in."""

    name: str
    display_name: str = ""
    email: str = ""
    platform_roles: tuple[PlatformRole, ...] = ()
    disabled: bool = False
    created: datetime


class Token(_Value):
    """A token without its secret, which is shown once and never kept."""

    id: str
    person: str
    description: str = ""
    created: datetime
    expires: datetime
    last_used: datetime | None = None
    revoked: bool = False


class IssuedToken(_Value):
    """A token just made, with its secret."""

    token: Token
    secret: str = Field(repr=False)


class Project(_Value):
    """What people share: clusters, later images, charts and apps."""

    name: str
    description: str = ""
    created: datetime


class Member(_Value):
    """A person's role in a project."""

    person: str
    role: Role


class Group(_Value):
    """People who have roles together. Who is in an ``external`` one, the company's sign-on provider says."""

    name: str
    description: str = ""
    external: str = ""
    platform_roles: tuple[PlatformRole, ...] = ()
    created: datetime


class GroupRole(_Value):
    """A group's role in a project."""

    group: str
    role: Role


class Robot(_Value):
    """A program that works in one project: it has one role there and none anywhere else."""

    project: str
    name: str
    role: Role
    description: str = ""
    maker: str
    created: datetime

    @property
    def caller_name(self) -> str:
        """Return what the robot is called where people's names stand; no person's name has a colon."""
        return f"robot:{self.project}/{self.name}"


class RobotToken(_Value):
    """A robot's token without its secret."""

    id: str
    created: datetime
    expires: datetime
    last_used: datetime | None = None
    revoked: bool = False


class IssuedRobotToken(_Value):
    """A robot's token just made, with its secret."""

    robot: Robot
    token: RobotToken
    secret: str = Field(repr=False)


class Caller(_Value):
    """Who is behind a request: a person with their groups and platform roles, or a robot with its project and role."""

    person: str
    kind: CallerKind = CallerKind.PERSON
    platform_roles: tuple[PlatformRole, ...] = ()
    groups: tuple[str, ...] = ()
    project: str = ""
    project_role: Role | None = None
    #: Where somebody has a role; told to who asks who they are, for others look it up where they need it.
    projects: tuple[str, ...] = ()
    token_id: str = ""
    session: str = ""

    @computed_field  # type: ignore[prop-decorator]  # pydantic decorates properties
    @property
    def admin(self) -> bool:
        """Say whether this is a platform administrator."""
        return PlatformRole.ADMIN in self.platform_roles


class Reach(_Value):
    """A caller with their role in each project that they have one in, their own or their groups' best.

    Beside these an administrator owns every project.
    """

    caller: Caller
    roles: dict[str, Role]


class Origin(_Value):
    """Where a change comes from: who makes it, from which address, with which request."""

    person: str
    source: str = ""
    agent: str = ""
    request_id: str = ""


class AuditRecord(_Value):
    """One change or refusal: who did what to which object, from where, with what result.

    Records form a chain (:mod:`haneul.kernel.hash_chain`) over just what the API shows of them.
    """

    id: int
    moment: datetime
    person: str
    action: str
    object: str
    project: str = ""
    source: str = ""
    result: str
    agent: str = ""
    request_id: str = ""
    previous: str
    hash: str

    @field_serializer("moment")
    def _in_one_form(self, moment: datetime) -> str:
        """Return the moment as it is hashed, in UTC with all six digits."""
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class AuditQuery(_Value):
    """Which records to return: of one project, of one person, newest or oldest first, behind a record's number.

    ``since`` leaves out what is older.
    """

    project: str = ""
    person: str = ""
    since: datetime | None = None
    oldest_first: bool = False
    behind: int | None = None
    limit: int
