"""The Kubernetes port over HTTP, with aiohttp.

Neighbours: :mod:`haneul.kernel.kube` has the port. Every call has a deadline; a watch reconnects with back-off and
starts over from a list when its history is gone (HTTP 410, Kubernetes documentation "API concepts").
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypeAlias

import aiohttp
import yaml

from haneul.kernel.errors import InvalidInputError, UnavailableError
from haneul.kernel.kube import FIELD_MANAGER, KubeAccess, KubeApiError, Manifest, Resource, WatchEvent
from haneul.kernel.kube_budget import Account
from haneul.kernel.tls import client_context

_CALL_SECONDS = 20.0
_WATCH_SECONDS = 240
_BACKOFF_FIRST, _BACKOFF_LAST = 0.2, 10.0
#: An API server that did not take a request says in how many seconds it may (RFC 9110, section 10.2.3). So short a time
#: is waited for here, so often; a longer one, as of evictions, is whoever asks to decide on.
_ASK_AGAIN_SECONDS, _ASK_AGAIN_TIMES = 2, 5
#: Some of the objects of a list, and the version that all of it is of.
_Page: TypeAlias = tuple[list[Manifest], str]


@dataclass
class _Watched:
    """Objects that are watched: which, the version they were seen in, and what was seen of each."""

    resource: Resource
    namespace: str
    selector: Mapping[str, str]
    version: str = ""
    seen: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return _path(self.resource, self.namespace)

    @property
    def listed(self) -> str:
        return _listed(self.resource, self.selector)


class HttpKubeClient:
    """One API server, one identity, one connection pool."""

    def __init__(self, access: KubeAccess, *, user_agent: str = "haneul", account: Account | None = None) -> None:
        """With an ``account`` of a budget, lists come in pages, and of objects only so much as that one keeps."""
        self._access = access
        self._account = account
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; of what was read, nothing is counted any more."""
        if self._account is not None:
            self._account.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        """Return the object, or None."""
        try:
            return await self._call("GET", _path(resource, namespace, name))
        except KubeApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Return all objects that match."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {name: value for name, value in selectors.items() if value}
        if self._account is not None:
            return [item async for page, _ in self._pages(self._account, resource, namespace, query) for item in page]
        answer = await self._call("GET", _path(resource, namespace), query=query)
        return [_typed(item, resource) for item in answer.get("items") or []]

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Server-side apply under Haneul's field manager."""
        metadata = manifest["metadata"]
        return await self._call(
            "PATCH",
            _path(resource, metadata.get("namespace", ""), metadata["name"], subresource),
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Create the object, or ask its subresource."""
        metadata = manifest["metadata"]
        name = metadata["name"] if subresource else ""
        path = _path(resource, metadata.get("namespace", ""), name, subresource)
        return await self._call("POST", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        """Merge ``patch`` into the object."""
        return await self._call(
            "PATCH",
            _path(resource, namespace, name, subresource),
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content_type="application/merge-patch+json",
        )

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None) -> bool:
        """Ask for the object's end."""
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", _path(resource, namespace, name), body=body)
        except KubeApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def watch(self, resource: Resource, namespace: str = "", *, labels: str = "") -> AsyncIterator[WatchEvent]:
        """Yield what is and what changes, without end."""
        backoff = _BACKOFF_FIRST
        watched = _Watched(resource, namespace, {"labelSelector": labels} if labels else {})
        time = asyncio.get_running_loop().time
        while True:
            started, useful = time(), False
            try:
                if not watched.version:
                    listing = self._catch_up(watched) if self._account is None else self._catch_up_in_pages(watched)
                    async with contextlib.aclosing(listing) as found:
                        async for event in found:
                            yield event
                async with contextlib.aclosing(self._stream(watched)) as stream:
                    async for event in stream:
                        if event.type == "ERROR":
                            watched.version = ""
                            break
                        watched.version, useful = event.object["metadata"]["resourceVersion"], True
                        backoff = _BACKOFF_FIRST
                        if event.type != "BOOKMARK":
                            yield self._noted(watched, event)
                # Servers end quiet watches after minutes; one that ends them at once is not to be asked without pause.
                if useful or time() - started > _BACKOFF_LAST:
                    continue
            except (UnavailableError, KubeApiError) as error:
                if isinstance(error, KubeApiError) and error.status == 410:
                    watched.version = ""
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _BACKOFF_LAST)

    async def _catch_up(self, watched: _Watched) -> AsyncGenerator[WatchEvent]:
        """List what is watched, and yield what differs from what was seen."""
        answer = await self._call("GET", watched.path, query=watched.selector)
        watched.version = answer["metadata"]["resourceVersion"]
        there = {_place(item): _typed(item, watched.resource) for item in answer.get("items") or []}
        # What went while nobody watched is in no event; it was there and is missing now.
        gone = [watched.seen[place] for place in watched.seen.keys() - there.keys()]
        watched.seen = there
        for item in gone:
            yield WatchEvent("DELETED", item)
        for item in list(there.values()):
            yield WatchEvent("ADDED", item)

    async def _catch_up_in_pages(self, watched: _Watched) -> AsyncGenerator[WatchEvent]:
        """Do the same page by page; of what was seen no more is kept than which objects these were."""
        account, listed, there = self._ready_account(), "", {}
        pages = self._pages(account, watched.resource, watched.namespace, watched.selector)
        async with contextlib.aclosing(pages) as found:
            async for page, version in found:
                listed = version
                for item in page:
                    there[_place(item)] = watched.seen[_place(item)] = _skeleton(item)
                    yield WatchEvent("ADDED", item)
        gone = [watched.seen[place] for place in watched.seen.keys() - there.keys()]
        watched.seen, watched.version = there, listed
        for item in gone:
            yield WatchEvent("DELETED", item)

    def _noted(self, watched: _Watched, event: WatchEvent) -> WatchEvent:
        """Return an event as it is told, after noting what there is then. Raises OverBudgetError."""
        place, account = _place(event.object), self._account
        if event.type == "DELETED":
            watched.seen.pop(place, None)
            if account is not None:
                account.drop(watched.listed, place)
            return event
        if account is None:
            watched.seen[place] = event.object
            return event
        kept = account.keep(watched.listed, watched.resource, event.object)
        watched.seen[place] = _skeleton(kept)
        return WatchEvent(event.type, kept)

    def _ready_account(self) -> Account:
        if self._account is None:
            raise AssertionError("only who has an account reads in pages")
        return self._account

    async def _pages(
        self, account: Account, resource: Resource, namespace: str, selector: Mapping[str, str]
    ) -> AsyncGenerator[_Page]:
        """Yield a list page by page, each with the version that all of it is of. Raises OverBudgetError.

        Source: Kubernetes documentation "API concepts", "Retrieving large results sets in chunks".
        """
        listed = _listed(resource, selector)
        before = account.begin(listed)
        try:
            async with contextlib.aclosing(self._counted_pages(account, resource, namespace, selector)) as pages:
                async for page in pages:
                    yield page
        except (UnavailableError, KubeApiError):
            # A page failed, or the version of the list is gone (410): whoever asks again begins with the first page.
            account.resume(listed, before)
            raise

    async def _counted_pages(
        self, account: Account, resource: Resource, namespace: str, selector: Mapping[str, str]
    ) -> AsyncGenerator[_Page]:
        limit, following, listed = account.budget.page, "", _listed(resource, selector)
        while True:
            query = {**selector, "limit": str(limit), **({"continue": following} if following else {})}
            text = await self._bounded(_path(resource, namespace), query, account.budget.page_octets)
            if text is None:
                if limit == 1:
                    raise account.too_large(listed)
                # Larger objects than were thought of: fewer at once.
                limit = max(1, limit // 5)
                continue
            try:
                answer = json.loads(text)
            except ValueError as error:
                raise self._unavailable(error) from error
            del text
            items = answer.pop("items", None) or []
            page = [account.keep(listed, resource, _typed(item, resource)) for item in items]
            del items
            yield page, answer["metadata"]["resourceVersion"]
            following = answer["metadata"].get("continue") or ""
            if not following:
                return

    async def _bounded(self, path: str, query: Mapping[str, str], longest: int) -> bytes | None:
        """Return what a GET is answered with; None if that is longer than may be."""
        try:
            async with self._ready_session().get(
                path,
                params=query,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS, sock_connect=5),
            ) as response:
                text = bytearray()
                async for piece in response.content.iter_any():
                    text += piece
                    if len(text) > longest:
                        # What is left is on its way already; nobody waits for it.
                        if response.connection is not None and response.connection.transport is not None:
                            response.connection.transport.abort()
                        return None
                if response.status >= 400:
                    raise _refusal(text.decode(errors="replace"), response.status)
                return bytes(text)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._unavailable(error) from error

    async def raw_get(self, path: str) -> str:
        """Return the body of a plain GET; raises KubeApiError for a status of 400 and above."""
        try:
            async with self._ready_session().get(
                path, headers=self._headers(), timeout=aiohttp.ClientTimeout(total=5)
            ) as response:
                text = await response.text()
                if response.status >= 400:
                    raise KubeApiError(text, status=response.status, reason=response.reason or "")
                return text
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._unavailable(error) from error

    async def _stream(self, watched: _Watched) -> AsyncGenerator[WatchEvent]:
        query = {
            **watched.selector,
            "watch": "true",
            "resourceVersion": watched.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, sock_connect=5)
        try:
            async with self._ready_session().get(
                watched.path, params=query, headers=self._headers(), timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise _refusal(await response.text(), response.status)
                # In pieces, not by the library's lines: those have a longest length, objects may be larger.
                pending = b""
                async for piece in response.content.iter_any():
                    *lines, pending = (pending + piece).split(b"\n")
                    if self._account is not None and len(pending) > self._account.budget.page_octets:
                        raise self._account.too_large("objects")
                    for line in filter(None, lines):
                        data = json.loads(line)
                        yield WatchEvent(data["type"], data["object"])
        except (TimeoutError, aiohttp.ClientError, OSError, json.JSONDecodeError) as error:
            raise self._unavailable(error) from error

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        headers = {**self._headers(), "Content-Type": content_type}
        data = json.dumps(body) if body is not None else None
        try:
            for times_left in reversed(range(_ASK_AGAIN_TIMES + 1)):
                async with self._ready_session().request(
                    method,
                    path,
                    params=query,
                    headers=headers,
                    data=data,
                    timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS, sock_connect=5),
                ) as response:
                    text = await response.text()
                    if response.status < 400:
                        answer: Manifest = json.loads(text)
                        return answer
                    seconds = _retry_after(response) if times_left else None
                    if seconds is None:
                        raise _refusal(text, response.status)
                await asyncio.sleep(seconds)
        except (TimeoutError, aiohttp.ClientError, OSError, json.JSONDecodeError) as error:
            raise self._unavailable(error) from error
        raise AssertionError("the last refusal is raised")

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"the Kubernetes API at {self._access.server} does not answer: {str(error) or type(error).__name__}"
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if self._access.token_file:
            headers["Authorization"] = "Bearer " + Path(self._access.token_file).read_text().strip()
        return headers

    def _ready_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            access = self._access
            context = client_context(access.authority, access.client_certificate, access.client_key)
            self._session = aiohttp.ClientSession(
                base_url=access.server,
                connector=aiohttp.TCPConnector(ssl=context, limit=64),
            )
        return self._session


