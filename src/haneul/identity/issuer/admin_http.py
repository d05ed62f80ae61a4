"""The issuer in the REST API: clients, sign-on secrets, sessions.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.identity.gate import Gate
from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.model import ES256, Client, IssuedClient, OneTimeSecret, Session
from haneul.identity.model import Caller
from haneul.identity.rights import PlatformRight, demand, demand_a_person
from haneul.kernel.errors import NotFoundError


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewClient(_Body):
    """A program to register."""

    id: str
    name: str = Field(default="", max_length=200)
    redirect_uris: list[str]
    algorithm: str = ES256


class NewLink(_Body):
    """Who a person is at the company's provider: the claim ``sub``."""

    subject: str = Field(min_length=1, max_length=255)


def issuer_admin_router(issuer: Issuer, gate: Gate) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["sign-on"], dependencies=[Depends(gate.refusals)])
    signed_in = Annotated[Caller, Depends(gate.caller)]

    async def admin(caller: signed_in) -> Caller:
        demand(PlatformRight.ADMINISTER, caller)
        return caller

    administrator = Annotated[Caller, Depends(admin)]

    def own_or_admin(caller: Caller, person: str) -> None:
        demand_a_person(caller)
        if caller.person != person:
            demand(PlatformRight.ADMINISTER, caller)

    @router.get("/clients")
    async def list_clients(_: administrator) -> Sequence[Client]:
        return await issuer.clients.list()

    @router.post("/clients", status_code=201)
    async def create_client(body: NewClient, request: Request, caller: administrator) -> IssuedClient:
        return await issuer.clients.create(
            body.id, body.name, body.redirect_uris, body.algorithm, origin=gate.origin(request, caller)
        )

    @router.delete("/clients/{client}", status_code=204)
    async def delete_client(client: str, request: Request, caller: administrator) -> None:
        await issuer.clients.delete(client, origin=gate.origin(request, caller))

    @router.post("/people/{name}/sign-on-secret", status_code=201)
    async def create_sign_on_secret(name: str, request: Request, caller: administrator) -> OneTimeSecret:
        return await issuer.sign_ons.make_secret(name, origin=gate.origin(request, caller))

    @router.delete("/people/{name}/sign-on-secret", status_code=204)
    async def delete_sign_on_secret(name: str, request: Request, caller: administrator) -> None:
        await issuer.sign_ons.remove_secret(name, origin=gate.origin(request, caller))

    @router.put("/people/{name}/provider-link", status_code=204)
    async def link_person(name: str, body: NewLink, request: Request, caller: administrator) -> None:
        if issuer.provider is None:
            raise NotFoundError("this platform has no sign-on provider", hint="configure one first")
        await issuer.provider.link(name, body.subject, origin=gate.origin(request, caller))

    @router.get("/people/{name}/sessions")
    async def list_sessions(name: str, caller: signed_in) -> Sequence[Session]:
        own_or_admin(caller, name)
        return await issuer.sessions.list(name)

    @router.delete("/people/{name}/sessions/{session}", status_code=204)
    async def end_session(name: str, session: str, request: Request, caller: signed_in) -> None:
        own_or_admin(caller, name)
        await issuer.sessions.end(name, session, origin=gate.origin(request, caller))

    return router
