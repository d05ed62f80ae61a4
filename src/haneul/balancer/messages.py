"""What is said between a balancer's keeper and who has no other right on its machine: one JSON object a line. Pure."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from haneul.balancer.model import Change, FrontendsChangedError, Listener, ListenerRefusedError, Member, MemberHealth
from haneul.balancer.model import Present as Served
from haneul.kernel.errors import HaneulError, InvalidInputError, UnavailableError

#: Octets of a line: with fifty thousand frontends it is some ten million.
LONGEST: Final = 64 << 20


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Asked(_Message):
    """A call of the port."""

    do: Literal["read", "apply", "health"]
    owner: str = ""
    changes: tuple[Change, ...] = ()


class Wrong(_Message):
    """An error that a call ends with."""

    code: str
    detail: str
    hint: str = ""
    listener: Listener | None = None


class Said(_Message):
    """What a call gives back."""

    frontends: tuple[Served, ...] = ()
    health: tuple[tuple[Listener, tuple[tuple[Member, MemberHealth], ...]], ...] = ()
    wrong: Wrong | None = None


def wrong_of(error: HaneulError) -> Wrong:
    """Return an error as it is told."""
    listener = error.listener if isinstance(error, ListenerRefusedError) else None
    return Wrong(code=error.code, detail=error.detail, hint=error.hint, listener=listener)


def error_of(wrong: Wrong) -> HaneulError:
    """Return the error that was told; one that the port does not name means that the balancer cannot be used now."""
    if wrong.listener is not None:
        return ListenerRefusedError(wrong.detail, listener=wrong.listener, hint=wrong.hint)
    if wrong.code == FrontendsChangedError.code:
        return FrontendsChangedError(wrong.detail, hint=wrong.hint)
    if wrong.code == InvalidInputError.code:
        return InvalidInputError(wrong.detail, hint=wrong.hint)
    return UnavailableError(wrong.detail, hint=wrong.hint)
