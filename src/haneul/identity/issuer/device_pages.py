"""Where a person types the code that a device shows, and lets it in (RFC 8628, section 3.3).

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from haneul.identity.gate import origin_of
from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.model import SignOn, TooManyAttemptsError
from haneul.identity.issuer.pages import Pages
from haneul.identity.issuer.requests import parameters
from haneul.kernel.errors import HaneulError, InvalidInputError, NotFoundError, UnauthenticatedError


def device_router(issuer: Issuer) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/oidc", include_in_schema=False)
    pages = Pages(issuer)

    @router.get("/device")
    async def device(request: Request) -> Response:
        asked = parameters(request.url.query)
        current = await pages.sign_on(request)
        if current is None:
            return pages.ask_to_sign_on(request, "device", request.url.query)
        return await ask_for_device(request, current, asked.get("user_code", ""))

    async def ask_for_device(request: Request, current: SignOn, user_code: str, problem: str = "") -> Response:
        waiting = None
        if user_code:
            keys = _keys(request, current)
            try:
                await issuer.attempts.begin(keys)
            except HaneulError as error:
                return pages.failure(request, error)
            waiting = await issuer.devices.find(user_code)
            if waiting is None:
                problem = problem or "No device shows this code. It may be too old: start again on the device."
            else:
                waiting = replace(waiting, user_code=user_code[:20])
                await issuer.attempts.succeed(keys)
        return pages.show(request, "device", {"sign_on": current, "waiting": waiting, "problem": problem})

    @router.post("/device")
    async def decide_device(request: Request) -> Response:
        try:
            fields = await pages.form(request)
            current = await pages.sign_on(request)
            if current is None:
                raise UnauthenticatedError("you are not signed on any more", hint="load the page again")
            user_code = fields.get("user_code", "")
            if "decision" not in fields:
                return await ask_for_device(request, current, user_code)
            approve = fields["decision"] == "allow"
            # A code may come here without having been looked at before.
            keys = _keys(request, current)
            await issuer.attempts.begin(keys)
            origin = origin_of(request, current.person)
            await issuer.devices.decide(user_code, current, approve=approve, origin=origin)
            await issuer.attempts.succeed(keys)
        except (UnauthenticatedError, InvalidInputError, NotFoundError, TooManyAttemptsError) as error:
            return pages.failure(request, error)
        text = "The device is signed in. You can close this page." if approve else "The device was refused."
        return pages.show(request, "done", {"title": "Done", "text": text})

    return router


def _keys(request: Request, current: SignOn) -> dict[str, str]:
    return {"user-code": current.person, "user-code-address": origin_of(request, current.person).source}
