"""The way of a browser to the company's provider and back.

Annotations are evaluated here: routes are made inside functions.
"""

import secrets
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from haneul.identity.gate import origin_of
from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.pages import Pages, page_headers
from haneul.identity.issuer.provider import Provider
from haneul.identity.issuer.requests import parameters
from haneul.kernel.errors import HaneulError

# Lax, for the provider's answer comes from another site.
_STATE_COOKIE: Final = "__Host-haneul-provider"


def provider_router(issuer: Issuer, provider: Provider) -> APIRouter:
    """Return the two routes."""
    router = APIRouter(prefix="/oidc", include_in_schema=False)
    pages = Pages(issuer)

    @router.get("/provider")
    async def start(request: Request) -> Response:
        browser = secrets.token_urlsafe(32)
        try:
            await issuer.attempts.begin({"begun": origin_of(request, "").source})
            asked = parameters(request.url.query)
            target = await provider.start(asked.get("page", ""), asked.get("query", ""), browser)
        except HaneulError as error:
            return pages.failure(request, error)
        response = RedirectResponse(target, 303, page_headers())
        response.set_cookie(_STATE_COOKIE, browser, max_age=600, secure=True, httponly=True, samesite="lax", path="/")
        return response

    @router.get("/provider/callback")
    async def finish(request: Request) -> Response:
        browser, origin = request.cookies.get(_STATE_COOKIE, ""), origin_of(request, "")
        try:
            person, page, query = await provider.finish(parameters(request.url.query), browser, origin=origin)
            cookie = await issuer.sign_ons.begin(person, how="provider", origin=origin)
        except HaneulError as error:
            return pages.failure(request, error)
        response = pages.back(page, query, cookie)
        response.delete_cookie(_STATE_COOKIE, secure=True, httponly=True, samesite="lax", path="/")
        return response

    return router
