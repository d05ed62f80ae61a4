"""What the gate needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from haneul.kernel.openid import Asked, Said
from haneul.signon.keyring import Keyring
from haneul.signon.model import Who


class Provider(Protocol):
    """An OpenID Connect provider; :class:`haneul.kernel.openid.OpenIdClient` is one.

    All raise UnavailableError when it does not answer, or not as it should.
    """

    async def ask(self, *, prompt: str = "") -> Asked:
        """Return where to send a browser to."""
        ...

    async def redeem(self, answer: Mapping[str, str], *, nonce: str, verifier: str) -> Said:
        """Turn what the browser brought back into claims. Raises UnauthenticatedError."""
        ...

    async def refresh(self, token: str) -> Said:
        """Ask about a person again. Raises GrantRefusedError."""
        ...

    async def revoke(self, token: str) -> None:
        """Have the provider end what a refresh token is for, if it can."""
        ...

    async def verified(self, token: str, audiences: Sequence[str]) -> dict[str, Any]:
        """Return the claims of a token that it signed for one of the audiences. Raises UnauthenticatedError."""
        ...


class TokenHolders(Protocol):
    """Whose tokens are that were made for programs on the platform."""

    async def holder(self, token: str) -> Who:
        """Return who holds a token. Raises UnauthenticatedError and UnavailableError."""
        ...


class Keys(Protocol):
    """The keys, which others may change at any time."""

    def current(self) -> Keyring:
        """Return the keys as they were seen last."""
        ...

    def seen_anew(self) -> Keyring:
        """Look again, for something was sealed with a key that is not known; not more than once a second."""
        ...


class EndedSessions(Protocol):
    """Sessions that were ended before their time, remembered until then, also by a gate that starts anew."""

    def end(self, session: str, until: int) -> None:
        """Remember that a session is over; it would have ended at ``until`` (seconds since 1970)."""
        ...

    def ended(self, session: str) -> bool:
        """Say whether a session is over."""
        ...
