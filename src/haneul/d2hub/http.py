"""The registry over HTTP: the OCI distribution specification 1.1, endpoint by endpoint.

Numbers such as ``end-4a`` are the specification's. Locations are paths: whoever asked knows the host. What an upload
is stands in its path alone, so a client may put any query behind it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import quote, urlencode

from haneul.d2hub.digests import parse_digest
from haneul.d2hub.errors import (
    BlobUploadInvalidError,
    DigestInvalidError,
    NameUnknownError,
    RangeNotSatisfiableError,
    RequestInvalidError,
    UnsupportedError,
)
from haneul.d2hub.exchange import Headers, Reply, Request, json_reply
from haneul.d2hub.http_auth import CATALOG, MAINTENANCE, ChallengeError, Doorkeeper
from haneul.d2hub.manifests import OCI_INDEX
from haneul.d2hub.mirroring import Mirroring
from haneul.d2hub.model import Action, Content, Grant, GrowingContent, RemoteContent
from haneul.d2hub.names import parse_reference, parse_repository, project_of
from haneul.d2hub.ports import Accounts
from haneul.d2hub.registry import Registry
from haneul.kernel.errors import NotFoundError

VERSION: Final = ("docker-distribution-api-version", "registry/2.0")
_OCTETS: Final = ("content-type", "application/octet-stream")
_DIGEST: Final = "docker-content-digest"
#: Of redirects: where they lead to is over soon.
_NOT_KEPT: Final = ("cache-control", "no-store")
_CONTENT_RANGE: Final = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
#: Tags and repositories in one answer to a client that asked for pages.
_LARGEST_PAGE: Final = 10_000


class RegistryHttp:
    """Answers everything below ``/v2/``."""

    def __init__(self, registry: Registry, mirroring: Mirroring, door: Doorkeeper, accounts: Accounts) -> None:
        self._registry, self._mirroring, self._door, self._accounts = registry, mirroring, door, accounts

    async def answer(self, request: Request) -> Reply:  # noqa: PLR0911 - one for each endpoint
        """Find the endpoint and answer. Raises what is refused."""
        match request.segments:
            case ["v2", ""] | ["v2"]:
                return self._base(request)
            case ["v2", "_catalog"]:
                return await self._catalog(request)
            case ["v2", *name, "manifests", reference] if name:
                return await self._manifest(request, parse_repository("/".join(name)), reference)
            case ["v2", *name, "blobs", "uploads", ""] | ["v2", *name, "blobs", "uploads"] if name:
                return await self._uploads(request, parse_repository("/".join(name)))
            case ["v2", *name, "blobs", "uploads", upload] if name:
                return await self._upload(request, parse_repository("/".join(name)), upload)
            case ["v2", *name, "blobs", digest] if name:
                return await self._blob(request, parse_repository("/".join(name)), digest)
            case ["v2", *name, "tags", "list"] if name:
                return await self._tags(request, parse_repository("/".join(name)))
            case ["v2", *name, "referrers", digest] if name:
                return await self._referrers(request, parse_repository("/".join(name)), digest)
        raise NotFoundError(f"there is no {request.path[:200]}")

    def _base(self, request: Request) -> Reply:
        """end-1."""
        _only(request, "GET", "HEAD")
        if self._door.grant(request) is None:
            raise ChallengeError("sign in first", scope="")
        return json_reply(200, {})

    async def _manifest(self, request: Request, repository: str, reference: str) -> Reply:
        """end-3, end-7, end-9."""
        match request.method:
            case "GET" | "HEAD":
                self._door.check(request, repository, Action.PULL)
                pulled = await self._mirroring.manifest(repository, parse_reference(reference))
                found = pulled.manifest
                headers = [("content-type", found.media_type), (_DIGEST, found.digest), ("etag", f'"{found.digest}"')]
                if pulled.stale:
                    headers.append(("warning", f'110 d2hub "served as it was before: {pulled.stale}"'))
                if _is_known(request, found.digest):
                    return Reply(304, headers)
                return Reply(200, headers, found.content)
            case "PUT":
                grant = self._door.check(request, repository, Action.PULL, Action.PUSH)
                self._mirroring.mirrors.refuse_push(repository)
                content = await request.read(self._registry.limits.manifest_bytes)
                if content is None:
                    raise self._registry.too_large()
                media_type = request.headers.get("content-type", "")
                pushed = await self._registry.put_manifest(
                    repository, reference, content, media_type, _who(grant), address=request.address
                )
                location = f"/v2/{repository}/manifests/{pushed.digest}"
                headers = [("location", location), (_DIGEST, pushed.digest)]
                if pushed.subject:
                    headers.append(("oci-subject", pushed.subject))
                return Reply(201, headers)
            case "DELETE":
                grant = self._door.check(request, repository, Action.DELETE)
                forced = request.parameter("force") == "true"
                if forced:
                    await self._door.check_registry(request, MAINTENANCE)
                await self._registry.delete_manifest(
                    repository, parse_reference(reference), _who(grant), address=request.address, forced=forced
                )
                return Reply(202)
        raise _unsupported(request)

    async def _blob(self, request: Request, repository: str, text: str) -> Reply:
        """end-2, end-10."""
        digest = str(parse_digest(text))
        match request.method:
            case "GET" | "HEAD":
                grant = self._door.check(request, repository, Action.PULL)
                pushes = grant is not None and grant.allows(repository, Action.PUSH)
                asked = request.headers.get("range") if request.method == "GET" else None
                content = await self._mirroring.blob(repository, digest, relied_on=pushes, whole=asked is not None)
                headers = [_OCTETS, (_DIGEST, digest), ("etag", f'"{digest}"'), ("accept-ranges", "bytes")]
                if _is_known(request, digest):
                    return Reply(304, headers)
                if request.method == "HEAD":
                    return Reply(200, headers, content)
                if isinstance(content, RemoteContent) and content.link is not None:
                    return Reply(307, [("location", await content.link()), (_DIGEST, digest), _NOT_KEPT])
                part = _part(asked, content.size)
                if part is None:
                    return Reply(200, headers, await _opened(content, (0, content.size - 1)))
                headers.append(("content-range", f"bytes {part[0]}-{part[1]}/{content.size}"))
                return Reply(206, headers, await _opened(content, part), part)
            case "DELETE":
                grant = self._door.check(request, repository, Action.DELETE)
                await self._registry.delete_blob(repository, digest, _who(grant), address=request.address)
                return Reply(202)
        raise _unsupported(request)

    async def _uploads(self, request: Request, repository: str) -> Reply:
        """end-4a, end-4b, end-11."""
        _only(request, "POST")
        grant = self._door.check(request, repository, Action.PULL, Action.PUSH)
        self._mirroring.mirrors.refuse_push(repository)
        if wanted := request.parameter("mount"):
            digest = str(parse_digest(wanted))
            sources = await self._sources(request, grant, repository, digest)
            if await self._registry.mount(repository, digest, sources):
                return _made(repository, digest)
        elif wanted := request.parameter("digest"):
            whole = parse_digest(wanted)
            await self._registry.push_blob(repository, whole, request.body.parts())
            return _made(repository, str(whole))
        upload = await self._registry.store.begin(repository)
        return _under_way(202, repository, upload, 0)

    async def _upload(self, request: Request, repository: str, upload: str) -> Reply:
        """end-5, end-6, end-13, and the cancellation that Docker's specification has."""
        self._door.check(request, repository, Action.PULL, Action.PUSH)
        self._mirroring.mirrors.refuse_push(repository)
        store = self._registry.store
        match request.method:
            case "GET" | "HEAD":
                return _under_way(204, repository, upload, await store.size(repository, upload))
            case "PATCH":
                at, parts = _chunk(request)
                size = await store.append(repository, upload, parts, at=at)
                return _under_way(202, repository, upload, size)
            case "PUT":
                wanted = request.parameter("digest")
                if not wanted:
                    raise DigestInvalidError("the parameter 'digest' is missing")
                digest = parse_digest(wanted)
                at, parts = _chunk(request)
                if at is not None or request.content_length != 0:
                    await store.append(repository, upload, parts, at=at)
                await self._registry.finish_upload(repository, upload, digest)
                return _made(repository, str(digest))
            case "DELETE":
                await store.cancel(repository, upload)
                return Reply(204)
        raise _unsupported(request)

    async def _tags(self, request: Request, repository: str) -> Reply:
        """end-8a, end-8b."""
        _only(request, "GET", "HEAD")
        self._door.check(request, repository, Action.PULL)
        limit, after = _page(request), request.parameter("last")
        found = await self._registry.catalog.tags(repository, after=after, limit=None if limit is None else limit + 1)
        if found is None:
            raise NameUnknownError(f"there is no repository {repository}")
        names = [entry.name for entry in found]
        headers = _next_page(f"/v2/{repository}/tags/list", names, limit)
        return json_reply(200, {"name": repository, "tags": names[:limit]}, headers)

    async def _referrers(self, request: Request, repository: str, text: str) -> Reply:
        """end-12a, end-12b."""
        _only(request, "GET", "HEAD")
        digest = str(parse_digest(text))
        self._door.check(request, repository, Action.PULL)
        artifact_type = request.parameter("artifactType")
        entries = []
        after = request.parameter("last")
        page = await self._registry.catalog.referrers(repository, digest, artifact_type, after=after)
        for found in page.entries:
            entry: dict[str, object] = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
            if found.artifact_type:
                entry["artifactType"] = found.artifact_type
            if found.annotations:
                entry["annotations"] = dict(found.annotations)
            entries.append(entry)
        headers: Headers = [("oci-filters-applied", "artifactType")] if artifact_type else []
        if page.more:
            asked = {"last": page.entries[-1].digest} | ({"artifactType": artifact_type} if artifact_type else {})
            headers.append(("link", f'</v2/{repository}/referrers/{digest}?{urlencode(asked)}>; rel="next"'))
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return json_reply(200, document, headers, media_type=OCI_INDEX)

    async def _catalog(self, request: Request) -> Reply:
        """Docker's list of repositories, which the OCI specification left out: of those that the caller may pull."""
        _only(request, "GET", "HEAD")
        grant = await self._door.check_registry(request, CATALOG)
        account = await self._accounts.account(grant.account) if grant.account else None
        limit = _page(request)
        names: list[str] = []
        after = request.parameter("last")
        at_once = 1000 if limit is None else min(limit + 1, 1000)
        while limit is None or len(names) <= limit:
            found = await self._registry.catalog.names(after=after, limit=at_once)
            for name in found:
                if Action.PULL in await self._accounts.allowed(account, project_of(name)):
                    names.append(name)
            if len(found) < at_once:
                break
            # Much was left out, so there may be more of that.
            after, at_once = found[-1], min(at_once * 4, 1000)
        return json_reply(200, {"repositories": names[:limit]}, _next_page("/v2/_catalog", names, limit))

    async def _sources(self, request: Request, grant: Grant | None, repository: str, digest: str) -> Sequence[str]:
        """Return where a blob may be mounted from: the named repository, or any of the same project.

        It has to be one that the request's token allows to pull from, or everybody may: what the account may besides
        is no business of a token that was given out for less.
        """
        if named := request.parameter("from"):
            source = parse_repository(named)
            public = self._registry.rules.rules(project_of(source)).public
            return [source] if public or (grant is not None and grant.allows(source, Action.PULL)) else []
        project = project_of(repository)
        if self._registry.rules.rules(project).public:
            return await self._registry.catalog.homes(digest, project=project)
        allowed = grant.repositories if grant is not None else {}
        return [name for name, may in allowed.items() if Action.PULL in may and project_of(name) == project]


