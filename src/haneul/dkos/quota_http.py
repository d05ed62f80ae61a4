"""The REST API's routes for quotas: members read their project's, administrators set them.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.cluster_store import ClusterStore, QuotaStore
from haneul.dkos.ports import Access, AddressUse, Caller
from haneul.dkos.quota import BUILT_IN, QuotaLimits, total, used_by_clusters


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class QuotaLine(_Value):
    """One counted thing: how much is used and how much there may be."""

    resource: str = Field(description="The limit's field.")
    used: float
    limit: float
    set_by: str = Field(description="`project`, `platform`, or `built-in` where nobody set it.")


class ProjectQuota(_Value):
    """A project's quota: the limits set for it alone, and what follows from them."""

    project: str
    limits: QuotaLimits
    lines: list[QuotaLine]


class PlatformQuota(_Value):
    """The limits of projects that have none of their own."""

    limits: QuotaLimits = Field(description="What administrators set.")
    effective: QuotaLimits = Field(description="What applies.")


#: Each limit's field with the amount that it is held against.
_LINES: Final = (
    ("clusters", "clusters", 1),
    ("nodes", "nodes", 1),
    ("cpu", "millicores", 1000),
    ("memory_mib", "memory_mib", 1),
    ("addresses", "addresses", 1),
    ("listeners", "listeners", 1),
)


def quotas_router(quotas: QuotaStore, clusters: ClusterStore, addresses: AddressUse, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["quotas"])
    signed_in = Annotated[Caller, Depends(access.caller)]

    async def shown(project: str) -> ProjectQuota:
        found = await quotas.quotas()
        used = total(used_by_clusters(project, await clusters.list(project)).values())
        used = used + await addresses.of(project)
        own, limits = found.own(project), found.of(project)
        lines = []
        for field, amount, per_unit in _LINES:
            set_for_project, set_for_all = getattr(own, field), getattr(found.platform, field)
            lines.append(
                QuotaLine(
                    resource=to_camel(field),
                    used=getattr(used, amount) / per_unit,
                    limit=getattr(limits, amount) / per_unit,
                    set_by="project"
                    if set_for_project is not None
                    else ("platform" if set_for_all is not None else "built-in"),
                )
            )
        return ProjectQuota(project=project, limits=own, lines=lines)

    async def platform() -> PlatformQuota:
        limits = (await quotas.quotas()).platform
        return PlatformQuota(limits=limits, effective=limits.over(BUILT_IN))

    @router.get("/projects/{project}/quota")
    async def show_quota(project: str, caller: signed_in) -> ProjectQuota:
        await access.look(caller, project)
        return await shown(project)

    @router.put("/projects/{project}/quota")
    async def set_quota(project: str, body: QuotaLimits, request: Request, caller: signed_in) -> ProjectQuota:
        await access.look(caller, project)
        access.administer(caller)
        async with access.recording(request, caller, "quota.set", _said(body), project):
            await quotas.set_quota(project, body)
        return await shown(project)

    @router.get("/quota")
    async def show_platform_quota(caller: signed_in) -> PlatformQuota:
        return await platform()

    @router.put("/quota")
    async def set_platform_quota(body: QuotaLimits, request: Request, caller: signed_in) -> PlatformQuota:
        access.administer(caller)
        async with access.recording(request, caller, "quota.set", _said(body), ""):
            await quotas.set_quota(None, body)
        return await platform()

    return router


def _said(limits: QuotaLimits) -> str:
    return limits.model_dump_json(by_alias=True, exclude_none=True)[:200]
