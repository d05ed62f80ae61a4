"""``/api/v1``: what people want to know of their images, and cannot ask by the OCI specification.

Errors are problem details (RFC 9457). The same tokens are used: scopes of repositories, ``registry:catalog:*`` for
lists, ``registry:maintenance:*`` for collections, which administrators may ask for.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

from haneul.d2hub.collecting import Collector
from haneul.d2hub.errors import ImageInUseError, ManifestUnknownError, NameUnknownError, RequestInvalidError
from haneul.d2hub.exchange import Reply, Request, json_reply
from haneul.d2hub.happenings import Happening
from haneul.d2hub.http_auth import CATALOG, MAINTENANCE, Doorkeeper
from haneul.d2hub.http_inventory import InventoryHttp
from haneul.d2hub.http_records import RecordsHttp
from haneul.d2hub.model import Action, Grant, TagEntry
from haneul.d2hub.names import parse_reference, parse_repository, parse_tag, project_of
from haneul.d2hub.ports import Accounts, MirrorRecords
from haneul.d2hub.quotas import Quotas
from haneul.d2hub.registry import Registry
from haneul.d2hub.rules import ProjectRules, expired_tags
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, NotFoundError

_LARGEST_BODY: Final = 64 << 10
_PAGE: Final = 200
_LONGEST_NUMBER: Final = 18


class ApiHttp:
    """Answers everything below ``/api/v1/``."""

    def __init__(
        self,
        registry: Registry,
        seen: MirrorRecords,
        collector: Collector,
        door: Doorkeeper,
        accounts: Accounts,
        records: RecordsHttp,
        quotas: Quotas,
        inventory: InventoryHttp,
        *,
        clock: Clock,
    ) -> None:
        self._quotas, self._inventory = quotas, inventory
        self._registry, self._seen, self._collector, self._door = registry, seen, collector, door
        self._accounts, self._records, self._clock = accounts, records, clock

    async def answer(self, request: Request) -> Reply:  # noqa: PLR0911 - one for each endpoint
        """Find what is asked for and answer. Raises what is refused."""
        match request.method, request.segments[2:]:
            case "GET", ["repositories"]:
                return await self._repositories(request)
            case "GET", ["tags"]:
                return await self._tags(request)
            case "GET", ["image"]:
                return await self._image(request)
            case "GET", ["history"]:
                return await self._history(request)
            case "GET", ["deletions"]:
                return await self._deletions(request)
            case "POST", ["undelete"]:
                return await self._undelete(request)
            case "GET", ["usage"]:
                return await self._usage(request)
            case "POST", ["collections"]:
                return await self._collect(request)
            case "POST", ["retention"]:
                return await self._retention(request)
            case _, ["audit"] | ["deliveries", *_]:
                return await self._records.answer(request)
            case _, ["inventory", *_]:
                return await self._inventory.answer(request)
        raise NotFoundError(f"there is no {request.method} {request.path[:200]}")

    async def _repositories(self, request: Request) -> Reply:
        projects = await self._visible(request)
        after = request.parameter("continue")
        found = await self._registry.catalog.repositories(projects=projects, after=after, limit=_PAGE)
        items = [
            {
                "name": entry.name,
                "tags": entry.tags,
                "manifests": entry.manifests,
                "updated": entry.updated.isoformat() if entry.updated else None,
            }
            for entry in found
        ]
        return json_reply(200, {"items": items, "continue": found[-1].name if len(found) == _PAGE else ""})

    async def _tags(self, request: Request) -> Reply:
        repository = self._repository(request, Action.PULL)
        after = request.parameter("continue")
        found = await self._registry.catalog.tags(repository, after=after, limit=_PAGE)
        if found is None:
            raise NameUnknownError(f"there is no repository {repository}")
        rules = self._registry.rules.rules(project_of(repository))
        items = [_tag(rules, entry) for entry in found]
        return json_reply(200, {"items": items, "continue": found[-1].name if len(found) == _PAGE else ""})

    async def _image(self, request: Request) -> Reply:
        """Return a manifest with what it says, its tags and its referrers, as many as fit into one answer."""
        repository = parse_repository(request.parameter("repository"))
        grant = self._door.check(request, repository, Action.PULL)
        found = await self._registry.manifest(repository, parse_reference(request.parameter("reference")))
        manifest = json.loads(found.content)
        tags = await self._registry.catalog.tags(repository) or []
        referrers = await self._registry.catalog.referrers(repository, found.digest)
        document = {
            "repository": repository,
            "digest": found.digest,
            "mediaType": found.media_type,
            "size": len(found.content),
            "tags": [entry.name for entry in tags if entry.digest == found.digest],
            "manifest": manifest,
            **await self._inventory.users(repository, [found.digest, *_children(manifest)], grant),
            "referrers": [
                {"digest": entry.digest, "artifactType": entry.artifact_type, "size": entry.size}
                for entry in referrers.entries
            ],
        }
        return json_reply(200, document)

    async def _history(self, request: Request) -> Reply:
        """Return what a mirrored tag named at its upstream, the latest first."""
        repository, tag = self._repository(request, Action.PULL), parse_tag(request.parameter("tag"))
        after = request.parameter("continue")
        if after and not (after.isascii() and after.isdigit() and len(after) <= _LONGEST_NUMBER):
            raise RequestInvalidError(f"continue={after[:40]!r} is not what an answer said")
        found = await self._seen.history(repository, tag, before=int(after) if after else None, limit=_PAGE)
        if not found and not after:
            await self._check_exists(repository)
        items = [{"digest": entry.digest, "since": entry.since.isoformat()} for entry in found]
        return json_reply(200, {"items": items, "continue": str(found[-1].number) if len(found) == _PAGE else ""})

    async def _deletions(self, request: Request) -> Reply:
        repository = self._repository(request, Action.DELETE)
        found = await self._registry.catalog.deletions(repository)
        if not found:
            await self._check_exists(repository)
        items = [
            {
                "tag": entry.tag,
                "digest": entry.digest,
                "deleted": entry.deleted.isoformat(),
                "until": (entry.deleted + self._registry.limits.undo).isoformat(),
                "by": entry.by,
            }
            for entry in found
        ]
        return json_reply(200, {"items": items, "continue": ""})

    async def _undelete(self, request: Request) -> Reply:
        body = await _document(request)
        repository = parse_repository(str(body.get("repository", "")))
        grant = self._door.check(request, repository, Action.DELETE)
        reference = parse_reference(str(body.get("reference", "")))
        by = grant.account if grant else ""
        await self._registry.undelete(repository, reference, by, address=request.address)
        found = await self._registry.manifest(repository, reference)
        return json_reply(200, {"repository": repository, "reference": reference, "digest": found.digest})

    async def _usage(self, request: Request) -> Reply:
        items = [
            {
                "project": entry.project,
                "repositories": entry.repositories,
                "manifests": entry.manifests,
                "tags": entry.tags,
                "blobs": entry.blobs,
                "bytes": entry.blob_bytes,
                **await self._quota(entry.project),
            }
            for entry in await self._registry.catalog.usage(await self._visible(request))
        ]
        return json_reply(200, {"items": items, "continue": ""})

    async def _quota(self, project: str) -> dict[str, int | None]:
        """Return a project's limit, and what counts against it: manifests too, and what can be brought back."""
        limit = self._registry.rules.rules(project).quota_bytes
        return {"quotaBytes": limit, "quotaUsed": None if limit is None else await self._quotas.used(project)}

    async def _collect(self, request: Request) -> Reply:
        await self._door.check_registry(request, MAINTENANCE)
        dry = (await _document(request)).get("dryRun") is True
        done = await (self._collector.preview() if dry else self._collector.collect())
        return json_reply(200, {"dryRun": dry, **asdict(done)})

    async def _retention(self, request: Request) -> Reply:
        """Delete the tags that the project's rules let go, or say which they are."""
        body = await _document(request)
        repository = parse_repository(str(body.get("repository", "")))
        grant = self._door.check(request, repository, Action.DELETE)
        dry = body.get("dryRun") is not False
        tags = await self._registry.catalog.tags(repository)
        if tags is None:
            raise NameUnknownError(f"there is no repository {repository}")
        rules = self._registry.rules.rules(project_of(repository))
        expired = expired_tags(tags, rules, now=self._clock.now())
        running = await self._inventory.running([entry.digest for entry in expired])
        gone = [entry for entry in expired if entry.digest not in running]
        kept = [entry for entry in expired if entry.digest in running]
        if not dry:
            gone = [entry for entry in gone if await self._let_go(request, repository, entry, grant)]
        document = {"items": [_tag(rules, entry) for entry in gone], "inUse": [_tag(rules, entry) for entry in kept]}
        return json_reply(200, {"dryRun": dry, **document})

    async def _let_go(self, request: Request, repository: str, entry: TagEntry, grant: Grant | None) -> bool:
        """Delete a tag; False if somebody set, deleted or ran it since it was looked at."""
        try:
            await self._registry.delete_manifest(
                repository,
                entry.name,
                grant.account if grant else "",
                expected=entry,
                address=request.address,
                happening=Happening.RETENTION,
            )
        except (ManifestUnknownError, ImageInUseError):
            return False
        return True

    def _repository(self, request: Request, action: Action) -> str:
        repository = parse_repository(request.parameter("repository"))
        self._door.check(request, repository, action)
        return repository

    async def _check_exists(self, repository: str) -> None:
        """Raise NameUnknownError if there is no such repository: what is mistyped has no empty list."""
        if await self._registry.catalog.tags(repository, limit=1) is None:
            raise NameUnknownError(f"there is no repository {repository}")

    async def _visible(self, request: Request) -> list[str]:
        """Return the projects whose contents the caller may see: the named one, or all that there are."""
        grant = await self._door.check_registry(request, CATALOG)
        account = await self._accounts.account(grant.account) if grant.account else None
        named = request.parameter("project")
        there = [named] if named else await self._registry.catalog.projects()
        return [name for name in there if Action.PULL in await self._accounts.allowed(account, name)]


def _children(manifest: dict[str, Any]) -> list[str]:
    """Return what an index refers to: nodes may say that they run one of these."""
    return [entry["digest"] for entry in manifest.get("manifests") or []]


def _tag(rules: ProjectRules, entry: TagEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "digest": entry.digest,
        "mediaType": entry.media_type,
        "bytes": entry.size,
        "updated": entry.updated.isoformat(),
        "immutable": rules.keeps_tag(entry.name),
    }


def problem_reply(error: HaneulError, request_id: str) -> Reply:
    """Return an error as problem details."""
    document = {**error.problem_details(), "requestId": request_id}
    return json_reply(error.http_status, document, media_type="application/problem+json")


async def _document(request: Request) -> dict[str, Any]:
    data = await request.read(_LARGEST_BODY)
    try:
        document = json.loads(data or b"{}") if data is not None else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RequestInvalidError("the body is no JSON object, or too large")
    return document
