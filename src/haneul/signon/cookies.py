"""Cookies as they stand in headers (RFC 6265): reading ours, taking ours out, setting ours. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

#: Browsers take cookies of these names over TLS alone; the second kind from exactly the host that uses them
#: (RFC 6265bis, section 4.1.3).
SESSION: Final = "__Secure-haneul-session"
_STATE: Final = "__Host-haneul-state-"
SIGNED_OUT: Final = "__Host-haneul-signed-out"
FORM: Final = "__Host-haneul-form"
_OURS: Final = ("__secure-haneul-", "__host-haneul-")
#: Characters that a cookie's value may have here: with its name and attributes it stays below what browsers keep, 4096.
LONGEST: Final = 3800


def state_name(state: str) -> str:
    """Return the name of the cookie that binds a sign-on to its browser: one each, as there may be several tabs."""
    return _STATE + hashlib.sha256(state.encode()).hexdigest()[:12]


def values_of(headers: Sequence[str], name: str) -> list[str]:
    """Return all values of a cookie: a browser sends several where hosts of a domain set it for different paths."""
    return [value for header in headers for key, value in _pairs(header) if key == name]


def states_of(headers: Sequence[str]) -> list[str]:
    """Return the names of all cookies of sign-ons that were begun."""
    return [key for header in headers for key, _ in _pairs(header) if key.startswith(_STATE)]


def without_ours(headers: Sequence[str]) -> str:
    """Return the cookies of others, as an app may see them."""
    kept = [part.strip() for header in headers for part in header.split(";")]
    return "; ".join(part for part in kept if part and not part.lower().startswith(_OURS))


def set_cookie(name: str, value: str, *, seconds: int, domain: str = "", strict: bool = False) -> str:
    """Return a header that sets a cookie; it is for the host that sends it, or for a whole domain."""
    scope = f"; Domain={domain}" if domain else ""
    same = "Strict" if strict else "Lax"
    return f"{name}={value}{scope}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite={same}"


def remove_cookie(name: str, *, domain: str = "") -> str:
    """Return a header that removes a cookie."""
    return set_cookie(name, "", seconds=0, domain=domain)


def _pairs(header: str) -> list[tuple[str, str]]:
    found = []
    for part in header.split(";"):
        key, separator, value = part.strip().partition("=")
        if separator:
            found.append((key, value))
    return found
