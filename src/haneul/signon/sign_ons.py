"""Signing on at a provider and coming back (OpenID Connect's code flow with PKCE, state and nonce).

What the answer will be checked with lies in a sealed cookie of the browser that asked, for ten minutes: an answer is of
no use in any other browser, so nobody can be signed on as somebody else by a link (login CSRF), and the gate keeps
nothing of those who never come back.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError, UnauthenticatedError
from haneul.signon.addresses import Sites
from haneul.signon.claims import who_of
from haneul.signon.cookies import LONGEST
from haneul.signon.model import Who
from haneul.signon.ports import Keys, Provider
from haneul.signon.settings import ProviderSettings

_PURPOSE: Final = "state"
LIFE: Final = 600


@dataclass(frozen=True)
class Begun:
    """A sign-on that was begun: where the browser goes, and the state and cookie that bind the answer to it."""

    url: str
    state: str
    cookie: str


@dataclass(frozen=True)
class Finished:
    """A sign-on that came to its end: who, the provider's refresh token, and where the browser wanted to go."""

    who: Who
    refresh: str
    back: str


@dataclass(frozen=True)
class _State:
    state: str
    provider: str
    nonce: str
    verifier: str
    back: str
    ends: int


class SignOns:
    """Begins and finishes sign-ons."""

    def __init__(
        self,
        sites: Sites,
        providers: Mapping[str, tuple[ProviderSettings, Provider]],
        keys: Keys,
        *,
        clock: Clock,
    ) -> None:
        self._sites = sites
        self._providers = providers
        self._keys = keys
        self._clock = clock

    @property
    def providers(self) -> Sequence[ProviderSettings]:
        """Return the providers that one can sign on at."""
        return [settings for settings, _ in self._providers.values()]

    def checked(self, back: str) -> str:
        """Return where a browser may be sent back to. Raises InvalidInputError."""
        if back and not self._sites.allows(back):
            raise InvalidInputError(
                f"the address to go back to is none of {self._sites.domain}", hint="open the app's own address"
            )
        return back

    async def begin(self, name: str, back: str, *, prompt: str = "") -> Begun:
        """Return where a browser goes to sign on. Raises InvalidInputError and UnavailableError."""
        if name not in self._providers:
            raise InvalidInputError("there is no such provider", hint="open the app's own address")
        _, provider = self._providers[name]
        back = self.checked(back)
        asked = await provider.ask(prompt=prompt)
        state = _State(asked.state, name, asked.nonce, asked.verifier, back, self._now() + LIFE)
        content = json.dumps(asdict(state), separators=(",", ":")).encode()
        cookie = self._keys.current().seal(_PURPOSE, content, now=self._clock.now())
        if len(cookie) > LONGEST:
            raise InvalidInputError("the address to go back to is too long", hint="open the app's own address")
        return Begun(asked.url, asked.state, cookie)

    def begun(self, state: str, cookies: Sequence[str]) -> str:
        """Return where the browser of a sign-on that did not succeed may try again; nothing if that is not known."""
        found = self._opened(state, cookies)
        return found.back if found is not None else ""

    async def finish(self, answer: Mapping[str, str], cookies: Sequence[str]) -> Finished:
        """Return who signed on. Raises UnauthenticatedError and UnavailableError."""
        state = self._opened(answer.get("state", ""), cookies)
        if state is None or self._now() >= state.ends or state.provider not in self._providers:
            raise UnauthenticatedError(
                "this sign-on was not begun in this browser, or too long ago", hint="open the app's address again"
            )
        settings, provider = self._providers[state.provider]
        said = await provider.redeem(answer, nonce=state.nonce, verifier=state.verifier)
        return Finished(who_of(settings, said.claims or {}), said.refresh_token, self.checked(state.back))

    def _opened(self, state: str, cookies: Sequence[str]) -> _State | None:
        for cookie in cookies[:2]:
            ring = self._keys.current()
            content = (ring if ring.knows(cookie) else self._keys.seen_anew()).open(_PURPOSE, cookie)
            if content is not None:
                document: dict[str, Any] = json.loads(content)
                found = _State(**document)
                if secrets.compare_digest(found.state.encode(), state.encode("utf-8", "replace")):
                    return found
        return None

    def _now(self) -> int:
        return int(self._clock.now().timestamp())
