"""The port ``Authority`` by RFC 8555, with certbot's own library: HTTP-01, one account, perhaps bound to another one.

The library blocks, so each of its steps is in a thread, and waits are here; whoever is told to end does so after one
answer at most. Every request has a timeout, every order a deadline.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import josepy
import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from haneul.ingress.ports import Begun, CertificateRefusedError
from haneul.ingress.renewals import parse_retry_after
from haneul.kernel.clock import Clock
from haneul.kernel.pki import new_private_key, private_key_pem
from haneul.kernel.plain_text import plain

T = TypeVar("T")

_REQUEST_SECONDS: Final = 30
#: Seconds of one look at an order, and of all together.
_LOOK_SECONDS, _ORDER_SECONDS = 5.0, 180.0
_AGENT: Final = "haneul-ingress"
#: What authorities say of a moment, not of an order (RFC 8555 section 6.7).
_PASSING: Final = frozenset({"badNonce", "rateLimited", "serverInternal", "orderNotReady"})
_GONE: Final = frozenset({404, 410})
_FAILURES: Final = (
    errors.Error,
    messages.Error,
    josepy.errors.Error,
    requests.exceptions.RequestException,
    # What an answer that is none makes of the library.
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True)
class Binding:
    """An account elsewhere that the authority's account belongs to (RFC 8555 section 7.3.4)."""

    identifier: str
    #: Base64 with the alphabet for addresses, as authorities hand it out.
    key: str = field(repr=False)


@dataclass(frozen=True)
class Issuing:
    """How an authority is reached, and as whom."""

    directory: str
    contact: tuple[str, ...]
    #: The account's key, PEM.
    account_key: bytes = field(repr=False)
    #: Whose certificates the authority's server has, if it is none that the system trusts.
    trust: Path | None = None
    binding: Binding | None = None


@dataclass
class _Order:
    client: _Client
    order: messages.OrderResource
    answers: list[tuple[messages.ChallengeBody, challenges.ChallengeResponse]]
    key: bytes


class AcmeAuthority:
    """One account at one authority."""

    def __init__(self, issuing: Issuing, clock: Clock, *, deadline: float = _ORDER_SECONDS) -> None:
        """``deadline`` is how many seconds an order may take."""
        self._issuing = issuing
        self._clock = clock
        self._deadline = deadline

    async def begin(self, host: str) -> Begun:
        """Order a certificate."""
        made = self._client()
        return _begun(await made.call(lambda: _ordered(made, host)))

    async def resume(self, host: str, kept: str) -> Begun:
        """Look what became of an order, and go on from there."""
        try:
            document = json.loads(kept)
            address, key = str(document["order"]), str(document["key"]).encode()
            request = crypto_util.make_csr(key, [host])
        except (ValueError, KeyError, TypeError) as error:
            raise CertificateRefusedError(f"the order that was begun cannot be read: {error}", over=True) from error
        made = self._client()
        return _begun(await made.call(lambda: _looked_up(made, address, request, key)))

    async def finish(self, begun: Begun) -> tuple[bytes, bytes]:
        """Let the authority look, and return chain and key."""
        begun_order: _Order = begun.order
        made, order = begun_order.client, begun_order.order
        for body, response in begun_order.answers:
            # One that was told to look already is at it; it wants to find the answer still.
            if body.status != messages.STATUS_PENDING:
                continue
            await made.call(partial(made.acme.answer_challenge, body, response))
        end = self._clock.monotonic() + self._deadline
        valid = await self._until(end, made, lambda deadline: made.acme.poll_authorizations(order, deadline))
        await made.call(lambda: _finalized(made, valid))
        ready = await self._until(end, made, lambda deadline: made.acme.poll_finalization(valid, deadline))
        return str(ready.fullchain_pem).encode(), begun_order.key

    def _client(self) -> _Client:
        try:
            return _Client(self._issuing, self._clock)
        except (ValueError, TypeError) as error:
            raise CertificateRefusedError(f"the account's key cannot be read: {error}") from error

    async def _until(self, end: float, made: _Client, look: Callable[[datetime], T]) -> T:
        while self._clock.monotonic() < end:
            # The library's deadlines are the machine's local time.
            deadline = datetime.now() + timedelta(seconds=_LOOK_SECONDS)
            try:
                return await made.call(partial(look, deadline))
            except _NotYetError:
                continue
        raise CertificateRefusedError("the issuer did not decide in time")


class _NotYetError(Exception):
    """Nothing was decided within one look."""


