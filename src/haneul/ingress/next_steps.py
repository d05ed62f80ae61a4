"""What to do about what an issuer said, for whoever wrote an object: its own words are seldom enough. Pure.

Source: RFC 8555 section 6.7, the problem types; ``pace`` is of our own (:mod:`haneul.ingress.new_orders`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

_STEPS: Final[Mapping[str, str]] = {
    "caa": "let the domain's CAA records name this issuer",
    "connection": "let the issuer reach port 80 of {place}",
    "dns": "let the host's name lead to {place}",
    "externalAccountRequired": "whoever runs this has to name an account that the issuer knows",
    "pace": "wait, it goes on by itself; hosts that have a certificate keep it",
    "rateLimited": "wait; the issuer says how long, and it is asked again then",
    "rejectedIdentifier": "use another host, as this issuer gives none for this one, or a Secret in spec.tls",
    "unauthorized": "let the host's name lead to {place} alone; something else answered",
    "userActionRequired": "whoever runs this has to agree to the issuer's terms",
}
_ELSE: Final = "it is asked again by itself, ever later"


def next_step(why: str, addresses: Collection[str]) -> str:
    """Return what to do after an issuer said ``why``, its problem's type first; ``addresses`` are the proxy's."""
    place = " or ".join(addresses) or "this proxy"
    return _STEPS.get(why.partition(":")[0], _ELSE).format(place=place)
