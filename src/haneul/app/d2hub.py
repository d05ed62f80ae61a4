"""D2Hub put together: one registry, alone, in one folder.

```
DATA/lock            held while a registry serves this folder
DATA/accounts.yaml   users and projects' rules
DATA/token.key       signs the registry's own tokens
DATA/tls/            ca.crt, ca.key: its authority; tls.crt, tls.key: its certificate
DATA/hub.db          which repository has what
DATA/blobs, uploads  content
DATA/store.id        whose bucket the content is in, if it is in an object store; then there is no DATA/blobs
```
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from sqlalchemy import select

from haneul import d2hub as d2hub_package
from haneul.d2hub.adapters.file_accounts import FileAccounts
from haneul.d2hub.adapters.file_blobs import FileBlobs
from haneul.d2hub.adapters.granian_server import GranianServer, Listening
from haneul.d2hub.adapters.object_blobs import ObjectBlobs
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.application import Application
from haneul.d2hub.collecting import Collector
from haneul.d2hub.http import RegistryHttp
from haneul.d2hub.http_api import ApiHttp
from haneul.d2hub.http_auth import Doorkeeper
from haneul.d2hub.metrics import Metrics
from haneul.d2hub.registry import Limits, Registry
from haneul.d2hub.tables import repositories
from haneul.d2hub.tokens import Tokens
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.database import migrate, open_blocking_database, open_database
from haneul.kernel.errors import ConflictError, InvalidInputError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf

_log = structlog.get_logger(__name__)
MIGRATIONS: Final = Path(d2hub_package.__file__).parent / "migrations"
#: Every client of a registry remembers its own tokens, and asks again when they end.
_TOKEN_SECONDS: Final = 300
_LEAF_LIFE: Final = timedelta(days=365)
_PRIVATE: Final = 0o600
_PROBE: Final = select(repositories.c.id).limit(1)


@dataclass(frozen=True)
class HubSettings:
    """How a registry runs alone."""

    data: Path
    address: str = "127.0.0.1"
    port: int = 5443
    #: Names and addresses by which clients reach it, besides this machine's own.
    hosts: tuple[str, ...] = ()
    url: str = ""
    plain_http: bool = False
    limits: Limits = field(default_factory=Limits)
    collect_every: timedelta = timedelta(hours=1)
    drain_seconds: float = 30.0
    #: Where content lies, if not in files of the folder.
    objects: ObjectSettings | None = None
    #: Send the content of an object store to clients that cannot reach it, instead of redirecting them there.
    proxy_content: bool = False

    def __post_init__(self) -> None:
        if self.plain_http and not _is_loopback(self.address):
            raise InvalidInputError(
                f"{self.address} can be reached from elsewhere, where plain HTTP would show every secret",
                hint="leave out --plain-http, or serve on 127.0.0.1",
            )
        if self.proxy_content and self.objects is None:
            raise InvalidInputError("--proxy-content is for content in an object store", hint="name it with --store")


async def serve_hub(settings: HubSettings, *, clock: Clock | None = None) -> None:
    """Serve a registry until SIGTERM or SIGINT; requests under way are answered first."""
    clock = clock or SystemClock()
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(settings.data):
        listening = Listening(settings.address, settings.port)
        if not settings.plain_http:
            certificate, key = _certificate(settings, clock)
            listening = Listening(settings.address, settings.port, certificate, key)
        _check_port(settings)
        async with _opened(settings, clock) as hub:
            await _serve(hub, listening, settings)


async def migrated(url: str) -> None:
    """Bring a database's tables to their newest version."""
    engine = open_database(url)
    try:
        await migrate(engine, MIGRATIONS)
    finally:
        await engine.dispose()


def accounts_of(data: Path) -> FileAccounts:
    """Return the accounts of a registry's folder."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileAccounts(data / "accounts.yaml", clock=SystemClock())


@dataclass(frozen=True)
class _Hub:
    application: Application
    collector: Collector
    metrics: Metrics


@contextlib.asynccontextmanager
async def _opened(settings: HubSettings, clock: Clock) -> AsyncIterator[_Hub]:
    """Open the folder's database and store, and put the registry together."""
    file = settings.data / "hub.db"
    store = await _store(settings)
    await migrated(f"sqlite+aiosqlite:///{file}")
    database = SqlDatabase(open_blocking_database(f"sqlite:///{file}"))
    try:
        metadata = SqlMetadata(database)
        accounts = accounts_of(settings.data)
        catalog = SqlCatalog(database)
        registry = Registry(store, metadata, catalog, accounts, clock=clock, limits=settings.limits)
        tokens = Tokens(_token_key(settings.data), service="d2hub", clock=clock, life=_TOKEN_SECONDS)
        door = Doorkeeper(tokens, accounts, accounts, url=settings.url)
        collector = Collector(registry, SqlKeeping(database), store, clock=clock)
        metrics = Metrics()

        async def trouble() -> str:
            try:
                async with asyncio.timeout(5):
                    await database.read(lambda connection: connection.execute(_PROBE).all())
            except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, the registry is not ready
                return f"the database does not answer: {error}"
            return "" if os.access(settings.data / "uploads", os.W_OK) else "the store cannot be written"

        api = ApiHttp(registry, collector, door, accounts, clock=clock)
        application = Application(RegistryHttp(registry, door, accounts), api, door, metrics, trouble)
        yield _Hub(application, collector, metrics)
    finally:
        store.close()
        database.close()


