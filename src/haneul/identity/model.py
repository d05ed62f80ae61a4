"""The values of identity."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

LONGEST_NAME: Final = 24
DEFAULT_TOKEN_DAYS: Final = 90
MOST_TOKEN_DAYS: Final = 365


class Role(StrEnum):
    """What a member may do in a project: an owner everything, a developer change clusters, a viewer look."""

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Person(_Value):
    """Somebody who signs in."""

    name: str
    display_name: str = ""
    email: str = ""
    admin: bool = False
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


class Caller(_Value):
    """Who is behind a request."""

    person: str
    admin: bool
    token_id: str


class Origin(_Value):
    """Where a change comes from: who makes it, from which address, with which request."""

    person: str
    source: str = ""
    request_id: str = ""


class AuditRecord(_Value):
    """One change: who did what to which object, from where, with what result."""

    id: int
    moment: datetime
    person: str
    action: str
    object: str
    project: str = ""
    source: str = ""
    result: str
    request_id: str = ""
