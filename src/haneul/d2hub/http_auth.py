"""Who may do what: bearer tokens on every request, and the place where they are given out.

Docker's token authentication: a request without a token is answered with a challenge that says where to ask for one
and for which scope; the client signs in there by Basic authentication (or not at all, for public projects) and gets a
token for a few minutes and for what it asked for, as far as it is allowed. Workloads exchange a token of their own.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs

from haneul.d2hub import token_exchange
from haneul.d2hub.caches import Lru
from haneul.d2hub.errors import NameInvalidError, RequestInvalidError
from haneul.d2hub.exchange import Headers, Reply, Request, json_reply
from haneul.d2hub.model import Account, Action, Grant
from haneul.d2hub.names import parse_repository, project_of
from haneul.d2hub.ports import Accounts
from haneul.d2hub.rules import Rules
from haneul.d2hub.tokens import Scope, Tokens, parse_scopes
from haneul.d2hub.workloads import WORKLOAD_USER, Workloads
from haneul.kernel.errors import ForbiddenError, UnauthenticatedError

TOKEN_PATH: Final = "/token"  # noqa: S105 - a path
_BEARER: Final = "Bearer "
_LARGEST_FORM: Final = 64 << 10
#: Tokens of requests that are remembered, and how long they may be.
_MOST_REMEMBERED: Final = 10_000
_LONGEST_REMEMBERED: Final = 4 << 10
CATALOG: Final = "registry:catalog:*"
MAINTENANCE: Final = "registry:maintenance:*"
_ADMINISTRATORS: Final = "ask an administrator; 'haneul d2hub user add NAME --data DATA --admin' makes one"


class ChallengeError(UnauthenticatedError):
    """A token is needed that allows more than this request's, if it has one at all."""

    code = "token-needed"
    title = "A token is needed"

    def __init__(self, detail: str, *, scope: str, problem: str = "") -> None:
        super().__init__(detail, hint="sign in with your client's login command")
        self.scope, self.problem = scope, problem


