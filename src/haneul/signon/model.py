"""The values of the gate: who somebody is, and for how long a browser is signed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haneul.kernel.errors import HaneulError


class MisconfiguredError(HaneulError):
    """The web server before the gate asked without a rule that can be read, so nobody is let through."""

    code = "sign-on-misconfigured"
    title = "The sign-on of this site is not set up rightly"
    http_status = 500
    exit_code = 2


@dataclass(frozen=True)
class Who:
    """Somebody whom a provider or the platform vouches for. Names carry the provider's prefix already.

    ``email`` is empty where nobody vouches for it.
    """

    provider: str
    subject: str
    user: str
    email: str = ""
    groups: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """A browser that is signed on. Moments are seconds since 1970; ``refresh`` is the provider's refresh token."""

    id: str
    who: Who
    began: int
    ends: int
    confirmed: int
    refresh: str = ""


#: Names of the headers that the gate answers with, which the web server passes to the app in place of the client's.
USER: Final = "X-Haneul-User"
EMAIL: Final = "X-Haneul-Email"
GROUPS: Final = "X-Haneul-Groups"
PROJECTS: Final = "X-Haneul-Projects"
#: What the app may see of the client's own headers: without what would let it act for the person elsewhere.
COOKIE: Final = "X-Haneul-Cookie"
AUTHORIZATION: Final = "X-Haneul-Authorization"
#: Where a browser goes to sign on, with answers 401; why there is none, with answers 503.
SIGN_ON: Final = "X-Haneul-Sign-On"
PROBLEM: Final = "X-Haneul-Problem"
#: What the web server asks with.
RULE: Final = "X-Haneul-Rule"
ORIGINAL_URL: Final = "X-Original-URL"
ORIGINAL_METHOD: Final = "X-Original-Method"
