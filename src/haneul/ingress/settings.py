"""The file that says which cluster is served, where nginx listens, and what it has on its machine.

```yaml
cluster: shop
kubeconfig: shop.kubeconfig
folder: /var/lib/haneul/ingress/shop
http: ["0.0.0.0:80"]
https: ["0.0.0.0:443"]
addresses: [192.0.2.10]
hosts: ["*.shop.example.com"]
gate:
  url: http://127.0.0.1:4180
```
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from haneul.ingress.asking import Gate
from haneul.ingress.grammar import Network, Url, parse_host, parse_plain_host, parse_url
from haneul.kernel.errors import InvalidInputError

_HINT: Final = "docs/reference/ingress.md has every field"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_MAIL: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}")
T = TypeVar("T", bound=BaseModel)
_FILE: Final = re.compile(r"[A-Za-z0-9_./-]{1,200}")


class _Part(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, arbitrary_types_allowed=True
    )


class GateSettings(_Part):
    """The sign-on gate that nginx asks, by its address."""

    url: Annotated[Url, BeforeValidator(parse_url)]

    @field_validator("url")
    @classmethod
    def _address(cls, url: Url) -> Url:
        # nginx looks names up once, as it starts, and does not start where one is not found.
        try:
            ipaddress.ip_address(url.host)
        except ValueError as error:
            raise ValueError("its host is an address, as nothing is to depend on a name here") from error
        if url.scheme != "http" or url.with_request or url.rest not in ("", "/"):
            raise ValueError("it is http://ADDRESS:PORT, on this machine or in a network that is trusted")
        return url

    @property
    def gate(self) -> Gate:
        """Return the gate as routes know it."""
        return Gate(f"{self.url.host}:{self.url.port or 80}")


class ExternalAccountSettings(_Part):
    """An account elsewhere that the issuer's account belongs to."""

    id: str = Field(min_length=1, max_length=200)
    #: Has the key, Base64 as the issuer hands it out.
    key_file: Path


class IssuerSettings(_Part):
    """Who gives certificates to hosts, by RFC 8555."""

    directory: str
    #: Addresses of mail by which the issuer reaches whoever runs this.
    contact: tuple[str, ...] = ()
    #: Whoever runs this agrees to what the issuer wants.
    terms_of_service_agreed: Literal[True]
    #: Authorities of the issuer's own server, PEM; the system's if left out.
    authorities: Path | None = None
    external_account: ExternalAccountSettings | None = None

    @field_validator("directory")
    @classmethod
    def _directory(cls, text: str) -> str:
        if parse_url(text).scheme != "https":
            raise ValueError("it is https://HOST/PATH: an account is signed up there")
        return text

    @field_validator("contact")
    @classmethod
    def _contact(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_MAIL.fullmatch(address) for address in addresses):
            raise ValueError("they are addresses of mail")
        return addresses


class PlatformIssuerSettings(IssuerSettings):
    """Who gives certificates to public hosts of a platform's clusters."""

    #: Names at and below which hosts get certificates; all that are no special-use names if left out.
    names: tuple[str, ...] = ()

    @field_validator("names")
    @classmethod
    def _names(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(parse_plain_host, entries))


class IngressSettings(_Part):
    """One cluster's ingress."""

    cluster: str = Field(min_length=1, max_length=63)
    kubeconfig: Path
    #: nginx's own folder; two controllers may not have the same.
    folder: Path
    http: tuple[str, ...] = ("0.0.0.0:80",)
    https: tuple[str, ...] = ("0.0.0.0:443",)
    #: The port of HTTPS as clients know it; that of the first address if left out.
    https_port: int | None = Field(None, ge=1, le=65535)
    #: Where clients reach nginx: addresses or names, written into the status of what is served.
    addresses: tuple[str, ...] = ()
    #: Hosts that the cluster may serve; ``*.`` stands for every name below. Without any, all.
    hosts: tuple[str, ...] = ()
    #: Whether several namespaces may have paths of the same host.
    hosts_across_namespaces: bool = False
    gate: GateSettings | None = None
    acme: IssuerSettings | None = None
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol: bool = False
    workers: int = Field(2, ge=1, le=256)
    #: Whom workers run as if root starts them.
    user: str = "www-data"
    access_log: str = ""
    #: The file that says what of requests is kept; without it, nothing is.
    audit: Path | None = None
    drain_seconds: int = Field(600, ge=1, le=86400)
    program: Path = Path("/usr/sbin/nginx")
    modules: Path = Path("/usr/lib/nginx/modules")

    @field_validator("http", "https")
    @classmethod
    def _listening(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_listen, entries))

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(parse_host, entries))

    @field_validator("addresses")
    @classmethod
    def _addresses(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_address_or_name, entries))

    @field_validator("user")
    @classmethod
    def _user(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("it is the name of a user")
        return name

    @field_validator("access_log")
    @classmethod
    def _log(cls, name: str) -> str:
        if name and not _FILE.fullmatch(name):
            raise ValueError("it is the name of a file, of letters, digits and '_', '.', '/', '-'")
        return name

    @model_validator(mode="after")
    def _whole(self) -> IngressSettings:
        if not self.http and not self.https:
            raise ValueError("neither 'http' nor 'https' has an address")
        if self.acme and not self.http:
            raise ValueError("with 'acme', 'http' has an address: the issuer asks there")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("with 'proxyProtocol', 'trustedProxies' has to say whose word counts")
        return self

    @property
    def public_https_port(self) -> int:
        """Return the port of HTTPS that redirects name."""
        if self.https_port:
            return self.https_port
        return int(self.https[0].rpartition(":")[2]) if self.https else 443


def read_settings(file: Path) -> IngressSettings:
    """Read the file; paths in it are relative to its folder. Raises InvalidInputError."""
    document = _document(file)
    for name in ("kubeconfig", "folder", "audit"):
        if isinstance(document.get(name), str):
            document[name] = str(file.parent.absolute() / document[name])
    _place_files(document.get("acme"), file.parent.absolute())
    return _validated(IngressSettings, file, document)


def read_issuer(file: Path) -> PlatformIssuerSettings:
    """Read the file of a platform's issuer; paths in it are relative to its folder. Raises InvalidInputError."""
    document = _document(file)
    _place_files(document, file.parent.absolute())
    return _validated(PlatformIssuerSettings, file, document)


def _validated(kind: type[T], file: Path, document: dict[str, Any]) -> T:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{file}: {wrong}", hint=_HINT) from error


def _place_files(acme: Any, folder: Path) -> None:
    """Let names of files of the issuer be relative to a folder."""
    if isinstance(acme, dict):
        for part, name in ((acme, "authorities"), (acme.get("externalAccount"), "keyFile")):
            if isinstance(part, dict) and isinstance(part.get(name), str):
                part[name] = str(folder / part[name])


def _document(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", hint="name a file that is there") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} is no YAML: {error}", hint=_HINT) from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} is no mapping", hint=_HINT)
    return document


def _listen(text: str) -> str:
    """Return an address and a port, as nginx listens."""
    address, _, port = text.rpartition(":")
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        found = ipaddress.ip_address(bare)
    except ValueError as error:
        raise ValueError(f"{text!r} is no address with a port, such as 0.0.0.0:80 or [::]:80") from error
    if not port.isdecimal() or not 0 < int(port) < 65536 or (found.version == 6) != (bare != address):
        raise ValueError(f"{text!r} is no address with a port, such as 0.0.0.0:80 or [::]:80")
    return f"[{found}]:{int(port)}" if found.version == 6 else f"{found}:{int(port)}"


def _address_or_name(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return parse_plain_host(text)