class Doorkeeper:
    """Checks requests and gives out tokens. ``url`` is where clients reach the registry, if requests do not say."""

    def __init__(
        self, tokens: Tokens, accounts: Accounts, rules: Rules, *, url: str = "", workloads: Workloads | None = None
    ) -> None:
        self._tokens, self._accounts, self._rules, self._workloads = tokens, accounts, rules, workloads
        self._url = url.rstrip("/")
        #: For which account, as it was then, a request's token was found to say no more than is so.
        self._admitted: Lru[str, Account] = Lru(_MOST_REMEMBERED)

    def check(self, request: Request, repository: str, *actions: Action) -> Grant | None:
        """Return the request's grant if it allows all actions; None for somebody unknown who may pull.

        Raises ChallengeError if another token might do, ForbiddenError if none would.
        """
        scope = f"repository:{repository}:{','.join(actions)}"
        grant = self.grant(request, scope)
        allowed = grant.repositories.get(repository) if grant is not None else None
        if allowed is not None and all(action in allowed for action in actions):
            return grant
        if actions == (Action.PULL,) and self._rules.rules(project_of(repository)).public:
            return grant
        if grant is None:
            raise ChallengeError(f"no token allows {scope}", scope=scope)
        # A token for pulls says nothing about who may push, unless it was asked for both.
        if grant.account and grant.asked.get(repository, frozenset()).issuperset(actions):
            raise ForbiddenError(f"{grant.account} may not do that with {repository}", hint="ask its owners")
        raise ChallengeError(f"the token does not allow {scope}", scope=scope, problem="insufficient_scope")

    async def check_registry(self, request: Request, scope: str) -> Grant:
        """Return the grant if it allows to list, or to maintain, the registry.

        Raises ChallengeError if another token might do, ForbiddenError if none would.
        """
        grant = self.grant(request, scope)
        if grant is not None and (grant.catalog if scope == CATALOG else grant.maintenance):
            return grant
        if scope == MAINTENANCE and grant is not None and grant.account:
            account = await self._accounts.account(grant.account)
            if account is None or not account.admin:
                raise ForbiddenError(f"{grant.account} is no administrator of this registry", hint=_ADMINISTRATORS)
        problem = "" if grant is None else "insufficient_scope"
        raise ChallengeError(f"the token does not allow {scope}", scope=scope, problem=problem)

    def grant(self, request: Request, scope: str = "") -> Grant | None:
        """Return what the request's token allows, or None without one.

        Raises ChallengeError if it is not good, which asks for a token for ``scope``.
        """
        header = request.headers.get("authorization")
        if not header:
            return None
        if not header.startswith(_BEARER):
            raise ChallengeError("requests carry a bearer token, not a password", scope=scope)
        try:
            return self._tokens.grant(header[len(_BEARER) :])
        except UnauthenticatedError as error:
            raise ChallengeError(error.detail, scope=scope, problem="invalid_token") from error

    async def admit(self, request: Request) -> None:
        """Let a request through to where its token is checked, if what the token was given for still holds.

        The account is there, and may everywhere what the token says. Raises ChallengeError, so that the client asks for
        another token, and learns there what it may now; UnavailableError if nobody can say.
        """
        try:
            grant = self.grant(request)
        except ChallengeError:
            # Told to the client by whoever knows for what it needs a token.
            return
        if grant is None or not grant.proof:
            return
        account = await self._accounts.again(grant.account, grant.proof)
        if account is None:
            raise _ended(grant, f"{grant.account} was signed in by what is not good any more")
        header = request.headers["authorization"]
        if self._admitted.get(header) is account:
            return
        if grant.maintenance and not account.admin:
            raise _ended(grant, f"{grant.account} is no administrator any more")
        for name, actions in grant.repositories.items():
            if not actions <= await self._accounts.allowed(account, project_of(name)):
                raise _ended(grant, f"{grant.account} may do less with {name} than the token says")
        if len(header) <= _LONGEST_REMEMBERED:
            self._admitted.put(header, account)

    def challenge(self, request: Request, error: ChallengeError) -> Headers:
        """Return the header that tells a client where to get which token (RFC 6750, section 3)."""
        base = self._url or f"{request.scheme}://{request.authority or 'localhost'}"
        parts = [f'realm="{base}{TOKEN_PATH}"', f'service="{self._tokens.service}"']
        if error.scope:
            parts.append(f'scope="{error.scope}"')
        if error.problem:
            parts.append(f'error="{error.problem}"')
        return [("www-authenticate", f"Bearer {','.join(parts)}")]

    async def answer(self, request: Request) -> Reply:
        """Give out a token: by GET with Basic authentication, or by POST as OAuth 2 clients do (RFC 6749, 4.3)."""
        if request.method == "GET":
            account = await self._by_basic(request)
            return await self._given(account, parse_scopes(request.query.get("scope", [])))
        form = await _form(request)
        scopes = parse_scopes(form.get("scope", []))
        match form.get("grant_type"):
            case ["password"]:
                name, secret = form.get("username", [""])[0], form.get("password", [""])[0]
                return await self._given(await self._signed_in(request, name, secret), scopes)
            case [token_exchange.GRANT] if self._workloads is not None:
                try:
                    account = await self._workloads.sign_in(token_exchange.subject_token(form))
                except (UnauthenticatedError, ForbiddenError, RequestInvalidError) as error:
                    return token_exchange.refusal(error)
                return await self._given(account, scopes, issued_token_type=token_exchange.ACCESS_TOKEN)
        raise RequestInvalidError("the grant type is not 'password', nor is it one that is used here")

    async def _given(self, account: Account | None, scopes: list[Scope], **more: str) -> Reply:
        token = await self._token(account, scopes)
        document = {
            "token": token,
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self._tokens.life,
            "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **more,
        }
        return json_reply(200, document, [("cache-control", "no-store")])

    async def _token(self, account: Account | None, scopes: list[Scope]) -> str:
        access: dict[str, frozenset[Action]] = {}
        asked: dict[str, frozenset[Action]] = {}
        catalog = maintenance = False
        for scope in scopes:
            if scope.kind == "registry":
                catalog = catalog or scope.name == "catalog"
                maintenance = maintenance or (scope.name == "maintenance" and account is not None and account.admin)
            elif scope.kind == "repository":
                try:
                    name = parse_repository(scope.name)
                except NameInvalidError:
                    continue
                allowed = await self._allowed(account, name)
                wanted = frozenset(Action) if "*" in scope.actions else {a for a in Action if a in scope.actions}
                if allowed & wanted:
                    access[name] = access.get(name, frozenset()) | (allowed & wanted)
                asked[name] = asked.get(name, frozenset()) | wanted
        name = account.name if account else ""
        proof = account.proof if account else ""
        return self._tokens.issue(name, access, asked, catalog=catalog, maintenance=maintenance, proof=proof)

    async def _allowed(self, account: Account | None, repository: str) -> frozenset[Action]:
        """Return what an account may in a repository: a workload what everybody may, and what rules say."""
        if account is not None and account.allowances:
            return await self._accounts.allowed(None, project_of(repository)) | account.permitted(repository)
        return await self._accounts.allowed(account, project_of(repository))

    async def _by_basic(self, request: Request) -> Account | None:
        header = request.headers.get("authorization", "")
        if not header:
            return None
        kind, _, encoded = header.partition(" ")
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            text = ""
        if kind.lower() != "basic" or ":" not in text:
            raise UnauthenticatedError("tokens are given for a name and a secret", hint="sign in again")
        name, _, secret = text.partition(":")
        return await self._signed_in(request, name, secret)

    async def _signed_in(self, request: Request, name: str, secret: str) -> Account:
        if name == WORKLOAD_USER and self._workloads is not None and secret.count(".") == 2:
            return await self._workloads.sign_in(secret)
        # Every connection has another port.
        address = request.client.rpartition(":")[0]
        account = await self._accounts.sign_in(name, secret, client=address)
        if account is None:
            raise UnauthenticatedError("the name or the secret is wrong", hint="sign in again")
        return account


def _ended(grant: Grant, why: str) -> ChallengeError:
    """Return the error for a token that says more than is so: a new one for what this one was asked for may do."""
    scopes = [f"repository:{name}:{','.join(sorted(actions))}" for name, actions in grant.asked.items()]
    scopes += [CATALOG] if grant.catalog else []
    return ChallengeError(why, scope=" ".join(scopes), problem="invalid_token")


async def _form(request: Request) -> dict[str, list[str]]:
    data = await request.read(_LARGEST_FORM)
    if data is None:
        raise RequestInvalidError("the form is too large")
    try:
        return parse_qs(data.decode(), max_num_fields=50)
    except ValueError as error:
        raise RequestInvalidError("the form cannot be read") from error
