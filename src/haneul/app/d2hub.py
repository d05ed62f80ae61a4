"""D2Hub put together: one registry, alone, in one folder; or several processes on one folder and one PostgreSQL.

```
DATA/lock            held while a registry serves this folder
DATA/setup.lock      held while one starts
DATA/accounts.yaml   users and projects' rules
DATA/workloads.yaml  whose tokens of workloads are taken, if any are
DATA/token.key       signs the registry's own tokens
DATA/tls/            ca.crt, ca.key: its authority; tls.crt, tls.key: its certificate, or one for each process's names
DATA/clusters/       the platform's clusters whose pods are let in, and
DATA/reporter.json   who tells what they run, if the hub is the platform's
DATA/hub.db          which repository has what; or
DATA/hub.id          the mark of the database that knows it
DATA/blobs, uploads  content
DATA/store.id        whose bucket the content is in, if it is in an object store; then there is no DATA/blobs
```
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import select

from haneul.app.d2hub_content import opened_store
from haneul.app.d2hub_database import database_url, embedded_database, shared_database
from haneul.app.d2hub_folder import being_set_up, certificate_for, check_folder, in_use, make_folder, token_key
from haneul.d2hub.adapters.cluster_trusts import ClusterTrusts
from haneul.d2hub.adapters.file_accounts import FileAccounts
from haneul.d2hub.adapters.file_trusts import FileTrusts
from haneul.d2hub.adapters.granian_server import GranianServer, Listening
from haneul.d2hub.adapters.http_issuers import HttpIssuers
from haneul.d2hub.adapters.http_platform import HttpPlatform, parse_platform_url
from haneul.d2hub.adapters.http_sender import HttpSender
from haneul.d2hub.adapters.http_upstream import HttpUpstream
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.d2hub.adapters.sql_audit import SqlAudit
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_inventory import SqlInventory
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.adapters.sql_meter import SqlMeter
from haneul.d2hub.adapters.sql_mirrors import SqlMirrorRecords
from haneul.d2hub.adapters.sql_outbox import SqlOutbox
from haneul.d2hub.application import Application
from haneul.d2hub.collecting import Collector
from haneul.d2hub.deliveries import RetryPolicy
from haneul.d2hub.delivering import Deliverer, DeliverySettings
from haneul.d2hub.http import RegistryHttp
from haneul.d2hub.http_api import ApiHttp
from haneul.d2hub.http_audit import Witness
from haneul.d2hub.http_auth import Doorkeeper
from haneul.d2hub.http_inventory import InventoryHttp
from haneul.d2hub.http_records import RecordsHttp
from haneul.d2hub.issuer_keys import IssuerKeys
from haneul.d2hub.journal import Journal
from haneul.d2hub.metrics import Metrics, MirrorCounts
from haneul.d2hub.mirror_blobs import BlobFetches
from haneul.d2hub.mirroring import Mirroring
from haneul.d2hub.mirrors import Mirrors
from haneul.d2hub.platform_accounts import PlatformAccounts
from haneul.d2hub.ports import Accounts
from haneul.d2hub.quotas import Quotas
from haneul.d2hub.registry import Limits, Registry
from haneul.d2hub.sealing import Seal
from haneul.d2hub.tables import repositories
from haneul.d2hub.tokens import Tokens
from haneul.d2hub.workloads import Trusts, Workloads
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.ending import told_to_end
from haneul.kernel.errors import ConflictError, InvalidInputError, UnavailableError
from haneul.kernel.hosts import is_loopback

_log = structlog.get_logger(__name__)
#: Every client of a registry remembers its own tokens, and asks again when they end.
_TOKEN_SECONDS: Final = 300
#: How much longer than an attempt its hold on a delivery lasts where several machines' clocks say when it ends. They
#: have to agree within a minute.
_MARGIN_SECONDS: Final = 65.0
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
    #: Has the address of a PostgreSQL database that several processes share; without one the folder has its own.
    database_file: Path | None = None
    limits: Limits = field(default_factory=Limits)
    collect_every: timedelta = timedelta(hours=1)
    drain_seconds: float = 30.0
    #: How long audit records are kept.
    audit_keep: timedelta = timedelta(days=90)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    #: Hosts of receivers that may be on this machine or its network's own addresses.
    local_receivers: tuple[str, ...] = ()
    #: Where content lies, if not in files of the folder.
    objects: ObjectSettings | None = None
    #: Send the content of an object store to clients that cannot reach it, instead of redirecting them there.
    proxy_content: bool = False
    #: The platform whose people and robots sign in; without one the folder has accounts of its own.
    platform: str = ""
    #: Certificate authority of the platform.
    platform_authority: Path | None = None
    #: Certificate and key that somebody else makes and renews, in place of one of the folder's own authority.
    certificate: tuple[Path, Path] | None = None

    def __post_init__(self) -> None:
        if self.plain_http and not is_loopback(self.address):
            raise InvalidInputError(
                f"{self.address} can be reached from elsewhere, where plain HTTP would show every secret",
                hint="leave out --plain-http, or serve on 127.0.0.1",
            )
        if self.platform:
            parse_platform_url(self.platform)
        elif self.platform_authority is not None:
            raise InvalidInputError("--platform-ca is for a platform", hint="name it with --platform")
        if self.proxy_content and self.objects is None:
            raise InvalidInputError("--proxy-content is for content in an object store", hint="name it with --store")
        if self.database_file is not None and self.objects is not None:
            raise InvalidInputError(
                "registries that share a database share the content of a folder, and no object store",
                hint="leave out --store, or let one registry have its database in its folder",
            )

    @property
    def reached_at(self) -> str:
        """Return where clients reach the registry: by the first name that is told, or else by its address."""
        scheme = "http" if self.plain_http else "https"
        host = self.hosts[0] if self.hosts else self.address
        return self.url or f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


async def serve_hub(settings: HubSettings, *, clock: Clock | None = None) -> None:
    """Serve a registry until SIGTERM or SIGINT; requests under way are answered first."""
    clock = clock or SystemClock()
    if settings.database_file is not None:
        # Before anything is made: who mistypes it shall find nothing changed.
        database_url(settings.database_file)
    if make_folder(settings.data):
        _log.info("folder made", data=str(settings.data))
    accounts, trusts = accounts_of(settings.data, make=True), FileTrusts(settings.data / "workloads.yaml")
    accounts.check()
    trusts.check()
    with in_use(settings.data, shared=settings.database_file is not None):
        _check_port(settings)
        async with _opened(settings, accounts, trusts, clock) as hub:
            await _serve(hub, settings)


def accounts_of(data: Path, *, make: bool = False) -> FileAccounts:
    """Return the accounts of a registry's folder. Raises NotFoundError if it is none and shall not be made one."""
    if make:
        make_folder(data)
    else:
        check_folder(data)
    return FileAccounts(data / "accounts.yaml", clock=SystemClock())