def access_from_kubeconfig(path: Path) -> KubeAccess:
    """Return the access of a kubeconfig's current context; certificates embedded or in files.

    Raises InvalidInputError if the file cannot be read or is none.
    """
    try:
        return _access(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.filename} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise InvalidInputError(
            f"{path} is no kubeconfig with a current context, its cluster and its user",
            hint="'haneul cluster kubeconfig' and 'kubectl config view --raw --minify' write one",
        ) from error


def _access(config: dict[str, Any]) -> KubeAccess:
    import base64  # noqa: PLC0415 - only kubeconfigs need it

    context = next(entry["context"] for entry in config["contexts"] if entry["name"] == config["current-context"])
    cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == context["cluster"])
    user = next(entry["user"] for entry in config["users"] if entry["name"] == context["user"])

    def pem(section: Mapping[str, str], name: str) -> bytes:
        if f"{name}-data" in section:
            return base64.b64decode(section[f"{name}-data"])
        return Path(section[name]).read_bytes() if name in section else b""

    return KubeAccess(
        server=cluster["server"],
        authority=pem(cluster, "certificate-authority"),
        client_certificate=pem(user, "client-certificate"),
        client_key=pem(user, "client-key"),
    )


_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def access_in_cluster(server: str = "https://kubernetes.default.svc") -> KubeAccess:
    """Return the access that Kubernetes gives to a pod (documentation "Accessing the API from a Pod")."""
    import os  # noqa: PLC0415 - the kubelet tells a pod its API server's address by environment

    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    return KubeAccess(
        server=f"https://{host}:{port}" if host else server,
        authority=(_SERVICE_ACCOUNT / "ca.crt").read_bytes(),
        token_file=str(_SERVICE_ACCOUNT / "token"),
    )


