"""The platform's API as the command line sees it: one synchronous client over httpx2.

Problem details become the errors they were; reads are tried again with back-off when nobody answers; every call has a
timeout.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Self

import httpx2

from haneul.kernel import errors
from haneul.kernel.errors import HaneulError, UnavailableError

_TIMEOUT = httpx2.Timeout(20.0, connect=5.0)
_STREAM_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
_TRIES = 4
#: Statuses of requests that are not as they should be.
_WRONG = frozenset({400, 405, 413, 414, 416, 422})


class PlatformOutdatedError(HaneulError):
    """The platform's answer lacks a field that this command line reads: it is of an earlier version."""

    code = "platform-outdated"
    title = "The platform is older than this command line"
    http_status = 501
    exit_code = 14


class Document(dict[str, Any]):
    """A JSON object of an answer. A field that is not there is an error that says what to do, not a KeyError."""

    def __missing__(self, field: str) -> Any:
        """Raise PlatformOutdatedError."""
        raise PlatformOutdatedError(
            f"its answer has no field {field!r}",
            hint="upgrade the platform: install this version on its host and run 'haneul up' there",
        )


class _Bearer(httpx2.Auth):
    """Puts a token on each request: sessions' tokens are renewed while a command runs."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self._token = token

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        """Sign one request."""
        token = self._token if isinstance(self._token, str) else self._token()
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


class ApiClient:
    """One server, and what gives a token for each request. ``transport`` replaces the network in tests."""

    def __init__(
        self,
        server: str,
        *,
        authority: Path | None,
        token: str | Callable[[], str],
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        verify = ssl.create_default_context(cafile=str(authority)) if authority else True
        self._server = server
        self._client = httpx2.Client(
            base_url=f"{server}/api/v1",
            verify=verify,
            auth=_Bearer(token),
            headers={"User-Agent": "haneul-cli"},
            timeout=_TIMEOUT,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return what is at ``path``; tried again while nobody answers."""
        for attempt in range(_TRIES):
            try:
                return self._call("GET", path, params=query)
            except UnavailableError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def post(self, path: str, body: Any) -> Any:
        """Make something."""
        return self._call("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        """Set something."""
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """Change something."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """End something."""
        return self._call("DELETE", path)

    def list(self, path: str, **query: Any) -> list[Any]:
        """Return the items of all pages."""
        items: list[Any] = []
        while True:
            page = self.get(path, **query)
            items += page["items"]
            if not page.get("continue"):
                return items
            query["continue"] = page["continue"]

    def events(self, path: str, **query: Any) -> Iterator[tuple[str, Any]]:
        """Yield server-sent events as pairs of type and data, until the server ends the stream."""
        try:
            with self._client.stream(
                "GET", path, params={"watch": "true", **query}, timeout=_STREAM_TIMEOUT
            ) as response:
                if response.status_code >= 400:
                    response.read()
                    raise error_of(response)
                kind = ""
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        yield kind, json.loads(line.removeprefix("data: "), object_hook=Document)
        except httpx2.TransportError as error:
            raise self._unavailable(error) from error

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx2.TransportError as error:
            raise self._unavailable(error) from error
        if response.status_code >= 400:
            raise error_of(response)
        return response.json(object_hook=Document) if response.content else None

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"the platform at {self._server} does not answer: {error}",
            hint="is it up? 'haneul status' on its host tells",
        )


def error_of(response: httpx2.Response) -> HaneulError:
    """Return the error that the server told, as the class of its code."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if "code" not in body and body.get("errors"):
        # The form of the OCI distribution specification.
        entry = body["errors"][0]
        return _of_status(response.status_code)(entry["message"], hint=str(entry.get("detail", "")))
    detail = body.get("detail") or body.get("title") or f"the server answered {response.status_code}"
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HaneulError) and kind.code == body.get("code"):
            return kind(detail, hint=body.get("hint", ""))
    return _of_status(response.status_code)(detail, hint=body.get("hint", ""))


def _of_status(status: int) -> type[HaneulError]:
    """Return the class of an error whose code is another product's own."""
    kinds = (errors.UnauthenticatedError, errors.ForbiddenError, errors.NotFoundError, errors.ConflictError)
    known = next((kind for kind in kinds if kind.http_status == status), None)
    return known or (errors.InvalidInputError if status in _WRONG else HaneulError)
