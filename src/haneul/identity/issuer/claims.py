"""What the company's provider says of a person, read as the settings say: pure decisions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haneul.identity.issuer.relying import ProviderSettings
from haneul.identity.model import LONGEST_NAME
from haneul.kernel.errors import UnauthenticatedError


@dataclass(frozen=True)
class Colleague:
    """A person as the provider sees them. ``groups`` is None where it said nothing of groups."""

    subject: str
    name: str
    display_name: str
    email: str
    groups: frozenset[str] | None


def colleague(settings: ProviderSettings, claims: Mapping[str, Any]) -> Colleague:
    """Return the person of an ID token. Raises UnauthenticatedError for who is not let in."""
    email = str(claims.get("email") or "")
    domain = email.rpartition("@")[2].lower()
    proved = settings.email_is_verified or claims.get("email_verified") is True
    if settings.allowed_domains:
        if domain not in {allowed.lower() for allowed in settings.allowed_domains} or "@" not in email:
            raise UnauthenticatedError(
                "your address is of no domain that is let in here", hint="sign on with your company's account"
            )
        if not proved:
            raise UnauthenticatedError(
                "your provider does not say that your address was proved",
                hint="the administrator's setting emailIsVerified trusts it all the same",
            )
    said = claims.get(settings.groups_claim)
    groups = frozenset(entry for entry in said if isinstance(entry, str)) if isinstance(said, list) else None
    return Colleague(
        subject=str(claims["sub"])[:255],
        name=_name(str(claims.get(settings.name_claim) or "")),
        display_name=str(claims.get("name") or "")[:200],
        email=email[:200],
        groups=groups,
    )


def _name(text: str) -> str:
    """Return a person's name made of a claim: small letters, digits and '-'; of an address, what is before the '@'."""
    name = re.sub(r"[^a-z0-9]+", "-", text.partition("@")[0].lower()).strip("-")[:LONGEST_NAME].strip("-")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise UnauthenticatedError(
            f"no name can be made of {text[:60]!r}", hint="an administrator links your account to a person here"
        )
    return name
