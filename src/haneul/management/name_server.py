"""The in-house DNS as host services: keepers of the zones, and recursors, who are what pods and people ask.

PowerDNS keeps the zones in a SQLite file and takes changes by its HTTP API; it answers on loopback alone. Its recursor
stands in front, at the host's address and port 53, because no kubelet tells pods another port: the platform's zones it
asks of the keepers, all other names of the resolvers that the host itself has. All outlive every cluster, the
management cluster too.

There are two of each, so that one that is killed, or started anew with another configuration, is missed by nobody. The
second keeper answers from the same file, and takes no changes. The recursors share address and port
(``SO_REUSEPORT``, socket(7)): the kernel gives each question to one that is there.

None keeps any right of root's once it listens: each runs as the user of Debian's packages, in a folder of its own
as its root. What it is told, and the API's key, only root reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import pwd
import re
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from haneul.host.services import HostService, ServiceManager, made_from
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HostNotReadyError, InvalidInputError
from haneul.kernel.files import read_private, write_atomically
from haneul.kernel.listening import listens
from haneul.kernel.waiting import wait_for
from haneul.management.settings import ManagementSettings

DNS_PORT: Final = 53
#: Debian's packages make this user, and bring the tables that a new file of zones has.
_USER: Final = "pdns"
_SCHEMA: Final = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
_KEEPER, _RECURSOR = Path("/usr/sbin/pdns_server"), Path("/usr/sbin/pdns_recursor")
_INSTALL: Final = "apt-get install pdns-server pdns-backend-sqlite3 pdns-recursor"
_DATABASE: Final = "zones.sqlite3"
_CONNECT_SECONDS: Final = 2.0
#: Seconds for which the keeper remembers what it found; what is changed by its API it forgets at once. The second one,
#: who is told of no change, remembers nothing.
_KEEPER_SECONDS, _SECOND_KEEPER_SECONDS = 1, 0
#: By what the configuration of the second of a pair is told from the first's, and its control socket too.
_SECOND: Final = "second"
#: For how many seconds others remember that a name is not there, which may come any moment (RFC 2308 section 5).
_NEGATIVE_SECONDS: Final = 0
#: Who may ask for names that are not ours: everything that is not the internet (RFC 1918, RFC 6598, RFC 4193).
_PRIVATE: Final = ("127.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_INSERT: Final = "INSERT INTO records (domain_id, name, type, content, ttl, auth) VALUES (?, ?, ?, ?, 3600, 1)"
#: So much of a name is left for clusters and projects, and what lies below them.
_LONGEST_ZONE: Final = 63


@dataclass(frozen=True)
class NameFiles:
    """What the DNS server has on the host, below the installation's state folder."""

    state: Path

    @property
    def zone(self) -> Path:
        """Return the file that names the zone; who wants another one writes it before the first `up`."""
        return self.state / "zone"

    @property
    def key(self) -> Path:
        """Return the key of the zones' API, for root only."""
        return self.state / "dns" / "api.key"

    @property
    def resolvers(self) -> Path:
        """Return the file of the last resolvers that the host had besides this server."""
        return self.state / "dns" / "resolvers"

    @property
    def keeper(self) -> Path:
        """Return the folder of what the keeper of zones is told."""
        return self.state / "dns" / "keeper"

    @property
    def recursor(self) -> Path:
        """Return the folder of what the recursor is told."""
        return self.state / "dns" / "recursor"

    @property
    def zones(self) -> Path:
        """Return the folder that is all that the keeper sees, with the zones' file."""
        return self.state / "dns" / "zones"

    @property
    def nothing(self) -> Path:
        """Return the empty folder that is all that the recursor sees."""
        return self.state / "dns" / "nothing"


def zone_of(state: Path) -> str:
    """Return the name below which clusters have theirs. Raises InvalidInputError if a person wrote down none."""
    try:
        text = NameFiles(state).zone.read_text().strip().lower().removesuffix(".")
    except (FileNotFoundError, PermissionError):
        # `doctor` may be asked by anybody.
        return ManagementSettings.zone
    if len(text) > _LONGEST_ZONE or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise InvalidInputError(
            f"{NameFiles(state).zone} names no zone: {text!r}",
            hint=f"one DNS name of at most {_LONGEST_ZONE} characters, such as k8s.example.com",
        )
    return text


def keeper_configuration(settings: ManagementSettings, *, key: str) -> str:
    """Return the configuration of what keeps the zones (PowerDNS Authoritative documentation "Settings").

    It notes no names between after each change, as it would have to look through the whole zone for them: who publishes
    has it done now and then (:mod:`haneul.dns.adapters.powerdns`).
    """
    return f"""{_keeping(settings, settings.zones_port, _KEEPER_SECONDS)}api=yes
api-key={key}
default-api-rectify=no
webserver=yes
webserver-address={settings.address}
webserver-port={settings.zones_api_port}
webserver-allow-from=127.0.0.0/8,{settings.address}/32,{settings.pods}
webserver-loglevel=none
"""


