"""Signing on and off in a browser with a personal secret, and choosing it.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from jinja2 import Environment, PackageLoader

from haneul.identity.gate import origin_of
from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.model import OAuthError
from haneul.identity.issuer.pages import SIGN_ON_COOKIE, Pages, authorization_request
from haneul.kernel.errors import HaneulError, InvalidInputError


def sign_on_router(issuer: Issuer) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/oidc", include_in_schema=False)
    pages = Pages(issuer)

    @router.get("/style.css")
    async def style() -> Response:
        text = Environment(loader=PackageLoader("haneul.identity.issuer"), autoescape=True).get_template("style.css")
        return PlainTextResponse(text.render(), media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    @router.post("/sign-on")
    async def sign_on(request: Request) -> Response:
        try:
            fields = await pages.form(request)
        except HaneulError as error:
            return pages.failure(request, error)
        page, query = fields.get("page", ""), fields.get("query", "")
        person, origin = fields.get("person", "").strip().lower()[:64], origin_of(request, fields.get("person", ""))
        try:
            own = await issuer.sign_ons.check(person, fields.get("secret", ""), origin=origin)
        except HaneulError as error:
            said, leads_to = f"{error.detail}. {error.hint}", await target(page, query)
            return pages.ask_to_sign_on(request, page, query, leads_to=leads_to, problem=said, status=error.http_status)
        if not own:
            values = {"person": person, "page": page, "query": query, "problem": ""}
            return pages.show(request, "secret", values, leads_to=await target(page, query))
        return pages.back(page, query, await issuer.sign_ons.begin(person, how="secret", origin=origin))

    async def target(page: str, query: str) -> str:
        """Return the program's address to which the browser is sent on in the end, if it is a known one."""
        try:
            return (await authorization_request(issuer, query)).redirect_uri if page == "authorize" else ""
        except OAuthError:
            return ""

    @router.post("/secret")
    async def change_secret(request: Request) -> Response:
        try:
            fields = await pages.form(request)
        except HaneulError as error:
            return pages.failure(request, error)
        page, query, person = fields.get("page", ""), fields.get("query", ""), fields.get("person", "")[:64]
        origin, new = origin_of(request, person), fields.get("new", "")
        try:
            if new != fields.get("again", ""):
                raise InvalidInputError("the two new secrets are not the same")
            await issuer.sign_ons.change_secret(person, fields.get("secret", ""), new, origin=origin)
        except HaneulError as error:
            values = {"person": person, "page": page, "query": query, "problem": f"{error.detail}. {error.hint}"}
            leads_to = await target(page, query)
            return pages.show(request, "secret", values, status=error.http_status, leads_to=leads_to)
        return pages.back(page, query, await issuer.sign_ons.begin(person, how="new secret", origin=origin))

    @router.post("/sign-off")
    async def sign_off(request: Request) -> Response:
        try:
            await pages.form(request)
        except HaneulError as error:
            return pages.failure(request, error)
        current = await pages.sign_on(request)
        if current is not None:
            cookie = request.cookies[SIGN_ON_COOKIE]
            await issuer.sign_ons.end(cookie, current, origin=origin_of(request, current.person))
        response = pages.show(request, "done", {"title": "Signed off", "text": "You are signed off in this browser."})
        response.delete_cookie(SIGN_ON_COOKIE, secure=True, httponly=True, samesite="lax", path="/")
        return response

    return router
