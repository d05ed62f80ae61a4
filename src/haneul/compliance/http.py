"""The REST API's routes for checks against the benchmark.

A check is asked for, done by the operator at its next look at the cluster, and then read; the report names the request
that it answers. Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names
later.
"""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from haneul.compliance.model import Report
from haneul.compliance.ports import ExaminationAccess, Examinations
from haneul.kernel.errors import ConflictError


class AskedCheck(BaseModel):
    """A check that was asked for."""

    asked: str


def benchmark_router(examinations: Examinations, access: ExaminationAccess) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/projects/{project}/clusters/{name}/benchmark", tags=["benchmark"])

    @router.post("", status_code=202)
    async def request_benchmark(project: str, name: str, request: Request) -> AskedCheck:
        """Ask for a check; its report is there once it names this request, or a later one."""
        await access.look(request, project)
        return AskedCheck(asked=await examinations.ask(project, name))

    @router.get("")
    async def get_benchmark(project: str, name: str, request: Request) -> Report:
        """Return the last report."""
        await access.look(request, project)
        report = await examinations.report(project, name)
        if report is None:
            raise ConflictError(f"{name} was not checked yet", hint=f"'haneul check cluster {name}' asks for it")
        return report

    return router