def second_keeper_configuration(settings: ManagementSettings) -> str:
    """Return the configuration of what answers from the same zones beside the first."""
    return _keeping(settings, settings.second_zones_port, _SECOND_KEEPER_SECONDS)


def _keeping(settings: ManagementSettings, port: int, seconds: int) -> str:
    return f"""launch=gsqlite3
gsqlite3-database=/{_DATABASE}
chroot={NameFiles(settings.state).zones}
setuid={_USER}
setgid={_USER}
socket-dir=/
daemon=no
guardian=no
disable-syslog=yes
loglevel=4
local-address=127.0.0.1
local-port={port}
cache-ttl={seconds}
query-cache-ttl={seconds}
negquery-cache-ttl={seconds}
version-string=anonymous
security-poll-suffix=
"""


def recursor_configuration(settings: ManagementSettings) -> str:
    """Return the configuration of what is asked (PowerDNS Recursor documentation "Settings").

    It remembers nothing for longer than it was told to, and so not at all that a name of ours is not there, nor that
    the keeper was away: it would not ask it again for a minute. It checks no signatures: zones of ours have none, and
    those of companies lie below names that the root says are not there. It asks for whole names at once, as whom it
    asks may know them all: else each name that is not there would be as many questions as it has labels.
    """
    networks = [network for network, _ in settings.host_networks]
    keepers = f"127.0.0.1:{settings.zones_port};127.0.0.1:{settings.second_zones_port}"
    ours = ",".join(f"{zone}={keepers}" for zone in settings.zones)
    others = _others(settings.resolvers, settings.address)
    forward = f"forward-zones-recurse=.={';'.join(others)}\n" if others else ""
    families = ("0.0.0.0", *(["::"] if any(":" in server for server in others) else []))  # noqa: S104 - asks from there
    return f"""local-address={settings.address}
local-port={DNS_PORT}
reuseport=yes
query-local-address={",".join(families)}
allow-from={",".join(dict.fromkeys((*_PRIVATE, settings.pods, *networks)))}
forward-zones={ours}
{forward}minimum-ttl-override=0
packetcache-servfail-ttl=0
qname-minimization=no
dont-throttle-netmasks=127.0.0.0/8
dnssec=process-no-validate
chroot={NameFiles(settings.state).nothing}
setuid={_USER}
setgid={_USER}
socket-dir=/
write-pid=no
daemon=no
disable-syslog=yes
loglevel=4
version-string=anonymous
security-poll-suffix=
"""


def resolvers_of(state: Path, resolvers: Sequence[str], *, address: str) -> tuple[str, ...]:
    """Return who is asked for names that are not ours: the host's resolvers, but for this server itself.

    A host that asks for all names here names no other any more; then it is those that it had before.
    """
    if others := _others(resolvers, address):
        return others
    with contextlib.suppress(FileNotFoundError):
        return _others(NameFiles(state).resolvers.read_text().split(), address)
    return ()


def _others(resolvers: Sequence[str], address: str) -> tuple[str, ...]:
    servers = [ipaddress.ip_address(server) for server in resolvers]
    # Those of one link only cannot be told without the link.
    return tuple(str(server) for server in servers if not server.is_link_local and str(server) != address)


def keeper_services(settings: ManagementSettings, *, key: str) -> tuple[HostService, HostService]:
    """Return what keeps the zones as host services; they read the zones' names and the key when they start.

    Of the key, which is random and long, some letters of its digest tell of no more than that it is another.
    """
    argv = (str(_KEEPER), f"--config-dir={NameFiles(settings.state).keeper}")
    zones = " ".join(settings.zones)
    return (
        HostService("dns-zones", argv, (made_from(keeper_configuration(settings, key=key) + zones),)),
        HostService(
            f"dns-zones-{_SECOND}",
            (*argv, f"--config-name={_SECOND}"),
            (made_from(second_keeper_configuration(settings) + zones),),
        ),
    )


def recursor_services(settings: ManagementSettings) -> tuple[HostService, HostService]:
    """Return what is asked as host services, which differ in nothing but their names."""
    argv = (str(_RECURSOR), f"--config-dir={NameFiles(settings.state).recursor}")
    made = (made_from(recursor_configuration(settings)),)
    return (HostService("dns", argv, made), HostService(f"dns-{_SECOND}", (*argv, f"--config-name={_SECOND}"), made))


