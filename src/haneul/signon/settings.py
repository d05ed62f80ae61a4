"""The gate's file of settings; secrets lie in other ones.

```yaml
url: https://auth.apps.example.com
domain: apps.example.com
providers:
  - name: company
    issuer: https://cloud.example.com:7443/oidc
    clientId: apps
    clientSecretFile: company.secret
    authorityFile: ca.crt
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from haneul.kernel.errors import ForbiddenError, InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private
from haneul.kernel.hosts import is_loopback
from haneul.signon.addresses import Sites, sites_of

_LABEL: Final = r"[a-z][a-z0-9-]{0,30}"
_PREFIX: Final = "^([a-z0-9-]+:)?$"
_HINT: Final = "docs/reference/sign-on-gate.md has every field"


class _Settings(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _https(value: str) -> str:
    parts = urlsplit(value)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError("it is no address of a web server")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain HTTP would show secrets to whoever listens; it is for loopback alone")
    return value.rstrip("/") if parts.path in ("", "/") else value


class ProviderSettings(_Settings):
    """An OpenID Connect provider: the platform's issuer, or any other."""

    name: str = Field(pattern=f"^{_LABEL}$")
    #: What people call it, for the page that lets them choose.
    title: str = ""
    issuer: str
    client_id: str = Field(min_length=1)
    client_secret_file: Path
    authority_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "profile", "email", "groups", "projects", "offline_access")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    projects_claim: str = "projects"
    #: Stands before the names of its people, groups and projects, so that none is taken for another provider's.
    prefix: str = Field("", pattern=_PREFIX)
    #: Beginnings of names that are somebody else's: robots, and the prefixes of all others, which are added here.
    reserved_prefixes: tuple[str, ...] = ("robot:",)
    email_is_verified: bool = False
    #: Seconds that an answer may take.
    patience_seconds: float = Field(5.0, gt=0, le=60)
    #: The domains whose addresses it may vouch for; all, or with a prefix none, where it names none.
    email_domains: tuple[str, ...] = ()
    #: For whom tokens are that programs may bring; without any, programs bring none of this provider.
    audiences: tuple[str, ...] = ()

    _check = field_validator("issuer")(_https)

    @model_validator(mode="before")
    @classmethod
    def _titled(cls, values: Any) -> Any:
        return {"title": values.get("name", ""), **values} if isinstance(values, dict) else values


class PlatformSettings(_Settings):
    """The platform's API, which is asked whose a token is that somebody made there for a program."""

    url: str
    authority_file: Path | None = None
    #: Seconds that an answer may take.
    patience_seconds: float = Field(10.0, gt=0, le=60)
    #: Stands before the names of its people and robots, groups and projects, as a provider's prefix does.
    prefix: str = Field("", pattern=_PREFIX)

    _check = field_validator("url")(_https)


class GateSettings(_Settings):
    """Everything that the gate is told."""

    #: Where browsers reach it, and the domain of the hosts that it signs people on for.
    url: str
    domain: str
    #: Where the web server reaches it: an address with a port, or unix:/a/path.
    listen: str = Field("127.0.0.1:7480", pattern=r"^(unix:/.+|.+:[0-9]{1,5})$")
    keys_file: Path = Path("keys")
    signed_out_file: Path = Path("signed-out")
    session_hours: float = Field(10, gt=0, le=24 * 7)
    #: How often the provider is asked whether people are still there, and how long they stay while it is away.
    confirm_minutes: float = Field(5, gt=0, le=24 * 60)
    outage_minutes: float = Field(15, ge=0, le=24 * 60)
    providers: tuple[ProviderSettings, ...] = Field(min_length=1, max_length=8)
    platform: PlatformSettings | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> GateSettings:
        if len({one.name for one in self.providers}) < len(self.providers):
            raise ValueError("two providers have one name")
        if len({one.prefix for one in self.providers}) < len(self.providers):
            raise ValueError("two providers have one prefix, so that their people could be taken for each other")
        if len({one.issuer for one in self.providers}) < len(self.providers):
            raise ValueError("two providers have one issuer")
        return self

    @property
    def sites(self) -> Sites:
        """Return the hosts that it is for."""
        return sites_of(self.url, self.domain)

    @property
    def session_seconds(self) -> int:
        """Return how long a browser is signed on at most."""
        return int(self.session_hours * 3600)


def read_settings(file: Path) -> GateSettings:
    """Read the file; paths in it become absolute, from its own folder. Raises InvalidInputError and ForbiddenError."""
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", hint="--config names the file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} is no YAML: {error}", hint=_HINT) from error
    try:
        settings = GateSettings.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{file}: {wrong}", hint=_HINT) from error
    sites_of(settings.url, settings.domain)
    whole = _completed(settings, file.parent.absolute())
    for provider in whole.providers:
        _check_secret(provider.client_secret_file)
    return whole


def _completed(settings: GateSettings, folder: Path) -> GateSettings:
    platform = settings.platform
    prefixes = {one.prefix for one in settings.providers} | ({platform.prefix} if platform is not None else set())

    def provider(one: ProviderSettings) -> ProviderSettings:
        secret, authority = folder / one.client_secret_file, one.authority_file and folder / one.authority_file
        reserved = (*one.reserved_prefixes, *sorted(prefixes - {"", one.prefix}))
        files = {"client_secret_file": secret, "authority_file": authority}
        return one.model_copy(update={**files, "reserved_prefixes": reserved})

    if platform is not None and platform.authority_file is not None:
        platform = platform.model_copy(update={"authority_file": folder / platform.authority_file})
    return settings.model_copy(
        update={
            "keys_file": folder / settings.keys_file,
            "signed_out_file": folder / settings.signed_out_file,
            "providers": tuple(map(provider, settings.providers)),
            "platform": platform,
        }
    )


def _check_secret(file: Path) -> None:
    try:
        secret = read_private(file).strip()
    except NotPrivateError as error:
        raise ForbiddenError(f"others than its owner may read {file}", hint=f"chmod 600 {file}") from error
    except OSError as error:
        raise InvalidInputError(
            f"{file} cannot be read: {error.strerror}",
            hint="'clientSecretFile' names the file with the secret alone",
        ) from error
    if not secret:
        raise InvalidInputError(f"{file} holds no secret", hint="write the secret into its first line")
