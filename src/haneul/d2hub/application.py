"""The whole of D2Hub as one function from requests to replies, with its errors, health and log."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from haneul.d2hub.errors import RangeNotSatisfiableError, UpstreamError, registry_code
from haneul.d2hub.exchange import Headers, Reply, Request, json_reply
from haneul.d2hub.http import VERSION, RegistryHttp
from haneul.d2hub.http_api import ApiHttp, problem_reply
from haneul.d2hub.http_audit import Witness
from haneul.d2hub.http_auth import TOKEN_PATH, ChallengeError, Doorkeeper
from haneul.d2hub.metrics import Metrics
from haneul.kernel.errors import HaneulError, NotFoundError, UnavailableError

_log = structlog.get_logger(__name__)
_QUIET: Final = frozenset({"GET", "HEAD"})
#: With what passes by itself (RFC 9110, section 10.2.3): seconds until it is worth trying again.
_RETRY: Final = ("retry-after", "2")


class Application:
    """Answers every request; nothing is raised."""

    def __init__(
        self,
        registry: RegistryHttp,
        api: ApiHttp,
        door: Doorkeeper,
        metrics: Metrics,
        ready: Callable[[], Awaitable[str]],
        witness: Witness,
    ) -> None:
        self._registry, self._api, self._door, self._metrics = registry, api, door, metrics
        self._witness = witness
        self._ready = ready
        #: Set when the server is about to end: whoever balances load shall send no more.
        self.draining = False

    async def answer(self, request: Request) -> Reply:
        """Answer a request."""
        try:
            reply = await self._answer(request)
            self._witness.answered(request, reply)
        except ChallengeError as error:
            reply = self._refused(request, error)
            reply.headers.extend(self._door.challenge(request, error))
        except HaneulError as error:
            reply = self._refused(request, error)
            self._witness.refused(request, error)
            if isinstance(error, UpstreamError) and error.rest is not None:
                reply.headers.append(("retry-after", str(math.ceil(error.rest))))
        except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, the client gets an answer and we a record
            reply = self._unexpected(request, error)
        reply.headers.append(VERSION)
        self._metrics.count(request.method, reply)
        if request.method not in _QUIET and _is_told(request, reply) and request.path != TOKEN_PATH:
            _log.info("request", method=request.method, path=request.path, status=reply.status, client=request.client)
        return reply

    async def _answer(self, request: Request) -> Reply:
        path = request.path
        if path.startswith(("/v2/", "/api/v1/")) or path == "/v2":
            await self._door.admit(request)
        if path.startswith("/v2/") or path == "/v2":
            return await self._registry.answer(request)
        if path == TOKEN_PATH and request.method in ("GET", "POST"):
            return await self._door.answer(request)
        if path.startswith("/api/v1/"):
            return await self._api.answer(request)
        if request.method in _QUIET:
            if path == "/healthz":
                return Reply(200, [("content-type", "text/plain")], b"ok\n")
            if path == "/readyz":
                return await self._readiness()
            if path == "/metrics":
                return Reply(200, [("content-type", self._metrics.media_type)], self._metrics.text())
        raise NotFoundError(f"there is no {path[:200]}", hint="images are below /v2/, the rest below /api/v1/")

    async def _readiness(self) -> Reply:
        trouble = "this process is about to end" if self.draining else await self._ready()
        return Reply(503 if trouble else 200, [("content-type", "text/plain")], f"{trouble or 'ok'}\n".encode())

    def _refused(self, request: Request, error: HaneulError) -> Reply:
        if error.http_status >= 500:
            _log.error("request failed", method=request.method, path=request.path, code=error.code, detail=error.detail)
        later: Headers = [_RETRY] if error.http_status == UnavailableError.http_status else []
        if request.path.startswith("/api/"):
            reply = problem_reply(error, uuid.uuid4().hex)
            reply.headers.extend(later)
            return reply
        entry = {"code": registry_code(error), "message": error.detail}
        if error.hint:
            entry["detail"] = error.hint
        reply = json_reply(error.http_status, {"errors": [entry]}, later)
        if isinstance(error, RangeNotSatisfiableError) and request.method == "GET":
            reply.headers.append(("content-range", f"bytes */{error.size}"))
        return reply

    def _unexpected(self, request: Request, error: Exception) -> Reply:
        _log.error("unexpected error", method=request.method, path=request.path, exc_info=error)
        return self._refused(
            request, HaneulError("the registry met an error that it does not know", hint="its log has more")
        )


def _is_told(request: Request, reply: Reply) -> bool:
    """Say whether a change is worth a line: parts of an upload are not, its end is."""
    return request.method == "DELETE" or reply.status != 202