def _who(grant: Grant | None) -> str:
    return grant.account if grant is not None else ""


def _made(repository: str, digest: str) -> Reply:
    return Reply(201, [("location", f"/v2/{repository}/blobs/{digest}"), (_DIGEST, digest)])


def _under_way(status: int, repository: str, upload: str, size: int) -> Reply:
    headers = [
        ("location", f"/v2/{repository}/blobs/uploads/{upload}"),
        ("range", f"0-{max(size - 1, 0)}"),
        ("docker-upload-uuid", upload),
    ]
    return Reply(status, headers)


def _chunk(request: Request) -> tuple[int | None, AsyncIterator[bytes]]:
    """Return where a chunk of an upload begins, if the request says so, and its bytes.

    Raises BlobUploadInvalidError; so do the bytes.
    """
    text = request.headers.get("content-range")
    if text is None:
        return None, request.body.parts()
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise BlobUploadInvalidError(f"Content-Range {text[:80]!r} is not of the form 'first-last'")
    first, last = int(found[1]), int(found[2])
    length = request.content_length
    if last < first or (length is not None and length != last - first + 1):
        raise BlobUploadInvalidError(f"Content-Range {first}-{last} does not fit {length} bytes")
    return first, _exactly(request.body.parts(), last - first + 1)


