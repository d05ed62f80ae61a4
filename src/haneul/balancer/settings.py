"""The file that says which load balancer it is, and which addresses it has for whom.

```yaml
kind: haproxy
folder: /var/lib/haneul-balancer
user: haproxy
pools:
  - name: public
    addresses: [192.0.2.0/28, 198.51.100.10-198.51.100.20]
    projects: [shop]
```

Or, where the kernel is to do it, ``kind: nftables`` with a ``mode``. Machines that share the addresses have the same
file, but for what ``share`` says of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from haneul.balancer.model import Pool, parse_range
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.names import parse_label

_HINT: Final = "docs/reference/balancer.md has every field"
#: Sockets lie in the folder, whose paths may have 107 octets, and HAProxy reads some letters as more than letters.
_FOLDER: Final = re.compile(r"/[A-Za-z0-9/._-]{0,69}", re.ASCII)
_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)
_MOST_SHARED: Final = 256
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)


class _Settings(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class PoolSettings(_Settings):
    """Addresses, all of each range, for the clusters of some projects; of every project if none is named."""

    name: str
    addresses: tuple[str, ...] = Field(min_length=1)
    projects: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _label(cls, name: str) -> str:
        try:
            return parse_label(name, what="pool")
        except InvalidInputError as error:
            raise ValueError(error.detail) from error

    @field_validator("addresses")
    @classmethod
    def _ranges(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for text in addresses:
            parse_range(text)
        return addresses

    def pool(self) -> Pool:
        """Return the pool."""
        return Pool(self.name, tuple(parse_range(text) for text in self.addresses), frozenset(self.projects))


class ShareSettings(_Settings):
    """How machines share the pools' addresses, by keepalived, which gives all of them to one machine at a time.

    ``device`` is where the addresses are, ``address`` this machine's own there, ``peers`` the others'; ``router`` is
    the same on all of them, and no other VRRP's there. ``advert_milliseconds`` is how often the active one says that
    it lives: after three times that, another one takes over.
    """

    device: str
    address: IPv4Address
    peers: tuple[IPv4Address, ...] = Field(min_length=1, max_length=16)
    router: int = Field(51, ge=1, le=255)
    priority: int = Field(100, ge=1, le=254)
    advert_milliseconds: int = Field(500, ge=100, le=10_000, multiple_of=10)

    @field_validator("device")
    @classmethod
    def _device(cls, device: str) -> str:
        return _device(device)

    @model_validator(mode="after")
    def _others(self) -> ShareSettings:
        if self.address in self.peers:
            raise ValueError("a machine is no peer of itself")
        return self


class _BalancerSettings(_Settings):
    """What holds for every balancer on this machine."""

    folder: Path
    pools: tuple[PoolSettings, ...] = Field(min_length=1)
    share: ShareSettings | None = None

    @field_validator("folder")
    @classmethod
    def _plain(cls, folder: Path) -> Path:
        if not _FOLDER.fullmatch(str(folder)):
            raise ValueError("it must be an absolute path of at most 70 letters, digits, '.', '_', '-' and '/'")
        return folder

    @model_validator(mode="after")
    def _apart(self) -> _BalancerSettings:
        names = [pool.name for pool in self.pools]
        if len(set(names)) != len(names):
            raise ValueError("two pools have the same name")
        known: list[tuple[str, IPv4Address | IPv6Address, IPv4Address | IPv6Address]] = []
        for name, first, last in self._spans():
            for other, low, high in known:
                if low.version == first.version and int(first) <= int(high) and int(low) <= int(last):
                    raise ValueError(f"pools {other} and {name} have addresses in common")
            known.append((name, first, last))
        if self.share and sum(int(last) - int(first) + 1 for _, first, last in known) > _MOST_SHARED:
            raise ValueError(f"more than {_MOST_SHARED} addresses cannot be shared: a machine gets each of them")
        return self

    def pools_of(self, project: str) -> tuple[Pool, ...]:
        """Return the pools that a project's clusters may use."""
        pools = [settings.pool() for settings in self.pools]
        return tuple(pool for pool in pools if not pool.projects or project in pool.projects)

    def addresses(self) -> tuple[str, ...]:
        """Return all addresses of all pools; for those that are shared, which are few."""
        return tuple(
            str(type(first)(number)) for _, first, last in self._spans() for number in range(int(first), int(last) + 1)
        )

    def _spans(self) -> Iterator[tuple[str, IPv4Address | IPv6Address, IPv4Address | IPv6Address]]:
        for settings in self.pools:
            for first, last in settings.pool().ranges:
                yield settings.name, ip_address(first), ip_address(last)


class HaproxySettings(_BalancerSettings):
    """A HAProxy on this machine, and its pools.

    ``user`` is whom its worker becomes when it was started by root; ``max_connections`` are those at once, of all
    frontends; ``keep_seconds`` is for how long connections outlive a reload. ``supervised`` says that somebody else
    starts it.
    """

    kind: Literal["haproxy"]
    user: str = ""
    max_connections: int = Field(20_000, ge=10, le=1_000_000)
    keep_seconds: int = Field(3600, ge=1, le=86_400)
    supervised: bool = False

    @field_validator("user")
    @classmethod
    def _name(cls, user: str) -> str:
        if user and not _USER.fullmatch(user):
            raise ValueError("it is no name of a user")
        return user


class NftablesSettings(_BalancerSettings):
    """This machine's kernel, and its pools.

    ``mode`` is how packets get to members and back. With ``direct``, ``device`` is where they come in and go out, and
    members are; with ``dnat``, ``masquerade`` lets members see this machine as their client, so that answers come back
    through it.
    """

    kind: Literal["nftables"]
    mode: Literal["dnat", "direct"] = "dnat"
    device: str = ""
    masquerade: bool = True

    @field_validator("device")
    @classmethod
    def _device(cls, device: str) -> str:
        return _device(device) if device else device

    @model_validator(mode="after")
    def _fitting(self) -> NftablesSettings:
        if (self.mode == "direct") is not bool(self.device):
            raise ValueError("device is for the mode direct, which cannot do without")
        return self


BalancerSettings = Annotated[HaproxySettings | NftablesSettings, Field(discriminator="kind")]
_SETTINGS: Final = TypeAdapter[HaproxySettings | NftablesSettings](BalancerSettings)


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise ValueError("it is no name of a network device")
    return name


def read_settings(file: Path) -> HaproxySettings | NftablesSettings:
    """Read a balancer's file. Raises InvalidInputError."""
    try:
        return _SETTINGS.validate_python(_document(file))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{file}: {wrong}", hint=_HINT) from error


def _document(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise InvalidInputError(
            f"{file} cannot be read: {error.strerror}", hint="--balancer names the file that says which one it is"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} is no YAML: {error}", hint=_HINT) from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} is no mapping", hint=_HINT)
    return document