def _path(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if resource.namespaced and namespace:
        prefix += f"/namespaces/{namespace}"
    return "/".join(part for part in (prefix, resource.plural, name, subresource) if part)


def _place(item: Manifest) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _listed(resource: Resource, selector: Mapping[str, str]) -> str:
    """Return what a list is called: a kind, with what chooses among its objects."""
    return " ".join([resource.plural, *selector.values()])


def _skeleton(item: Manifest) -> Manifest:
    """Return what is left to say of an object that goes: which one it was."""
    metadata = item["metadata"]
    kept = {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": kept}


def _typed(item: Manifest, resource: Resource) -> Manifest:
    """Lists leave out their items' type; put it back so that a manifest is always whole."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    """Return after how many seconds to ask again what was not taken; None if it was, or is not to be waited for."""
    told = response.headers.get("Retry-After", "")
    if response.status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) or not told.isdecimal():
        return None
    return seconds if (seconds := int(told)) <= _ASK_AGAIN_SECONDS else None


def _refusal(text: str, status: int) -> KubeApiError:
    """Return the API's refusal; something between it and us may refuse in words of its own."""
    body: Any = None
    with contextlib.suppress(json.JSONDecodeError):
        body = json.loads(text)
    if not isinstance(body, dict):
        body = {"message": text.strip()}
    message = str(body.get("message", text))
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        # Which disruption budget holds a pod, and how many it wants, stands in the causes alone.
        causes = (body.get("details") or {}).get("causes") or []
        message = " ".join([message, *(str(cause.get("message", "")) for cause in causes)]).strip()
    return KubeApiError(message, status=status, reason=str(body.get("reason", "")))
