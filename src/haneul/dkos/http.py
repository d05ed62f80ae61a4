"""DKOS's part of the REST API. Who the caller is and may do comes through a port.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.cluster_store import ClusterEvent
from haneul.dkos.event_log import EventRecord
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.dkos.ports import Access, Caller, PoolAskers
from haneul.dkos.service import Asking, ClusterService
from haneul.kernel.errors import HaneulError
from haneul.kernel.http import decode_continue, encode_continue

_RECORD_EVERY = timedelta(hours=1)


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewCluster(_Value):
    """A cluster to make."""

    name: str
    spec: ClusterSpec = ClusterSpec()


class ClusterPage(_Value):
    """A page of clusters, by name."""

    items: list[Cluster]
    continue_token: str | None = Field(default=None, alias="continue")


class Rotation(_Value):
    """A request for new authorities and keys of a cluster."""

    grace_seconds: int = Field(default=3600, ge=0, le=30 * 24 * 3600)


class ClusterEvents(_Value):
    """What happened to a cluster, newest last."""

    items: list[EventRecord]


class CredentialRequest(_Value):
    """A PKCS #10 request in PEM for an elliptic-curve key that stays with the caller."""

    certificate_request: str


class ClusterCredential(_Value):
    """A certificate for an hour, and what is needed to use it."""

    certificate: str
    certificate_authority: str
    server: str
    expires: datetime


class ClusterAccessToken(_Value):
    """A token that ends within a minute, and what is needed to use it."""

    token: str = Field(repr=False)
    certificate_authority: str
    server: str
    expires: datetime


