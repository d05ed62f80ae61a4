"""The part of the REST API that is about machines. Who the caller is and may do comes through a port.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.machine_service import MachineService
from haneul.dkos.machines import Machine, MachineSpec
from haneul.dkos.ports import Access, Caller
from haneul.kernel.ssh_keys import ssh_key_from


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewMachine(_Value):
    """A machine to register."""

    name: str
    spec: MachineSpec


class MachineList(_Value):
    """A project's machines, by name."""

    items: list[Machine]


class GivenKey(_Value):
    """A private key in PEM or OpenSSH's format. It is kept and never shown."""

    private_key: str = Field(repr=False)


class PublicKey(_Value):
    """The line for the machines' ``authorized_keys``."""

    public_key: str


def machines_router(service: MachineService, access: Access) -> APIRouter:
    """Return the routes for machines."""
    router = APIRouter(prefix="/projects/{project}", tags=["machines"])
    signed_in = Annotated[Caller, Depends(access.caller)]

    @router.get("/machines")
    async def list_machines(project: str, caller: signed_in) -> MachineList:
        await access.look(caller, project)
        return MachineList(items=list(await service.list(project)))

    @router.post("/machines", status_code=201)
    async def add_machine(project: str, body: NewMachine, request: Request, caller: signed_in) -> Machine:
        await access.change(caller, project)
        trust = "the first host key is trusted" if body.spec.trust_on_first_use else str(body.spec.host_key)
        target = f"{body.name} {body.spec.address} {trust}"
        async with access.recording(request, caller, "machine.add", target, project):
            return await service.add(
                project, body.name, body.spec, now=access.now(), confirm=lambda: access.change(caller, project)
            )

    @router.get("/machines/{name}")
    async def get_machine(project: str, name: str, caller: signed_in) -> Machine:
        await access.look(caller, project)
        return await service.get(project, name)

    @router.post("/machines/{name}/check", status_code=202)
    async def check_machine(project: str, name: str, caller: signed_in) -> Machine:
        await access.change(caller, project)
        return await service.check(project, name, now=access.now())

    @router.delete("/machines/{name}", status_code=204)
    async def remove_machine(project: str, name: str, request: Request, caller: signed_in, force: bool = False) -> None:
        await access.change(caller, project)
        target = f"{name}{' by force' if force else ''}"
        async with access.recording(request, caller, "machine.remove", target, project):
            await service.remove(project, name, force=force)

    @router.get("/machine-key")
    async def show_machine_key(project: str, caller: signed_in) -> PublicKey:
        await access.change(caller, project)
        return PublicKey(public_key=await service.public_key(project))

    @router.put("/machine-key")
    async def give_machine_key(project: str, body: GivenKey, request: Request, caller: signed_in) -> PublicKey:
        await access.change(caller, project)
        key = ssh_key_from(body.private_key.encode(), project)
        async with access.recording(request, caller, "machine_key.give", key.public, project):
            await service.give_key(project, key)
        return PublicKey(public_key=key.public)

    return router
