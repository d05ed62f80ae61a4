"""The issuer's pages for people: small forms, made here, that need no script.

Forms carry a value that the browser also has as a cookie, which no other site can set or read, and come from this
origin. Nothing but the style sheet is loaded.
"""

import secrets
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.model import SIGN_ON_LIFE, OAuthError, SignOn
from haneul.identity.issuer.requests import AuthorizationRequest, parameters, redirect_allowed
from haneul.kernel.errors import HaneulError, InvalidInputError

SIGN_ON_COOKIE: Final = "__Host-haneul-sign-on"
_FORM_COOKIE: Final = "__Host-haneul-form"
#: Where a form leads back to, with the query that it was reached with.
_PAGES: Final = frozenset({"authorize", "device"})


class Pages:
    """Renders pages and judges forms."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._templates = Environment(
            loader=PackageLoader("haneul.identity.issuer"), autoescape=True, undefined=StrictUndefined
        )

    def show(
        self, request: Request, name: str, values: dict[str, Any], *, status: int = 200, leads_to: str = ""
    ) -> Response:
        """Return a page. ``leads_to`` is another site's address that its form may send the browser on to."""
        form = request.cookies.get(_FORM_COOKIE, "") or secrets.token_urlsafe(24)
        text = self._templates.get_template(f"{name}.html").render(form=form, base="/oidc", **values)
        response = HTMLResponse(text, status, headers=page_headers(leads_to))
        response.set_cookie(_FORM_COOKIE, form, secure=True, httponly=True, samesite="strict", path="/")
        return response

    def failure(self, request: Request, error: HaneulError) -> Response:
        """Return an error as a page."""
        return self.show(request, "failure", {"title": error.title, "error": error}, status=error.http_status)

    async def form(self, request: Request) -> dict[str, str]:
        """Return a form's fields. Raises InvalidInputError for one that is not from here."""
        fields = parameters((await request.body()).decode("utf-8", "replace"))
        cookie, origin = request.cookies.get(_FORM_COOKIE, ""), request.headers.get("Origin", self._issuer.origin)
        same = bool(cookie) and secrets.compare_digest(cookie.encode(), fields.get("form", "").encode())
        if not same or origin != self._issuer.origin:
            raise InvalidInputError("this form was not opened in this browser", hint="go back and load the page again")
        return fields

    async def sign_on(self, request: Request) -> SignOn | None:
        """Return who is signed on in this browser."""
        return await self._issuer.sign_ons.find(request.cookies.get(SIGN_ON_COOKIE, ""))

    def back(self, page: str, query: str, cookie: str = "") -> Response:
        """Send the browser back to where it came from, signed on with ``cookie``."""
        target = page if page in _PAGES else "device"
        response = RedirectResponse(f"/oidc/{target}" + (f"?{query}" if query else ""), 303, page_headers())
        if cookie:
            set_sign_on(response, cookie)
        return response

    def ask_to_sign_on(
        self, request: Request, page: str, query: str, *, leads_to: str = "", problem: str = "", status: int = 200
    ) -> Response:
        """Return the page to sign on."""
        provider = self._issuer.provider
        start = f"/oidc/provider?{urlencode({'page': page, 'query': query})}" if provider else ""
        name = provider.settings.name if provider else ""
        values = {"page": page, "query": query, "problem": problem, "provider": name, "provider_start": start}
        return self.show(request, "sign_on", values, status=status, leads_to=leads_to)


def page_headers(leads_to: str = "") -> dict[str, str]:
    """Return the headers of a page: nothing is loaded from elsewhere, nobody frames it, it is not kept.

    The form's target stands with the addresses that its answer redirects to, as browsers check those too.
    """
    parts = urlsplit(leads_to)
    target = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    policy = (
        f"default-src 'none'; style-src 'self'; form-action 'self'{target}; frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def set_sign_on(response: Response, cookie: str) -> None:
    """Give a browser the cookie of its sign-on."""
    response.set_cookie(
        SIGN_ON_COOKIE,
        cookie,
        max_age=int(SIGN_ON_LIFE.total_seconds()),
        secure=True,
        httponly=True,
        samesite="lax",
        path="/",
    )


async def authorization_request(issuer: Issuer, query: str) -> AuthorizationRequest:
    """Return the request of a query. Raises OAuthError where no client may be told of the error."""
    asked = parameters(query)
    client = await issuer.clients.find(asked.get("client_id", ""))
    if client is None:
        raise OAuthError("invalid_client", "the program that sent you here is not known")
    if not redirect_allowed(client, asked.get("redirect_uri", "")):
        raise OAuthError("invalid_request", "the program that sent you here named an address that is not its own")
    return AuthorizationRequest(client, asked["redirect_uri"], asked)
