"""A client of a hub of images: signs in by Docker's token flow and talks to ``/api/v1`` and ``/v2``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2
import yaml

from haneul.cli.client import error_of
from haneul.cli.context import Contexts
from haneul.cli.input import trust_of
from haneul.kernel.errors import InvalidInputError, UnauthenticatedError, UnavailableError
from haneul.kernel.files import write_atomically

_TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
#: A collection looks at every file.
_LONG: Final = httpx2.Timeout(3600.0, connect=5.0)
_PIECE: Final = 1 << 20
CATALOG: Final = "registry:catalog:*"
MAINTENANCE: Final = "registry:maintenance:*"


@dataclass(frozen=True)
class HubContext:
    """A hub that somebody has signed in to; without a user, as anybody."""

    url: str
    user: str = ""
    authority: Path | None = None


class HubContexts:
    """The file ``hub.yaml`` beside the platform's configuration; the secret lies in a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._file, self._secret = folder / "hub.yaml", folder / "hub-secret"

    @classmethod
    def default(cls) -> HubContexts:
        """Return the caller's own."""
        return cls(Contexts.default().folder)

    def sign_in(self, context: HubContext, secret: str) -> None:
        """Remember a hub and the secret for it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._secret, f"{secret}\n", mode=0o600)
        entry = {
            "url": context.url,
            "user": context.user,
            "authority": str(context.authority) if context.authority else None,
        }
        write_atomically(self._file, str(yaml.safe_dump(entry, sort_keys=False)), mode=0o600)

    def sign_out(self) -> None:
        """Forget the hub and the secret."""
        self._secret.unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)

    def client(self) -> HubClient:
        """Return a client of the hub. Raises UnauthenticatedError if there is none."""
        if not self._file.exists():
            raise UnauthenticatedError(
                "you are not signed in to any hub", hint="run 'haneul image login URL --user NAME --secret-file FILE'"
            )
        entry = yaml.safe_load(self._file.read_text())
        authority = Path(entry["authority"]) if entry.get("authority") else None
        secret = self._secret.read_text().strip() if self._secret.exists() else ""
        return HubClient(HubContext(entry["url"], entry.get("user", ""), authority), secret)


class HubClient:
    """One hub. ``transport`` replaces the network in tests."""

    def __init__(self, context: HubContext, secret: str, *, transport: httpx2.BaseTransport | None = None) -> None:
        verify = trust_of(context.authority) if context.authority else True
        self._context, self._secret = context, secret
        self._client = httpx2.Client(
            base_url=context.url, verify=verify, timeout=_TIMEOUT, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, *, scope: str, **query: Any) -> Any:
        """Return what is at a path of the API."""
        return self._call("GET", f"/api/v1/{path}", self._token(scope), params=query)

    def list(self, path: str, *, scope: str, **query: Any) -> list[Any]:
        """Return the items of all pages."""
        items: list[Any] = []
        token = self._token(scope)
        while True:
            page = self._call("GET", f"/api/v1/{path}", token, params=query)
            items += page["items"]
            if not page["continue"]:
                return items
            query["continue"] = page["continue"]

    def post(self, path: str, body: Any, *, scope: str) -> Any:
        """Have something done, which may take long."""
        return self._call("POST", f"/api/v1/{path}", self._token(scope), json=body, timeout=_LONG)

    def put(self, path: str, body: Any, *, scope: str) -> Any:
        """Set something."""
        return self._call("PUT", f"/api/v1/{path}", self._token(scope), json=body)

    def delete(self, path: str, *, scope: str) -> None:
        """Have something end."""
        self._call("DELETE", f"/api/v1/{path}", self._token(scope))

    def delete_manifest(self, repository: str, reference: str, *, force: bool = False) -> None:
        """Delete a tag or a manifest; with ``force``, which is for administrators, though a cluster runs it."""
        token = self._token(f"repository:{repository}:delete{f' {MAINTENANCE}' if force else ''}")
        query = {"force": "true"} if force else {}
        self._call("DELETE", f"/v2/{repository}/manifests/{reference}", token, params=query)

    def push_blob(self, repository: str, digest: str, file: Path) -> bool:
        """Have a repository hold a blob; return False if it did already."""
        headers = {"Authorization": f"Bearer {self._token(f'repository:{repository}:pull,push')}"}
        known = self._answer(lambda: self._client.head(f"/v2/{repository}/blobs/{digest}", headers=headers))
        if known.status_code == 200:
            return False
        begun = self._asked(lambda: self._client.post(f"/v2/{repository}/blobs/uploads/", headers=headers))
        headers |= {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
        with file.open("rb") as content:
            self._asked(
                lambda: self._client.put(
                    begun.headers["location"],
                    params={"digest": digest},
                    headers=headers,
                    content=iter(lambda: content.read(_PIECE), b""),
                    timeout=_LONG,
                )
            )
        return True

    def push_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> None:
        """Have a repository hold a manifest, by a tag or by its digest."""
        headers = {"Authorization": f"Bearer {self._token(f'repository:{repository}:pull,push')}"}
        headers["Content-Type"] = media_type
        path = f"/v2/{repository}/manifests/{reference}"
        self._asked(lambda: self._client.put(path, headers=headers, content=content))

    def check(self) -> None:
        """Make sure that the hub lets the user in. Raises UnauthenticatedError."""
        self._token(CATALOG)

    def _call(self, method: str, path: str, token: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        response = self._asked(lambda: self._client.request(method, path, headers=headers, **arguments))
        return response.json() if response.content else None

    def _token(self, scope: str) -> str:
        auth = (self._context.user, self._secret) if self._context.user else None
        query = {"service": "d2hub", "scope": scope}
        response = self._asked(lambda: self._client.get("/token", params=query, auth=auth))
        return str(response.json()["token"])

    def _asked(self, ask: Callable[[], httpx2.Response]) -> httpx2.Response:
        response = self._answer(ask)
        if response.status_code >= 400:
            raise error_of(response)
        return response

    def _answer(self, ask: Callable[[], httpx2.Response]) -> httpx2.Response:
        try:
            return ask()
        except httpx2.TransportError as error:
            url = self._context.url
            raise UnavailableError(f"the hub at {url} does not answer: {error}", hint=_hint(url, error)) from error


def parse_hub_url(text: str) -> str:
    """Return a hub's address. Raises InvalidInputError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise InvalidInputError(
            f"{text!r} is no address of a hub", hint=f"write https://{text.rpartition('//')[2] or 'HOST:PORT'}"
        )
    return text.rstrip("/")


def _hint(url: str, error: Exception) -> str:
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "name its authority's certificate with 'haneul image login --ca FILE'; the hub has it in DATA/tls/ca.crt"
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER_FAILURE" in said:
        return "it seems to serve without TLS: sign in to http://..."
    if url.startswith("http://") and not isinstance(error, httpx2.ConnectError | httpx2.TimeoutException):
        return "it seems to serve with TLS: sign in to https://..."
    return "is its address right, and is it up?"


def parse_image(text: str) -> tuple[str, str]:
    """Return repository and reference of ``REPOSITORY:TAG`` or ``REPOSITORY@DIGEST``. Raises InvalidInputError."""
    repository, at, reference = text.partition("@")
    if not at:
        repository, _, reference = text.rpartition(":")
    if not repository or not reference or "/" in reference:
        raise InvalidInputError(
            f"{text!r} names no image", hint="write REPOSITORY:TAG or REPOSITORY@DIGEST, without the hub's host"
        )
    return repository, reference
