"""Requests and replies as D2Hub sees them, whatever server they come by."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote

from haneul.d2hub.errors import BlobUploadInvalidError, RequestInvalidError
from haneul.d2hub.model import Content, GrowingContent
from haneul.kernel.errors import HaneulError

JSON: Final = "application/json"
Headers = list[tuple[str, str]]


class SlowClientError(HaneulError):
    """A client sent nothing for so long that its request was ended; what had arrived of an upload stays."""

    code = "client-too-slow"
    title = "Nothing arrived for too long"
    http_status = 408


class Body(Protocol):
    """A request's body, which is read once."""

    def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises BlobUploadInvalidError if it ends early, SlowClientError."""
        ...


@dataclass(frozen=True)
class Request:
    """One request. Names of headers are in small letters."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: Body
    scheme: str = "https"
    client: str = ""
    #: Host and port by which the client came: HTTP/2's ``:authority``, or the header ``Host`` (RFC 9113, 8.3.1).
    authority: str = ""

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """Return the parameters."""
        try:
            return parse_qs(self.query_string, keep_blank_values=True, max_num_fields=200)
        except ValueError as error:
            raise RequestInvalidError("there are too many parameters") from error

    def parameter(self, name: str) -> str:
        """Return a parameter's first value, or nothing. Raises RequestInvalidError for what no database takes."""
        value = self.query.get(name, [""])[0] if self.query_string else ""
        if "\0" in value:
            raise RequestInvalidError(f"the parameter {name!r} has a character that is none")
        return value

    @property
    def address(self) -> str:
        """Return where the client is, without its port, of which every connection has another."""
        return self.client.rpartition(":")[0].strip("[]")

    @property
    def segments(self) -> list[str]:
        """Return the path's parts; none of them is empty except for a slash at the end."""
        path = unquote(self.path) if "%" in self.path else self.path
        return path.split("/")[1:]

    @property
    def content_length(self) -> int | None:
        """Return how long the body says it is. Raises BlobUploadInvalidError."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit():
            raise BlobUploadInvalidError(f"Content-Length {text[:40]!r} is no number")
        return int(text)

    async def read(self, most: int) -> bytes | None:
        """Return the whole body, or None if it has more bytes than ``most``."""
        length = self.content_length
        if length is not None and length > most:
            return None
        parts, size = [], 0
        async for part in self.body.parts():
            size += len(part)
            if size > most:
                return None
            parts.append(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Reply:
    """One reply. ``part`` is the first and last byte of the content that is sent; a HEAD's content is not sent.

    Content that is still arriving is sent as it is: it has no more than the part.
    """

    status: int
    headers: Headers = field(default_factory=list)
    content: Content | GrowingContent | bytes | None = None
    part: tuple[int, int] | None = None


def json_reply(status: int, document: Any, headers: Headers | None = None, *, media_type: str = JSON) -> Reply:
    """Return a document as JSON."""
    data = json.dumps(document).encode()
    return Reply(status, [("content-type", media_type), *(headers or [])], data)
