"""The audit trail put together with ingress: where files are, whose records are whose, what is kept of them.

```
FOLDER/spool/                 ModSecurity writes here (haneul.trail.adapters.spool)
FOLDER/private/audit-….conf   what ModSecurity is told
FOLDER/private/audit.sock     where an operator asks
FOLDER/audit/catalogue.db     where records lie in the store; it can be made anew
```
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from haneul.ingress.model import Routes
from haneul.ingress.watching import watched
from haneul.kernel.buckets import BucketSettings, open_bucket, read_bucket_settings
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import write_atomically
from haneul.trail.adapters.memory_folder import mount_memory, unmount_memory
from haneul.trail.adapters.object_store import StoredObjects, objects_in_bucket, objects_in_folder
from haneul.trail.adapters.spool import Spool
from haneul.trail.adapters.sql_catalogue import SqlCatalogue
from haneul.trail.budget import Budget
from haneul.trail.http import serving
from haneul.trail.keeping import Keeper
from haneul.trail.policy import Policy, parse_policy
from haneul.trail.recorder import Recorder
from haneul.trail.ring import Ring
from haneul.trail.rules import RuleSite, render_rules
from haneul.trail.settings import TrailSettings

_log = structlog.get_logger(__name__)
_LAST_SECONDS: Final = 10.0


@dataclass(frozen=True)
class TrailPlace:
    """Where one cluster's trail has its files on this machine."""

    spool: Path
    socket: Path
    catalogue: Path

    @classmethod
    def beside(cls, folder: Path) -> TrailPlace:
        """Return the place in the folder of the cluster's nginx."""
        whole = folder.absolute()
        return cls(whole / "spool", whole / "private" / "audit.sock", whole / "audit" / "catalogue.db")


class Policies:
    """Which Ingress keeps what, as the routes say that are served."""

    def __init__(self, default: Policy) -> None:
        self._default = default
        self._policies: dict[str, Policy] = {}
        #: Names of Ingress objects by their short ones. Requests of routes that are gone may still end.
        self.names: dict[str, str] = {}

    def heed(self, routes: Routes) -> None:
        """Take note of what routes say."""
        for short, one in watched(routes).items():
            self.names[short] = one.name
            self._policies[one.name] = parse_policy(one.policy) if one.policy else self._default

    def of(self, ingress: str) -> Policy:
        """Return what is kept of an Ingress's requests."""
        return self._policies.get(ingress, self._default)


def write_rules(settings: TrailSettings, folder: Path) -> Path:
    """Write what ModSecurity is told. Raises InvalidInputError."""
    site = RuleSite(spool=str(TrailPlace.beside(folder).spool), temporary=str(folder.absolute() / "temporary"))
    try:
        text = render_rules(site, read_exclusions(settings.exclusions))
    except ValueError as error:
        raise InvalidInputError(str(error), hint="use a folder without blanks") from error
    file = folder.absolute() / rules_file(text)
    write_atomically(file, text, mode=0o600)
    return file


def rules_file(text: str) -> str:
    """Return what the file of these rules is called in the folder of an nginx.

    nginx reads its configuration anew where it names another file.
    """
    return f"private/audit-{hashlib.sha256(text.encode()).hexdigest()[:16]}.conf"


def read_exclusions(file: Path | None) -> str:
    """Return a site's own rules. Raises InvalidInputError."""
    if file is None:
        return ""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", hint="name a file with rules") from error


def store_of(settings: TrailSettings) -> StoredObjects:
    """Return where records are kept. Raises InvalidInputError."""
    if settings.store is not None:
        return objects_in_folder(settings.store)
    if settings.bucket is None:
        raise InvalidInputError("neither 'store' nor 'bucket' is named")
    bucket = read_bucket_settings(settings.bucket, BucketSettings)
    try:
        return objects_in_bucket(open_bucket(bucket), bucket.bucket)
    except OSError as error:
        raise InvalidInputError(f"{bucket.authority} cannot be read: {error.strerror}") from error


def catalogue_of(folder: Path) -> SqlCatalogue:
    """Return the catalogue beside a cluster's nginx."""
    return SqlCatalogue(TrailPlace.beside(folder).catalogue)


@contextlib.asynccontextmanager
async def recording(
    settings: TrailSettings,
    place: TrailPlace,
    policies: Policies,
    *,
    cluster: str,
    user: str | int,
    clock: Clock,
    look: float = 0.2,
) -> AsyncIterator[Recorder]:
    """Record while the block runs; what was gathered is written at its end, if the store answers soon.

    ``look`` is in seconds: between two looks at whether something was written.
    """
    spool = Spool(place.spool, user=user, room=settings.spool_bytes // 2, clock=clock)
    await mount_memory(place.spool, settings.spool_bytes)
    spool.prepare()
    place.catalogue.parent.mkdir(mode=0o700, exist_ok=True)
    keeper = Keeper(cluster, store_of(settings), SqlCatalogue(place.catalogue), clock)
    recorder = Recorder(
        spool,
        Ring(settings.ring_bytes),
        keeper,
        Budget(settings.limits, clock.now()),
        settings.mask.masks,
        policy_of=policies.of,
        ingresses=policies.names,
        clock=clock,
        flush_seconds=settings.flush_seconds,
        keep_days=settings.keep_days,
        look_seconds=look,
    )
    async with serving(recorder, place.socket):
        working = asyncio.ensure_future(recorder.run())
        working.add_done_callback(_tell)
        try:
            yield recorder
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            try:
                await asyncio.wait_for(recorder.close(), _LAST_SECONDS)
            except Exception as error:
                # What broke it off may do so again, and is no reason to fail for whoever only ends it.
                _log.warning("the last records were not written", detail=str(error) or type(error).__name__)


async def end_recording(place: TrailPlace) -> None:
    """Take away the file system in memory; an nginx that runs writes no records from then on."""
    await unmount_memory(place.spool)


def _tell(working: asyncio.Future[None]) -> None:
    """Say so if recording broke off: nginx serves on, and soon writes no more records."""
    if not working.cancelled() and (error := working.exception()):
        _log.error("the audit trail broke off", exc_info=error)
