"""The REST API's routes for versions of Kubernetes: what is offered, what an upgrade would come to, and asking for it.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.model import Cluster
from haneul.dkos.ports import Access, Caller
from haneul.dkos.releases import VERSIONS
from haneul.dkos.service import ClusterService
from haneul.dkos.upgrading import Outcome, Proposal, state_of


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class OfferedVersion(_Value):
    """A version that clusters may have."""

    version: str
    state: str = Field(description="`default`, `offered`, or `deprecated`: the next minor takes its place.")


class OfferedVersions(_Value):
    """All versions that clusters may have, newest first."""

    items: list[OfferedVersion]


class UpgradeProposal(_Value):
    """What asking a cluster for a version would come to."""

    project: str
    name: str
    version: str = Field(description="The version that its masters run.")
    node_version: str = Field(description="The version that its nodes are to have.")
    asked: str
    outcome: Outcome
    nodes: int = Field(description="How many nodes would be replaced, one after the other.")
    why: str = Field(description="Why it is refused, or how far it is.")
    hint: str


class UpgradeProposals(_Value):
    """What asking a project's clusters for a version would come to, by name."""

    items: list[UpgradeProposal]


class Upgrade(_Value):
    """Other versions for a cluster: the masters', and the nodes' if they are to have another one."""

    version: str | None = None
    node_version: str | None = None


def upgrades_router(service: ClusterService, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["clusters"])
    signed_in = Annotated[Caller, Depends(access.caller)]

    @router.get("/kubernetes-versions")
    async def list_versions(_: signed_in) -> OfferedVersions:
        return OfferedVersions(items=[OfferedVersion(version=one, state=state_of(one)) for one in VERSIONS])

    @router.get("/projects/{project}/upgrades")
    async def propose_upgrades(
        project: str, caller: signed_in, to: Annotated[str, Query(description="The version.")]
    ) -> UpgradeProposals:
        await access.look(caller, project)
        return UpgradeProposals(items=[_shown(one) for one in await service.proposals(project, to)])

    @router.post("/projects/{project}/clusters/{name}/upgrade", status_code=202)
    async def upgrade_cluster(project: str, name: str, body: Upgrade, request: Request, caller: signed_in) -> Cluster:
        await access.change(caller, project)
        async with access.recording(request, caller, "cluster.upgrade", _target(name, body), project):
            return await service.upgrade(project, name, version=body.version, node_version=body.node_version)

    return router


def _target(name: str, asked: Upgrade) -> str:
    """Return what is asked for, in the words of the audit record."""
    masters = f" to {asked.version}" if asked.version else ""
    nodes = f", nodes to {asked.node_version}" if asked.node_version else ""
    return f"{name}{masters}{nodes}"[:200]


def _shown(one: Proposal) -> UpgradeProposal:
    return UpgradeProposal(
        project=one.project,
        name=one.name,
        version=one.version,
        node_version=one.node_version,
        asked=one.asked,
        outcome=one.outcome,
        nodes=one.nodes,
        why=one.why,
        hint=one.hint,
    )
