"""How this platform is a client of the company's sign-on provider."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.openid import OpenIdAccess, OpenIdClient


class ProviderSettings(BaseModel):
    """How to reach the company's provider, and how to read what it says of people."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    name: str = Field(default="your company", description="What the sign-on page calls it.")
    issuer: str = Field(description="Its issuer URL, as it stands in its discovery document.")
    client_id: str = Field(description="What it calls this platform.")
    client_secret_file: Path = Field(description="File with the secret that it gave this platform.")
    authority_file: Path | None = Field(default=None, description="Certificate authority of its web server.")
    scopes: tuple[str, ...] = Field(
        default=("openid", "profile", "email", "groups", "offline_access"), description="What is asked for."
    )
    name_claim: str = Field(default="preferred_username", description="Claim that people's names are made from.")
    groups_claim: str = Field(default="groups", description="Claim with a list of groups.")
    allowed_domains: tuple[str, ...] = Field(
        default=(), description="Domains of e-mail addresses that are let in; all people of the provider where empty."
    )
    email_is_verified: bool = Field(
        default=False, description="Take addresses as proved without the claim email_verified."
    )
    outage_minutes: int = Field(
        default=15, ge=0, le=1440, description="How long people stay signed in while the provider does not answer."
    )

    @field_validator("issuer")
    @classmethod
    def _secure(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1"):
            raise ValueError("the issuer must be reached by https")
        return value.rstrip("/") if parts.path in ("", "/") else value


def read_provider(path: Path) -> ProviderSettings | None:
    """Return the settings in a YAML file, or None if there is no such file. Raises InvalidInputError."""
    if not path.exists():
        return None
    try:
        return ProviderSettings.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise InvalidInputError(
            f"{path} does not describe a sign-on provider: {error}", hint="docs/reference/sign-on.md lists its fields"
        ) from error


def relying_party(settings: ProviderSettings, callback: str, *, clock: Clock) -> OpenIdClient:
    """Return this platform as a client of the provider, which sends browsers back to ``callback``."""
    access = OpenIdAccess(
        settings.name,
        settings.issuer,
        settings.client_id,
        settings.client_secret_file,
        settings.scopes,
        settings.authority_file,
    )
    return OpenIdClient(access, callback, clock=clock)