@dataclass(frozen=True)
class _Hub:
    application: Application
    collector: Collector
    metrics: Metrics
    listening: Listening
    journal: Journal
    deliverer: Deliverer


@contextlib.asynccontextmanager
async def _opened(settings: HubSettings, rules: FileAccounts, trusts: FileTrusts, clock: Clock) -> AsyncIterator[_Hub]:
    """Open the folder's database and store, and put the registry together."""
    data, shared = settings.data, settings.database_file
    async with contextlib.AsyncExitStack() as closing:
        with being_set_up(data):
            listening = _listening(settings, clock)
            key = token_key(data)
            # The store first: whether the folder may have this one is seen by whether it has a database.
            store = await opened_store(data, settings.objects, redirects=not settings.proxy_content)
            closing.callback(store.close)
            database = await (shared_database(data, shared) if shared else embedded_database(data))
            closing.callback(database.close)
        accounts = await closing.enter_async_context(_accounts(settings, rules, key, clock))
        sender = HttpSender(timeout_seconds=settings.retry.timeout_seconds, local=settings.local_receivers)
        closing.callback(sender.close)
        metadata = SqlMetadata(database)
        catalog = SqlCatalog(database)
        quotas = Quotas(SqlMeter(database), rules, clock=clock)
        registry = Registry(
            store,
            metadata,
            catalog,
            rules,
            clock=clock,
            limits=settings.limits,
            alone=shared is None,
            quotas=quotas,
        )
        tokens = Tokens(key, service="d2hub", clock=clock, life=_TOKEN_SECONDS)
        everybody = ClusterTrusts(data / "clusters", data / "reporter.json", trusts)
        workloads = await closing.enter_async_context(_workloads(everybody, clock))
        door = Doorkeeper(tokens, accounts, rules, url=settings.url, workloads=workloads)
        collector = Collector(registry, SqlKeeping(database), store, clock=clock)
        metrics = Metrics()
        audit, outbox, chance = SqlAudit(database), SqlOutbox(database), random.SystemRandom()
        journal = Journal(audit, rules, keep=settings.audit_keep, clock=clock, chance=chance)
        retry = replace(settings.retry, margin_seconds=_MARGIN_SECONDS) if shared else settings.retry
        delivering = DeliverySettings(settings.reached_at, retry)
        deliverer = Deliverer(outbox, sender, rules, delivering, clock=clock, chance=chance)
        for source in (journal.lines, deliverer.lines, quotas.lines):
            metrics.also(source)
        seen, counts = SqlMirrorRecords(database, metadata), MirrorCounts()
        metrics.also(counts.lines)
        mirrors = Mirrors(rules, partial(HttpUpstream, clock=clock), clock=clock)
        fetches = BlobFetches(registry, store, counts=counts, clock=clock)
        mirroring = Mirroring(registry, mirrors, seen, fetches, counts=counts, clock=clock)

        async def trouble() -> str:
            try:
                async with asyncio.timeout(5):
                    await database.read(lambda connection: connection.execute(_PROBE).all())
            except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, the registry is not ready
                return f"the database does not answer: {error}"
            return "" if os.access(settings.data / "uploads", os.W_OK) else "the store cannot be written"

        records = RecordsHttp(audit, outbox, catalog, rules, door, clock=clock)
        inventory = InventoryHttp(SqlInventory(database), door, clock=clock)
        api = ApiHttp(registry, seen, collector, door, accounts, records, quotas, inventory, clock=clock)
        witness = Witness(journal, door)
        registry_http = RegistryHttp(registry, mirroring, door, accounts)
        application = Application(registry_http, api, door, metrics, trouble, witness)
        try:
            yield _Hub(application, collector, metrics, listening, journal, deliverer)
        finally:
            await mirroring.end()


