"""Values of Kage: zones, ports, secrets, and the parts that run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Copies of everything, each in a zone of its own as long as there are as many.
COPIES: Final = 3
#: The one account of the store, and its one user; together they are the S3 access key id.
ACCOUNT: Final = "haneul"
USER: Final = "d2hub"
REGION: Final = "kage"
#: The one disk of each zone, as rings know it.
DEVICE: Final = "d1"
#: What a part that is no module of Swift is: rsync's daemon.
RSYNC: Final = "rsync"


@dataclass(frozen=True)
class Ports:
    """Where each kind of server listens; those of a zone on the zone's address."""

    proxy: int = 8080
    object: int = 6200
    container: int = 6201
    account: int = 6202
    rsync: int = 6203

    def of(self, kind: str) -> int:
        """Return the port of a zone's server of accounts, containers or objects."""
        return {"account": self.account, "container": self.container, "object": self.object}[kind]


@dataclass(frozen=True)
class Secrets:
    """What nobody else may know: the S3 secret, what blurs where objects lie, and the key of tokens (Fernet)."""

    secret_key: str = field(repr=False)
    hash_suffix: str = field(repr=False)
    token_key: str = field(repr=False)

    @property
    def access_key_id(self) -> str:
        """Return the S3 access key id, which is no secret."""
        return f"{ACCOUNT}:{USER}"


@dataclass(frozen=True)
class KageSettings:
    """A store on one machine: its zones are folders, each with servers on a loopback address of its own.

    ``user`` is the system's user that servers run as: the name of an account, or the number that they were started as.
    2 ** ``part_power`` is how finely a ring can be divided.
    """

    folder: Path
    user: str
    ports: Ports = field(default_factory=Ports)
    zones: int = COPIES
    part_power: int = 8
    #: Seconds between passes of the daemons that bring copies together.
    replicate_every: float = 30.0
    #: Numbers of the user and group that zones and what servers are told belong to, if not whoever makes them. They
    #: can make nothing beside these.
    owner: tuple[int, int] | None = None

    @property
    def etc(self) -> Path:
        """Return the folder of Swift's configuration."""
        return self.folder / "etc"

    @property
    def address(self) -> str:
        """Return where the proxy listens."""
        return "127.0.0.1"

    @property
    def endpoint(self) -> str:
        """Return the URL of the S3 API. There is no TLS: nothing but loopback is served."""
        return f"http://{self.address}:{self.ports.proxy}"

    def zone_address(self, zone: int) -> str:
        """Return a zone's address; zones count from 1."""
        return f"127.0.1.{zone}"

    def zone_folder(self, zone: int) -> Path:
        """Return the folder of a zone: what would be a machine of its own."""
        return self.folder / f"zone{zone}"

    def disk(self, zone: int) -> Path:
        """Return the folder that stands for a zone's disk."""
        return self.zone_folder(zone) / "disks" / DEVICE

    @property
    def every_zone(self) -> range:
        """Return the numbers of all zones."""
        return range(1, self.zones + 1)


@dataclass(frozen=True)
class Part:
    """A server or daemon: its module of Swift, or RSYNC; its configuration, and where it listens, if it does.

    ``zone`` is 0 for what belongs to none.
    """

    name: str
    module: str
    configuration: Path
    zone: int = 0
    address: str = ""
    port: int = 0
