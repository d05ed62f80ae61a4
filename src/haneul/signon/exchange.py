"""Requests to the gate and its replies, whatever web server they come through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """A request. Header names are small; each has all its values, in their order. The body is a form, or nothing."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: bytes = b""

    def all(self, name: str) -> Sequence[str]:
        """Return all values of a header."""
        return self.headers.get(name.lower(), ())

    def one(self, name: str) -> str:
        """Return a header's only value; nothing where there is none, or more than one."""
        values = self.all(name)
        return values[0] if len(values) == 1 else ""


@dataclass(frozen=True)
class Reply:
    """An answer. A header may come several times."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
