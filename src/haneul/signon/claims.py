"""What a provider says of somebody, read as the settings say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from haneul.kernel.errors import UnauthenticatedError
from haneul.signon.model import Who
from haneul.signon.settings import ProviderSettings

_LONGEST: Final = 255


def who_of(settings: ProviderSettings, claims: Mapping[str, Any]) -> Who:
    """Return the person of a verified token. Raises UnauthenticatedError for who cannot be named."""
    name = claims.get(settings.name_claim)
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.isprintable() or _taken(settings, name):
        raise UnauthenticatedError(
            f"{settings.title} says no name of you that can be one here ({settings.name_claim})",
            hint="whoever runs this gate chooses the claim with nameClaim",
        )
    return Who(
        provider=settings.name,
        subject=str(claims["sub"])[:_LONGEST],
        user=f"{settings.prefix}{name}",
        email=_email(settings, claims),
        groups=_names(settings, claims.get(settings.groups_claim)),
        projects=_names(settings, claims.get(settings.projects_claim)),
    )


def _email(settings: ProviderSettings, claims: Mapping[str, Any]) -> str:
    """Return an address that the provider vouches for and may vouch for."""
    email = claims.get("email")
    if not isinstance(email, str) or not email.isprintable() or email.count("@") != 1 or len(email) > _LONGEST:
        return ""
    proved = settings.email_is_verified or claims.get("email_verified") is True
    domains = settings.email_domains
    may = email.rpartition("@")[2].lower() in domains if domains else not settings.prefix
    return email if proved and may else ""


def _taken(settings: ProviderSettings, name: str) -> bool:
    """Say whether a name would be another's; behind a prefix of its own none is."""
    return not settings.prefix and name.startswith(settings.reserved_prefixes)


def _names(settings: ProviderSettings, said: object) -> tuple[str, ...]:
    if not isinstance(said, list):
        return ()
    names = {name for name in said if isinstance(name, str) and 0 < len(name) <= _LONGEST}
    names = {name for name in names if not _taken(settings, name)}
    return tuple(sorted(f"{settings.prefix}{name}" for name in names))
