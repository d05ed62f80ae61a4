"""What every HTTP face shares: problem details, request ids, paging.

Errors are RFC 9457 problem details with the stable code, the request's id and a hint.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from haneul.kernel.errors import HaneulError, InvalidInputError

_log = structlog.get_logger(__name__)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def install(app: FastAPI) -> None:
    """Give an application its error handlers and request ids."""

    @app.middleware("http")
    async def identify(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        offered = request.headers.get("X-Request-Id", "")
        request.state.request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        response = await call_next(request)
        response.headers["X-Request-Id"] = request.state.request_id
        return response

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
        return _answer(request, body, error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("unexpected error", path=request.url.path, request_id=_request_id(request), exc_info=error)
        return problem(
            request,
            HaneulError("the server met an error that it does not know", hint="tell an operator the request id"),
        )


def problem(request: Request, error: HaneulError, **extra: Any) -> JSONResponse:
    """Return an error as problem details."""
    body = {
        "type": f"urn:haneul:error:{error.code}",
        "title": error.title,
        "status": error.http_status,
        "detail": error.detail,
        "code": error.code,
        "hint": error.hint,
        **extra,
    }
    return _answer(request, body, error.http_status)


def _answer(request: Request, body: dict[str, Any], status: int) -> JSONResponse:
    body["requestId"] = _request_id(request)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def encode_continue(position: str) -> str:
    """Return an opaque token for the next page, which starts behind ``position``."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def decode_continue(token: str) -> str:
    """Return what :func:`encode_continue` was given. Raises InvalidInputError."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidInputError("the continue token is none of ours", hint="start again from the first page") from error
