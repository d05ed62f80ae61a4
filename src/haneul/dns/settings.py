"""The file that says which DNS server records are published to; its secret lies in another one.

```yaml
kind: powerdns                      # or:  kind: rfc2136
url: https://dns.example.com:8081   #      address: 192.0.2.53
keyFile: powerdns.key               #      keyName: haneul
authority: ca.crt                   #      keyFile: haneul.key
zones: [k8s.example.com, 10.in-addr.arpa]
```
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from haneul.dns.model import absolute
from haneul.kernel.errors import ForbiddenError, InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private
from haneul.kernel.hosts import is_loopback


class _Settings(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    #: A file with the secret alone, that nobody but its owner may read; relative to the settings' own folder.
    key_file: Path
    zones: tuple[str, ...] = Field(min_length=1)

    @field_validator("zones")
    @classmethod
    def _names(cls, zones: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(absolute(zone) for zone in zones)
        except InvalidInputError as error:
            raise ValueError(error.detail) from error


class PowerDnsSettings(_Settings):
    """A PowerDNS server with its HTTP API. Without TLS the key would be seen, so plain HTTP is for loopback alone."""

    kind: Literal["powerdns"]
    url: str
    #: The authority of the API's certificate; without it, those that this machine trusts.
    authority: Path | None = None
    #: The server's own name in its API.
    server_id: str = "localhost"
    #: Where it answers questions: its address, and a port.
    address: str | None = None
    port: int = Field(53, ge=1, le=65535)

    @field_validator("url")
    @classmethod
    def _safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it is no address of an HTTP server")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("plain HTTP would show the key to whoever listens; it is for loopback alone")
        return url


class UpdateSettings(_Settings):
    """A server that takes signed updates (RFC 2136, RFC 8945)."""

    kind: Literal["rfc2136"]
    address: str
    port: int = Field(53, ge=1, le=65535)
    key_name: str
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        return str(ipaddress.ip_address(address))


ProviderSettings = PowerDnsSettings | UpdateSettings
_ADAPTER: Final[TypeAdapter[ProviderSettings]] = TypeAdapter(
    Annotated[PowerDnsSettings | UpdateSettings, Field(discriminator="kind")]
)


def read_settings(file: Path) -> ProviderSettings:
    """Read a provider's file; paths in it become absolute. Raises InvalidInputError."""
    document = _document(file)
    for name in ("keyFile", "authority"):
        if isinstance(document.get(name), str):
            document[name] = str(file.parent.absolute() / document[name])
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{file}: {wrong}", hint="docs/reference/dns.md has every field") from error


def read_secret(file: Path) -> str:
    """Return the secret in a file that nobody but its owner may read. Raises InvalidInputError and ForbiddenError."""
    try:
        secret = read_private(file).strip()
    except NotPrivateError as error:
        raise ForbiddenError(f"others than its owner may read {file}", hint=f"chmod 600 {file}") from error
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", hint="'keyFile' names it") from error
    if not secret:
        raise InvalidInputError(f"{file} holds no secret", hint="write the secret into its first line")
    return secret


def _document(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise InvalidInputError(
            f"{file} cannot be read: {error.strerror}", hint="--provider names the file that says which server it is"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} is no YAML: {error}", hint="docs/reference/dns.md has an example") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} is no mapping", hint="docs/reference/dns.md has an example")
    return document