async def _store(settings: HubSettings) -> FileBlobs | ObjectBlobs:
    """Open the store, and see that it is the one that the database speaks of."""
    mark = settings.data / "store.id"
    if settings.objects is None:
        if mark.exists():
            raise ConflictError(f"the content of {settings.data} is in an object store", hint="name it with --store")
        return FileBlobs(settings.data)
    if not mark.exists():
        if (settings.data / "hub.db").exists():
            raise ConflictError(
                f"the content of {settings.data} is in its files", hint="name another folder, or leave out --store"
            )
        write_atomically(mark, secrets.token_hex(16), mode=_PRIVATE)
    store = ObjectBlobs(settings.data, settings.objects, redirects=not settings.proxy_content)
    try:
        await store.claim(mark.read_text())
    except BaseException:
        store.close()
        raise
    return store


async def _serve(hub: _Hub, listening: Listening, settings: HubSettings) -> None:
    server = GranianServer(hub.application.answer, listening, received=hub.metrics.received)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    serving = asyncio.ensure_future(server.serve())
    collecting = asyncio.ensure_future(hub.collector.run(settings.collect_every))
    waiting = asyncio.ensure_future(told.wait())
    scheme = "http" if settings.plain_http else "https"
    _log.info("serving", url=settings.url or f"{scheme}://{settings.address}:{settings.port}", data=str(settings.data))
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            raise UnavailableError("the server ended by itself", hint="its log has more")
        hub.application.draining = True
        _log.info("draining")
        server.stop()
        done, _ = await asyncio.wait({serving}, timeout=settings.drain_seconds)
        _log.info("ended" if done else "ended before every request was answered")
    finally:
        for task in (serving, collecting, waiting):
            task.cancel()
        await asyncio.gather(serving, collecting, waiting, return_exceptions=True)


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the folder: what a process remembers of it is true only if no other changes it."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"another registry serves {data}", hint="end that one first, or name another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _check_port(settings: HubSettings) -> None:
    """Say at once that a port is taken: the server would say so in its own way."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.address, settings.port))
        except OSError as error:
            raise ConflictError(
                f"{settings.address}:{settings.port} cannot be served on: {error.strerror}",
                hint="name another with --address and --port",
            ) from error


def _token_key(data: Path) -> bytes:
    path = data / "token.key"
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32), mode=_PRIVATE)
    return path.read_bytes()


def _certificate(settings: HubSettings, clock: Clock) -> tuple[Path, Path]:
    """Return certificate and key, made anew if they are due or for other names. The authority is made once."""
    folder = settings.data / "tls"
    folder.mkdir(mode=0o700, exist_ok=True)
    authority = _kept(folder / "ca.crt", folder / "ca.key")
    now = clock.now()
    if authority is None:
        authority = issue_authority("D2Hub authority", now=now)
        # The key first: a certificate without its key would be taken for whole.
        write_atomically(folder / "ca.key", authority.key, mode=_PRIVATE)
        write_atomically(folder / "ca.crt", authority.certificate)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    profile = _profile(settings)
    leaf = _kept(certificate, key)
    if leaf is None or leaf.needs_renewal(now) or not _is_for(leaf, profile) or not _is_of(leaf, authority):
        leaf = issue_leaf(authority, profile, now=now, life=_LEAF_LIFE)
        # In between a crash leaves a pair that does not fit, so the old certificate goes first.
        certificate.unlink(missing_ok=True)
        write_atomically(key, leaf.key, mode=_PRIVATE)
        write_atomically(certificate, leaf.certificate)
        _log.info("certificate made", expires=leaf.expires().isoformat(), authority=str(folder / "ca.crt"))
    return certificate, key


def _kept(certificate: Path, key: Path) -> KeyPair | None:
    if not certificate.exists() or not key.exists():
        return None
    return KeyPair(certificate.read_bytes(), key.read_bytes())


def _profile(settings: HubSettings) -> LeafProfile:
    names, addresses = {"localhost", socket.gethostname().lower()}, {"127.0.0.1", "::1"}
    for host in (settings.address, *settings.hosts):
        try:
            addresses.add(str(ipaddress.ip_address(host)))
        except ValueError:
            names.add(host.lower())
    addresses -= {"0.0.0.0", "::"}  # noqa: S104 - everything is no address of anything
    return LeafProfile("d2hub", dns_names=tuple(sorted(names)), addresses=tuple(sorted(addresses)), server=True)


def _is_for(leaf: KeyPair, profile: LeafProfile) -> bool:
    said = x509.load_pem_x509_certificate(leaf.certificate)
    names = said.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName)) == set(profile.dns_names) and {
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    } == set(profile.addresses)


def _is_of(leaf: KeyPair, authority: KeyPair) -> bool:
    """Say whether clients that trust the authority trust the certificate; not after somebody made a new authority."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    try:
        x509.load_pem_x509_certificate(leaf.certificate).verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