def clusters_router(
    service: ClusterService, access: Access, askers: PoolAskers, *, heartbeat_seconds: float
) -> APIRouter:
    """Return the routes for clusters. While a watch is silent it shows every ``heartbeat_seconds`` that it lives."""
    router = APIRouter(prefix="/projects/{project}/clusters", tags=["clusters"])
    signed_in = Annotated[Caller, Depends(access.caller)]

    def asking(caller: Caller, project: str, name: str) -> Asking:
        return lambda pools: askers.note(caller, project, name, pools)

    @router.get("", response_model=ClusterPage)
    async def list_clusters(
        project: str,
        request: Request,
        caller: signed_in,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        continue_token: Annotated[str | None, Query(alias="continue")] = None,
        watch: bool = False,
        name: str | None = None,
    ) -> Any:
        await access.look(caller, project)
        if watch:

            async def still_allowed() -> None:
                await access.look(await access.caller(request), project)

            events = _events(service.watch(project), name, heartbeat_seconds, still_allowed)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        after = decode_continue(continue_token) if continue_token else ""
        clusters = [cluster for cluster in await service.list(project) if cluster.name > after]
        page = clusters[:limit]
        more = encode_continue(page[-1].name) if len(clusters) > limit else None
        return ClusterPage(items=page, **{"continue": more})

    @router.post("", status_code=201)
    async def create_cluster(project: str, body: NewCluster, request: Request, caller: signed_in) -> Cluster:
        await access.change(caller, project)
        async with access.recording(request, caller, "cluster.create", body.name, project):
            return await service.create(
                project,
                body.name,
                body.spec,
                asking=asking(caller, project, body.name),
                confirm=lambda: access.change(caller, project),
            )

    @router.get("/{name}")
    async def get_cluster(project: str, name: str, caller: signed_in) -> Cluster:
        await access.look(caller, project)
        return await service.get(project, name)

    @router.patch("/{name}")
    async def change_cluster(
        project: str, name: str, patch: Annotated[dict[str, Any], Body()], request: Request, caller: signed_in
    ) -> Cluster:
        await access.change(caller, project)
        async with access.recording(request, caller, "cluster.change", f"{name} {json.dumps(patch)}"[:200], project):
            return await service.change(project, name, patch, now=access.now(), asking=asking(caller, project, name))

    _add_sleep(router, service, access)

    @router.delete("/{name}", status_code=202)
    async def delete_cluster(project: str, name: str, request: Request, caller: signed_in) -> Cluster:
        await access.change(caller, project)
        async with access.recording(request, caller, "cluster.delete", name, project):
            return await service.delete(project, name)

    @router.post("/{name}/rotate-authorities", status_code=202)
    async def rotate_authorities(
        project: str, name: str, body: Rotation, request: Request, caller: signed_in
    ) -> Cluster:
        await access.own(caller, project)
        target = f"{name} grace {body.grace_seconds} s"
        async with access.recording(request, caller, "cluster.rotate-authorities", target, project):
            return await service.rotate_authorities(project, name, grace=timedelta(seconds=body.grace_seconds))

    @router.post("/{name}/look", status_code=202)
    async def request_look(project: str, name: str, caller: signed_in) -> Cluster:
        """Ask for a look at the cluster; its status comes from it once ``lookAnswered`` is ``lookRequested``."""
        await access.look(caller, project)
        return await service.request_look(project, name, now=access.now())

    @router.get("/{name}/events")
    async def list_cluster_events(
        project: str, name: str, caller: signed_in, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> ClusterEvents:
        await access.look(caller, project)
        return ClusterEvents(items=list(await service.events(project, name, limit=limit)))

    @router.post("/{name}/credentials", status_code=201)
    async def create_credential(
        project: str, name: str, body: CredentialRequest, request: Request, caller: signed_in
    ) -> ClusterCredential:
        role = await access.look(caller, project)
        async with access.recording(request, caller, "cluster.credential", name, project):
            made = await service.credential(
                project,
                name,
                person=caller.person,
                role=role,
                request=body.certificate_request.encode(),
                now=access.now(),
            )
        return ClusterCredential(
            certificate=made.certificate,
            certificate_authority=made.authority,
            server=made.server,
            expires=made.expires,
        )

    recorded: dict[tuple[str, str, str], datetime] = {}

    @router.post("/{name}/token", status_code=201)
    async def create_cluster_token(project: str, name: str, request: Request, caller: signed_in) -> ClusterAccessToken:
        role, now = await access.look(caller, project), access.now()
        # Whoever works with a cluster asks twice a minute; once an hour says as much.
        for key in [key for key, moment in recorded.items() if now - moment >= _RECORD_EVERY]:
            del recorded[key]
        asked = (caller.person, project, name)
        recording = access.recording(request, caller, "cluster.token", name, project)
        async with contextlib.nullcontext() if asked in recorded else recording:
            made = await service.token(project, name, person=caller.person, role=role)
        recorded.setdefault(asked, now)
        return ClusterAccessToken(
            token=made.token, certificate_authority=made.authority, server=made.server, expires=made.expires
        )

    return router


def _add_sleep(router: APIRouter, service: ClusterService, access: Access) -> None:
    """Add the routes with which people put clusters to sleep and wake them."""
    signed_in = Annotated[Caller, Depends(access.caller)]

    @router.post("/{name}/hibernate", status_code=202)
    async def hibernate_cluster(project: str, name: str, request: Request, caller: signed_in) -> Cluster:
        await access.change(caller, project)
        async with access.recording(request, caller, "cluster.hibernate", name, project):
            return await service.rest(project, name, asleep=True, now=access.now())

    @router.post("/{name}/wake", status_code=202)
    async def wake_cluster(project: str, name: str, request: Request, caller: signed_in) -> Cluster:
        await access.change(caller, project)
        async with access.recording(request, caller, "cluster.wake", name, project):
            return await service.rest(project, name, asleep=False, now=access.now())


async def _events(
    changes: AsyncGenerator[ClusterEvent],
    name: str | None,
    heartbeat_seconds: float,
    still_allowed: Callable[[], Awaitable[None]],
) -> AsyncIterator[str]:
    """Yield changes as server-sent events (HTML standard, section 9.2), and comments so that silence means trouble.

    Rights may end while a stream lasts; they are looked at again with every comment.
    """
    time = asyncio.get_running_loop().time
    due = time() + heartbeat_seconds
    coming = asyncio.ensure_future(anext(changes))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=max(0.0, due - time()))
            if time() >= due:
                await still_allowed()
                yield ": still here\n\n"
                due = time() + heartbeat_seconds
            if not done:
                continue
            change = coming.result()
            coming = asyncio.ensure_future(anext(changes))
            if name is None or change.cluster.name == name:
                yield f"event: {change.type}\ndata: {change.cluster.model_dump_json(by_alias=True)}\n\n"
    except (StopAsyncIteration, HaneulError):
        # The answer began long ago; all that can be said is its end. Who asks again is told why.
        return
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await coming
        if coming.done():
            await changes.aclose()
