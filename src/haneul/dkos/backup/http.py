"""Backups in the REST API: looking at them, and restoring from them.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.requests import Asked
from haneul.dkos.model import Cluster
from haneul.dkos.ports import Access, Caller, PoolAskers
from haneul.dkos.service import ClusterService


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Restore(_Value):
    """A request for a state of a cluster's backup: the last before a moment, a revision's, or by default the newest."""

    moment: datetime | None = None
    revision: int | None = Field(default=None, ge=1)
    new_name: str | None = Field(
        default=None, alias="as", description="Name of a new cluster; by default the state comes into the same one."
    )


class Backups(_Value):
    """Backups of a project's clusters, by name."""

    items: list[Catalogue]


def backups_router(service: ClusterService, access: Access, askers: PoolAskers) -> APIRouter:
    """Return the routes for backups."""
    router = APIRouter(prefix="/projects/{project}", tags=["backups"])
    signed_in = Annotated[Caller, Depends(access.caller)]

    @router.get("/backups")
    async def list_backups(project: str, caller: signed_in, deleted: Annotated[bool, Query()] = False) -> Backups:
        await access.look(caller, project)
        return Backups(items=list(await service.backups(project, deleted=deleted)))

    @router.get("/clusters/{name}/backups")
    async def get_cluster_backups(project: str, name: str, caller: signed_in) -> Catalogue:
        await access.look(caller, project)
        return await service.backup(project, name)

    @router.post("/clusters/{name}/restore", status_code=202)
    async def restore_cluster(project: str, name: str, body: Restore, request: Request, caller: signed_in) -> Cluster:
        """Restore a cluster; a restore brings back what was taken away, rights too, so it is the owners'."""
        await access.own(caller, project)
        asked = Asked(body.revision, body.moment)
        state = f"revision {body.revision}" if body.revision else "the newest state"
        if body.moment is not None:
            state = f"moment {body.moment.isoformat()}"
        target = f"{name} as {body.new_name}, {state}" if body.new_name else f"{name}, {state}"
        async with access.recording(request, caller, "cluster.restore", target, project):
            new = body.new_name
            if new is None:
                return await service.restore(project, name, asked)
            return await service.restore_as_new(
                project,
                name,
                new,
                asked,
                asking=lambda pools: askers.note(caller, project, new, pools),
                confirm=lambda: access.own(caller, project),
            )

    return router