async def _exactly(parts: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """Yield a chunk whose length only its Content-Range says. Raises BlobUploadInvalidError if it has another."""
    received = 0
    async for part in parts:
        received += len(part)
        if received > length:
            raise BlobUploadInvalidError(f"more than the {length} bytes arrived that Content-Range says")
        yield part
    if received < length:
        raise BlobUploadInvalidError(f"{received} bytes arrived, and Content-Range says {length}")


def _part(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last byte that a Range asks for, or None for everything (RFC 9110, section 14.2).

    Several ranges at once, and what is malformed, are answered with everything. Raises RangeNotSatisfiableError.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        first, last = max(size - int(found[2]), 0), size - 1
        if int(found[2]) == 0:
            first = size
    else:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < first:
            return None
    if first >= size:
        raise RangeNotSatisfiableError(f"the blob has {size} bytes", size=size)
    return first, last


async def _opened(content: Content | GrowingContent, part: tuple[int, int]) -> Content | GrowingContent:
    """Return what can be sent: content on other machines once it begins to come, so that errors still have a status."""
    if not isinstance(content, RemoteContent):
        return content
    parts = await content.read(*part)
    return GrowingContent(part[1] - part[0] + 1, lambda: parts)


def _is_known(request: Request, digest: str) -> bool:
    said = request.headers.get("if-none-match")
    return said is not None and digest in said


def _page(request: Request) -> int | None:
    text = request.parameter("n")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise RequestInvalidError(f"n={text[:40]!r} is no number")
    return min(int(text[:9]), _LARGEST_PAGE)


def _next_page(path: str, names: Sequence[str], limit: int | None) -> Headers:
    if not limit or len(names) <= limit:
        return []
    return [("link", f'<{path}?n={limit}&last={quote(names[limit - 1], safe="")}>; rel="next"')]


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise _unsupported(request)


def _unsupported(request: Request) -> UnsupportedError:
    return UnsupportedError(f"{request.method} is nothing that can be done with {request.path[:200]}")
