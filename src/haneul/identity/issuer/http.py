"""The issuer's endpoints for programs (OpenID Connect Discovery and Core; RFC 6749, 7009, 7636, 8414, 8628, 9207).

Annotations are evaluated here: routes are made inside functions, where FastAPI could not find names later.
"""

import base64
import binascii
from typing import Any, Final
from urllib.parse import unquote_plus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from haneul.identity.gate import origin_of
from haneul.identity.issuer.assembly import Issuer
from haneul.identity.issuer.model import (
    ACCESS_LIFE,
    DEVICE_GRANT,
    DEVICE_INTERVAL,
    DEVICE_LIFE,
    ES256,
    RS256,
    SCOPES,
    Client,
    OAuthError,
)
from haneul.identity.issuer.requests import known_scope, parameters
from haneul.identity.issuer.sessions import Begun
from haneul.identity.issuer.tokens import claims_of
from haneul.kernel.errors import UnauthenticatedError

_NEVER_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_KEYS_STORED: Final = {"Cache-Control": "public, max-age=300"}


def discovery(issuer: str) -> dict[str, Any]:
    """Return the discovery document (OpenID Connect Discovery, section 3; RFC 8414)."""
    authentication = ["client_secret_basic", "client_secret_post", "none"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "revocation_endpoint": f"{issuer}/revoke",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "jwks_uri": f"{issuer}/keys",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ES256, RS256],
        "token_endpoint_auth_methods_supported": authentication,
        "revocation_endpoint_auth_methods_supported": authentication,
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "name", "email", "groups"],
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }


def issuer_router(issuer: Issuer) -> APIRouter:
    """Return the routes for programs."""
    router = APIRouter(prefix="/oidc", include_in_schema=False)

    @router.get("/.well-known/openid-configuration")
    async def show_discovery() -> JSONResponse:
        return JSONResponse(discovery(issuer.url), headers=_KEYS_STORED)

    @router.get("/keys")
    async def show_keys() -> JSONResponse:
        return JSONResponse(await issuer.ring.published(), headers=_KEYS_STORED)

    @router.post("/token")
    async def give_tokens(request: Request) -> JSONResponse:
        try:
            asked = await _form(request)
            client = await _client(issuer, request, asked)
            return JSONResponse(await _tokens(issuer, request, client, asked), headers=_NEVER_STORED)
        except OAuthError as error:
            return _refusal(error)

    @router.post("/revoke")
    async def revoke(request: Request) -> JSONResponse:
        try:
            asked = await _form(request)
            client = await _client(issuer, request, asked)
            if "token" not in asked:
                raise OAuthError("invalid_request", "no token is named")
            await issuer.sessions.revoke(client, asked["token"], origin=origin_of(request, client.id))
        except OAuthError as error:
            return _refusal(error)
        return JSONResponse({}, headers=_NEVER_STORED)

    @router.post("/device_authorization")
    async def start_device(request: Request) -> JSONResponse:
        try:
            asked = await _form(request)
            client = await _client(issuer, request, asked)
            if not client.public:
                raise OAuthError("unauthorized_client", "this client has a browser")
            scope = known_scope(asked.get("scope", ""))
            if "openid" not in scope.split():
                raise OAuthError("invalid_scope", "the scope must have openid in it")
            source = origin_of(request, client.id).source
            await issuer.attempts.begin({"begun": source})
            code, user_code = await issuer.devices.start(client, scope, source)
        except OAuthError as error:
            return _refusal(error)
        page = f"{issuer.url}/device"
        body = {"device_code": code, "user_code": user_code, "verification_uri": page, "interval": DEVICE_INTERVAL}
        body |= {"verification_uri_complete": f"{page}?user_code={user_code}"}
        return JSONResponse({**body, "expires_in": int(DEVICE_LIFE.total_seconds())}, headers=_NEVER_STORED)

    @router.api_route("/userinfo", methods=["GET", "POST"])
    async def userinfo(request: Request) -> JSONResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("the request carries no token")
        claims = await issuer.tokens.verify_access(token, userinfo=True)
        caller = await issuer.sessions.caller(claims["sub"], claims["sid"])
        person, projects = await issuer.person(caller.person), await issuer.projects(caller)
        return JSONResponse(claims_of(person, caller.groups, projects, claims["scope"]), headers=_NEVER_STORED)

    return router


async def _tokens(issuer: Issuer, request: Request, client: Client, asked: dict[str, str]) -> dict[str, Any]:
    origin, kind = origin_of(request, client.id), asked.get("grant_type", "")
    if kind == "authorization_code":
        needed = (asked.get("code", ""), asked.get("redirect_uri", ""), asked.get("code_verifier", ""))
        if not all(needed):
            raise OAuthError("invalid_request", "code, redirect_uri and code_verifier are needed")
        begun = await issuer.sessions.redeem(client, *needed, origin=origin)
    elif kind == "refresh_token":
        begun = await issuer.sessions.refresh(client, asked.get("refresh_token", ""), origin=origin)
    elif kind == DEVICE_GRANT:
        begun = await issuer.devices.poll(client, asked.get("device_code", ""), origin=origin)
    else:
        raise OAuthError("unsupported_grant_type", "codes, refresh tokens and device codes are what there is")
    return await _answer(issuer, client, begun)


async def _answer(issuer: Issuer, client: Client, begun: Begun) -> dict[str, Any]:
    caller = await issuer.sessions.caller(begun.grant.person, begun.session)
    person, projects = await issuer.person(caller.person), await issuer.projects(caller)
    claims = claims_of(person, caller.groups, projects, begun.grant.scope)
    return {
        "access_token": await issuer.tokens.access(begun.grant, client, begun.session),
        "token_type": "Bearer",
        "expires_in": int(ACCESS_LIFE.total_seconds()),
        "refresh_token": begun.refresh_token,
        "id_token": await issuer.tokens.identity(begun.grant, client, begun.session, claims),
        "scope": begun.grant.scope,
    }


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("Content-Type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "the body must be a form")
    try:
        return parameters((await request.body()).decode())
    except UnicodeDecodeError as error:
        raise OAuthError("invalid_request", "the body is not readable") from error


async def _client(issuer: Issuer, request: Request, asked: dict[str, str]) -> Client:
    """Authenticate a client by its header or its form, never by both (RFC 6749, section 2.3)."""
    identity, secret = asked.get("client_id", ""), asked.get("client_secret", "")
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            named, _, shown = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise OAuthError("invalid_client", "the header is not readable") from error
        if secret or identity not in ("", unquote_plus(named)):
            raise OAuthError("invalid_request", "the client says in two ways who it is")
        identity, secret = unquote_plus(named), unquote_plus(shown)
    return await issuer.clients.authenticate(identity, secret)


def _refusal(error: OAuthError) -> JSONResponse:
    """Return an error as the standard has it (RFC 6749, section 5.2)."""
    headers, status = dict(_NEVER_STORED), 400
    if error.error == "invalid_client":
        headers["WWW-Authenticate"], status = 'Basic realm="haneul"', 401
    return JSONResponse({"error": error.error, "error_description": error.detail}, status, headers)
