"""What every HTTP face shares: problem details, request ids, paging.

Errors are RFC 9457 problem details with the stable code, the request's id and a hint.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from haneul.kernel.errors import HaneulError, InvalidInputError

_log = structlog.get_logger(__name__)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBLEM_TYPE: Final = "application/problem+json"

#: Bytes that a request's body may have; what clusters are asked to be is far below.
LARGEST_BODY: Final = 1 << 20


class Problem(BaseModel):
    """What every error looks like; ``errors`` names the fields that are not valid."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    request_id: str
    errors: list[dict[str, str]] = []


#: For FastAPI's ``responses``: says in the description of an API that every error is a :class:`Problem`.
PROBLEM_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"description": "An error", "content": {_PROBLEM_TYPE: {"schema": Problem.model_json_schema()}}}
}


def install(app: FastAPI) -> None:
    """Give an application its error handlers, request ids and the limit of bodies."""
    app.add_middleware(_Edge)

    @app.exception_handler(HaneulError)
    async def refused(request: Request, error: HaneulError) -> JSONResponse:
        return problem(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        entries = [
            {"field": ".".join(str(part) for part in entry["loc"][1:]), "message": entry["msg"]}
            for entry in error.errors()
        ]
        detail = "; ".join(
            f"{entry['field']}: {entry['message']}" if entry["field"] else entry["message"] for entry in entries
        )
        return problem(request, InvalidInputError(detail, hint="correct the named fields"), errors=entries)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        body = {"type": "about:blank", "title": str(error.detail), "status": error.status_code, "code": "http"}
        body |= {"detail": str(error.detail), "hint": "the API's description says what there is and how it is asked"}
        return _answer(request, body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("unexpected error", path=request.url.path, request_id=_request_id(request), exc_info=error)
        return problem(
            request,
            HaneulError("the server met an error that it does not know", hint="tell an operator the request id"),
        )


def problem(request: Request, error: HaneulError, **extra: Any) -> JSONResponse:
    """Return an error as problem details."""
    return _answer(request, {**error.problem_details(), **extra}, error.http_status)


def encode_continue(position: str) -> str:
    """Return an opaque token for the next page, which starts behind ``position``."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def decode_continue(token: str) -> str:
    """Return what :func:`encode_continue` was given. Raises InvalidInputError."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidInputError("the continue token is none of ours", hint="start again from the first page") from error


class _Edge:
    """Takes the caller's id for a request or makes one, and sends it back; lets no body grow too large.

    Bodies are read before it is known whose they are. Streams pass through as they come.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("X-Request-Id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413, f"a body may have {LARGEST_BODY} bytes at most")
            return message

        await self._app(scope, receive_bounded, send_with_id)


class _ProblemResponse(JSONResponse):
    """Escapes whatever is no ASCII: callers' own text, perhaps half a character, comes back in details."""

    media_type = _PROBLEM_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def _answer(
    request: Request, body: dict[str, Any], status: int, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body["requestId"] = _request_id(request)
    # An unexpected error is answered outside of what sends the id back with every other answer.
    headers = {**(headers or {}), "X-Request-Id": body["requestId"]}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _ProblemResponse(body, status, headers)


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))