@contextlib.asynccontextmanager
async def _accounts(settings: HubSettings, file: FileAccounts, key: bytes, clock: Clock) -> AsyncIterator[Accounts]:
    """Yield who may sign in: the platform's people and robots, or those of the folder's file."""
    if not settings.platform:
        yield file
        return
    if file.users():
        _log.warning("users of the accounts file do not count: the platform's do", platform=settings.platform)
    platform = HttpPlatform(settings.platform, authority=settings.platform_authority)
    accounts = PlatformAccounts(platform, file, Seal(key), clock=clock)
    try:
        yield accounts
    finally:
        await accounts.end()
        await platform.close()


@contextlib.asynccontextmanager
async def _workloads(trusts: Trusts, clock: Clock) -> AsyncIterator[Workloads]:
    """Yield what signs workloads in, by the issuers that the folder's files say are trusted."""
    keys = IssuerKeys(HttpIssuers(), clock=clock)
    try:
        yield Workloads(trusts, keys, clock=clock)
    finally:
        await keys.end()


async def _serve(hub: _Hub, settings: HubSettings) -> None:
    server = GranianServer(hub.application.answer, hub.listening, received=hub.metrics.received)
    told = told_to_end()
    serving = asyncio.ensure_future(server.serve())
    beside = [
        asyncio.ensure_future(work)
        for work in (hub.collector.run(settings.collect_every), hub.journal.run(), hub.deliverer.run())
    ]
    waiting = asyncio.ensure_future(told.wait())
    _log.info("serving", url=settings.reached_at, data=str(settings.data))
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
        for task in (serving, *beside, waiting):
            task.cancel()
        await asyncio.gather(serving, *beside, waiting, return_exceptions=True)
        await hub.journal.end()


def _listening(settings: HubSettings, clock: Clock) -> Listening:
    if settings.plain_http:
        return Listening(settings.address, settings.port)
    hosts, shared = (settings.address, *settings.hosts), settings.database_file is not None
    certificate = settings.certificate or certificate_for(settings.data, hosts, clock, shared=shared)
    return Listening(settings.address, settings.port, *certificate)


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