class _Client:
    """One order's connections, and what the authority answered last."""

    def __init__(self, issuing: Issuing, clock: Clock) -> None:
        self._issuing = issuing
        self._clock = clock
        self._answer: requests.Response | None = None
        key = serialization.load_pem_private_key(issuing.account_key, None)
        self.key = JWKEC(key=cast("Any", key))
        verify = cast("Any", str(issuing.trust) if issuing.trust else True)
        net = client.ClientNetwork(self.key, alg=ES256, verify_ssl=verify, user_agent=_AGENT, timeout=_REQUEST_SECONDS)
        net.session.hooks["response"].append(self._heard)
        self._net = net
        self._acme: client.ClientV2 | None = None

    @property
    def acme(self) -> client.ClientV2:
        """Return the library's client, with the account."""
        if self._acme is None:
            directory = client.ClientV2.get_directory(self._issuing.directory, self._net)
            self._acme = client.ClientV2(directory, self._net)
            self._sign_up(self._acme)
        return self._acme

    async def call(self, step: Callable[[], T]) -> T:
        """Do a step in a thread; raises CertificateRefusedError, and _NotYetError where it took too long."""
        try:
            return await asyncio.to_thread(step)
        except errors.TimeoutError as error:
            raise _NotYetError from error
        except _FAILURES as error:
            raise CertificateRefusedError(_said(error), wait=self._wait(), over=self._is_over(error)) from error

    def read(self, address: str) -> Any:
        """Return what lies at an address of the authority's (RFC 8555 section 6.3, POST-as-GET)."""
        # Signed with the account that the client has, which is there only with it.
        acme = self.acme
        return acme.net.post(address, None, new_nonce_url=acme.directory["newNonce"]).json()

    def _sign_up(self, acme: client.ClientV2) -> None:
        """Have the account that the key is of, a new one the first time."""
        wanted: dict[str, Any] = {"terms_of_service_agreed": True}
        if self._issuing.contact:
            wanted["contact"] = tuple(f"mailto:{address}" for address in self._issuing.contact)
        if binding := self._issuing.binding:
            wanted["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                self.key.public_key(), binding.identifier, binding.key, acme.directory
            )
        registration = messages.NewRegistration(**wanted)
        try:
            acme.new_account(registration)
        except errors.ConflictError as error:
            known = messages.RegistrationResource(uri=error.location, body=messages.Registration())
            acme.net.account = known

    def _heard(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        self._answer = answer

    def _is_over(self, error: Exception) -> bool:
        """Say whether an order has come to its end by what went wrong."""
        if isinstance(error, messages.Error):
            return error.code not in _PASSING
        if isinstance(error, errors.ClientError):
            # An issuer forgets orders, and need not say more of that than that nothing is there.
            return self._answer is not None and self._answer.status_code in _GONE
        return isinstance(error, errors.ValidationError | errors.IssuanceError)

    def _wait(self) -> float | None:
        """Return how long the authority wants to be left alone, if it refused something just now."""
        if self._answer is None or self._answer.ok:
            return None
        return parse_retry_after(self._answer.headers.get("Retry-After"), self._clock.now())


def _ordered(made: _Client, host: str) -> _Order:
    key = private_key_pem(new_private_key())
    order = made.acme.new_order(crypto_util.make_csr(key, [host]))
    return _Order(made, order, _answers(made, order), key)


def _looked_up(made: _Client, address: str, request: bytes, key: bytes) -> _Order:
    body = messages.Order.from_json(made.read(address))
    if body.status == messages.STATUS_INVALID:
        why = _problem(body.error) if body.error else "the issuer gave the order up"
        raise CertificateRefusedError(why, over=True)
    authorizations = [
        messages.AuthorizationResource(body=messages.Authorization.from_json(made.read(place)), uri=place)
        for place in body.authorizations
    ]
    order = messages.OrderResource(body=body, uri=address, authorizations=authorizations, csr_pem=request)
    return _Order(made, order, _answers(made, order), key)


def _answers(
    made: _Client, order: messages.OrderResource
) -> list[tuple[messages.ChallengeBody, challenges.ChallengeResponse]]:
    """Return what is to be answered: of each authorization that is open, HTTP-01."""
    found = []
    for authorization in order.authorizations:
        if authorization.body.status != messages.STATUS_PENDING:
            continue
        offered = [body for body in authorization.body.challenges if isinstance(body.chall, challenges.HTTP01)]
        if not offered:
            raise ValueError("the issuer offers no HTTP-01")
        found.append((offered[0], offered[0].chall.response(made.key)))
    return found


def _begun(order: _Order) -> Begun:
    tokens = {str(body.chall.encode("token")): str(response.key_authorization) for body, response in order.answers}
    kept = {"order": order.order.uri, "key": order.key.decode()}
    return Begun(tokens, order, json.dumps(kept, sort_keys=True))


def _finalized(made: _Client, order: messages.OrderResource) -> None:
    try:
        made.acme.begin_finalization(order)
    except messages.Error as error:
        # It is asked again when the order is ready (RFC 8555 section 7.4).
        if error.code != "orderNotReady":
            raise


def _said(error: Exception) -> str:
    """Return what an authority says, in one line."""
    if isinstance(error, errors.ValidationError):
        found = [body.error for one in error.failed_authzrs for body in one.body.challenges if body.error]
        return "; ".join(map(_problem, found)) or "the issuer could not find what it looked for"
    if isinstance(error, errors.IssuanceError):
        return _problem(error.error)
    if isinstance(error, messages.Error):
        return _problem(error)
    return _line(f"{type(error).__name__}: {error}")


def _problem(problem: messages.Error) -> str:
    return _line(f"{problem.code or problem.typ}: {problem.detail or problem.title or ''}")


def _line(text: str) -> str:
    """Return a text as events and terminals may have it."""
    return plain(" ".join(text.split()))