class NameServer:
    """The DNS server of this host, by all of its programs."""

    def __init__(self, settings: ManagementSettings, *, services: ServiceManager, clock: Clock) -> None:
        self._settings = settings
        self._services = services
        self._clock = clock
        self.files = NameFiles(settings.state)

    async def start(self) -> None:
        """Make what it needs and start it; may be repeated. Raises HostNotReadyError if Debian's packages lack."""
        settings = self._settings
        await asyncio.to_thread(self._prepare)
        key = read_private(self.files.key).strip()
        keepers, recursors = keeper_services(settings, key=key), recursor_services(settings)
        # One after the other: who of a pair is not being started answers.
        for service, listening in (
            (keepers[0], (("127.0.0.1", settings.zones_port), (settings.address, settings.zones_api_port))),
            (keepers[1], (("127.0.0.1", settings.second_zones_port),)),
            (recursors[0], ((settings.address, DNS_PORT),)),
            (recursors[1], ((settings.address, DNS_PORT),)),
        ):
            await self._services.ensure(service)
            for address, port in listening:
                await wait_for(
                    partial(listens, address, port, seconds=_CONNECT_SECONDS),
                    what=f"the DNS server to listen at {address} port {port}",
                    timeout=30,
                    clock=self._clock,
                    hint=f"look at {settings.logs}/{service.name}.log, and whether another program has the port",
                )

    def _prepare(self) -> None:
        """Write all files."""
        settings, files = self._settings, self.files
        if missing := [str(program) for program in (_KEEPER, _RECURSOR) if not program.exists()]:
            raise HostNotReadyError(f"{' and '.join(missing)} are not installed", hint=_INSTALL)
        try:
            user = pwd.getpwnam(_USER)
        except KeyError as error:
            raise HostNotReadyError(
                f"there is no user {_USER}: the DNS server is not installed",
                hint=_INSTALL,
            ) from error
        write_atomically(files.zone, settings.zone + "\n")
        if others := _others(settings.resolvers, settings.address):
            files.resolvers.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(files.resolvers, "\n".join(others) + "\n")
        for folder in (files.keeper, files.recursor, files.zones, files.nothing):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (files.zones, files.nothing):
            folder.chmod(0o700)
            os.chown(folder, user.pw_uid, user.pw_gid)
        if not files.key.exists():
            write_atomically(files.key, secrets.token_urlsafe(32) + "\n", mode=0o600)
        ensure_zones(
            files.zones / _DATABASE,
            settings.zones,
            address=settings.address,
            owner=(user.pw_uid, user.pw_gid),
            hosts={settings.sign_on_host: settings.sign_on_address},
        )
        keeper = keeper_configuration(settings, key=read_private(files.key).strip())
        write_atomically(files.keeper / "pdns.conf", keeper, mode=0o600)
        second = second_keeper_configuration(settings)
        write_atomically(files.keeper / f"pdns-{_SECOND}.conf", second, mode=0o600)
        for name in ("recursor", f"recursor-{_SECOND}"):
            write_atomically(files.recursor / f"{name}.conf", recursor_configuration(settings), mode=0o600)


def ensure_zones(
    database: Path,
    zones: Sequence[str],
    *,
    address: str,
    owner: tuple[int, int],
    schema: Path = _SCHEMA,
    hosts: Mapping[str, str] | None = None,
) -> None:
    """Make the zones that are missing in a file of zones, and the file if need be; what is there stays.

    The first zone has names for the server and the image hub, with ``address``, and those of ``hosts``. ``owner`` are
    numbers of user and group. Raises HostNotReadyError if the package with the tables is missing.
    """
    server = f"ns.{zones[0]}"
    if not database.exists():
        fresh = database.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        try:
            tables = schema.read_text()
        except FileNotFoundError as error:
            raise HostNotReadyError(
                f"{schema} is not there: the DNS server's backend is not installed",
                hint="apt-get install pdns-backend-sqlite3",
            ) from error
        with contextlib.closing(sqlite3.connect(fresh)) as connection:
            connection.executescript(tables)
            connection.commit()
        os.chown(fresh, *owner)
        fresh.chmod(0o600)
        fresh.rename(database)
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        for zone in zones:
            if connection.execute("SELECT 1 FROM domains WHERE name = ?", (zone,)).fetchone() is None:
                _make_zone(connection, zone, server)
        (first,) = connection.execute("SELECT id FROM domains WHERE name = ?", (zones[0],)).fetchone()
        # The host may have another address than at the last start.
        for name, value in {server: address, f"hub.{zones[0]}": address, **(hosts or {})}.items():
            connection.execute("DELETE FROM records WHERE domain_id = ? AND name = ? AND type = 'A'", (first, name))
            connection.execute(_INSERT, (first, name, "A", value))
    # Files beside it that root was the first to open.
    for path in database.parent.glob(f"{database.name}-*"):
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, *owner, follow_symlinks=False)


def _make_zone(connection: sqlite3.Connection, zone: str, server: str) -> None:
    made = connection.execute("INSERT INTO domains (name, type) VALUES (?, 'NATIVE')", (zone,)).lastrowid
    # A change by the API makes the serial greater: receipts name it.
    connection.execute(
        "INSERT INTO domainmetadata (domain_id, kind, content) VALUES (?, 'SOA-EDIT-API', 'INCREASE')", (made,)
    )
    start = f"{server} hostmaster.{server.partition('.')[2]} 1 3600 600 86400 {_NEGATIVE_SECONDS}"
    for kind, content in (("SOA", start), ("NS", server)):
        connection.execute(_INSERT, (made, zone, kind, content))
