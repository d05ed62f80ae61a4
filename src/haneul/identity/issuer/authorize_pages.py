"""The authorization endpoint (RFC 6749, section 3.1): a person lets a program in.

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.model import OAuthError
from haneul.identity.issuer.pages import Pages, authorization_request, page_headers
from haneul.identity.issuer.requests import AuthorizationRequest, check
from haneul.kernel.errors import HaneulError
from haneul.kernel.openid import with_parameters


def authorize_router(issuer: Issuer) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/oidc", include_in_schema=False)
    pages = Pages(issuer)

    def told(request: AuthorizationRequest, **values: str) -> Response:
        """Send the browser back to the client."""
        added = {**values, "state": request.state, "iss": issuer.url}
        return RedirectResponse(with_parameters(request.redirect_uri, added), 303, page_headers())

    @router.api_route("/authorize", methods=["GET", "POST"])
    async def authorize(request: Request) -> Response:
        query = request.url.query if request.method == "GET" else (await request.body()).decode("utf-8", "replace")
        try:
            asked = await authorization_request(issuer, query)
        except OAuthError as error:
            return pages.failure(request, error)
        try:
            check(asked)
            sign_on = await pages.sign_on(request)
            if sign_on is not None and asked.oldest is not None:
                age = (issuer.clock.now() - sign_on.auth_time).total_seconds()
                sign_on = sign_on if age <= asked.oldest else None
            if "none" in asked.prompts and (sign_on is None or asked.client.public):
                raise OAuthError(
                    "login_required" if sign_on is None else "interaction_required", "a person has to be asked"
                )
            if sign_on is None or "login" in asked.prompts:
                kept = {name: value for name, value in asked.parameters.items() if name != "prompt"}
                return pages.ask_to_sign_on(request, "authorize", urlencode(kept), leads_to=asked.redirect_uri)
            if asked.client.public:
                # Anything on the person's machine could have sent them here (RFC 8252, section 8.6).
                values = {"client": asked.client, "sign_on": sign_on, "query": query}
                return pages.show(request, "confirm", values, leads_to=asked.redirect_uri)
            return told(asked, code=await issuer.sessions.issue_code(asked, sign_on))
        except OAuthError as error:
            return told(asked, error=error.error, error_description=error.detail)

    @router.post("/confirm")
    async def confirm(request: Request) -> Response:
        try:
            fields = await pages.form(request)
            asked = await authorization_request(issuer, fields.get("query", ""))
            check(asked)
        except HaneulError as error:
            return pages.failure(request, error)
        sign_on = await pages.sign_on(request)
        if sign_on is None:
            return pages.ask_to_sign_on(request, "authorize", fields["query"], leads_to=asked.redirect_uri)
        if fields.get("decision") != "allow":
            return told(asked, error="access_denied", error_description="the person said no")
        return told(asked, code=await issuer.sessions.issue_code(asked, sign_on))

    return router
