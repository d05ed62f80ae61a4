"""``haneul logs`` put together: which cluster's trail, where it answers, and where what was kept lies."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from haneul.app.platform_trail import place_in, settings_of, uid_of
from haneul.app.trail import TrailPlace, read_exclusions, store_of
from haneul.ingress.settings import read_settings
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ForbiddenError, InvalidInputError
from haneul.management.ingress_host import NGINX, IngressFiles
from haneul.management.settings import ManagementSettings
from haneul.trail.adapters.nginx_firewall import NginxFirewall
from haneul.trail.adapters.sql_catalogue import SqlCatalogue
from haneul.trail.asking import ControllerTrail
from haneul.trail.model import Record, UnreadableError, record_of_line
from haneul.trail.ports import Question
from haneul.trail.replaying import Replay, replay
from haneul.trail.searching import search
from haneul.trail.settings import TrailSettings, read_trail_settings

#: Where files of clusters are looked for.
CONFIGURATIONS = Path("/etc/haneul/ingress")
#: Of replays for the platform's clusters: Debian's modules of nginx, and whom workers run as.
_MODULES, _REPLAYING = "/usr/lib/nginx/modules", "www-data"


class ClusterLogs:
    """One cluster's trail, on the machine of its nginx; ``key`` is what the store knows the cluster by."""

    def __init__(self, key: str, place: TrailPlace, trail: TrailSettings, firewall: NginxFirewall) -> None:
        self._key = key
        self._place = place
        self._trail = trail
        self._firewall = firewall
        self.controller = ControllerTrail(place.socket)

    async def search(self, question: Question) -> list[Record]:
        """Return what was kept and answers. Raises TrailStoreAwayError."""
        catalogue = SqlCatalogue(self._place.catalogue)
        return await search(store_of(self._trail), catalogue, replace(question, cluster=self._key))

    async def save(self, file: Path, since: int) -> int:
        """Write the ring's records into a file, compressed if its name ends with ``.gz``; return how many."""
        count = 0
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as raw, gzip.open(raw, "wb") if file.suffix == ".gz" else raw as out:
            async for line in self.controller.lines(since):
                out.write(line)
                count += 1
        return count

    async def replay(self, records: Sequence[Record], proposed: Path) -> Replay:
        """Send records once more, with the site's rules and with proposed ones besides. Raises RulesRefusedError."""
        before = read_exclusions(self._trail.exclusions)
        return await replay(self._firewall, records, before, f"{before.rstrip()}\n{read_exclusions(proposed)}")


def logs_of(cluster: str, config: Path | None) -> ClusterLogs:
    """Return a cluster's trail; one of the platform's is named as ``PROJECT/CLUSTER``.

    Raises InvalidInputError, NotFoundError.
    """
    if "/" in cluster and config is None:
        return platform_logs(IngressFiles(ManagementSettings.state), cluster)
    settings = read_settings(config or CONFIGURATIONS / f"{cluster}.yaml")
    if settings.cluster != cluster:
        raise InvalidInputError(f"the file is of the cluster {settings.cluster!r}", hint="--config names another")
    if settings.audit is None:
        raise InvalidInputError(f"{cluster} has no audit trail", hint="'audit' in its file names what it keeps")
    firewall = NginxFirewall(
        program=str(settings.program),
        modules=str(settings.modules),
        user=settings.user if os.geteuid() == 0 else "",
        clock=SystemClock(),
    )
    return ClusterLogs(cluster, TrailPlace.beside(settings.folder), read_trail_settings(settings.audit), firewall)


def platform_logs(files: IngressFiles, owner: str) -> ClusterLogs:
    """Return the trail of one of the platform's clusters, which may be gone from the platform's own memory.

    Raises ForbiddenError, NotFoundError.
    """
    if os.geteuid() != 0:
        raise ForbiddenError("only root sees the platform's audit trails", hint="use sudo")
    uid = uid_of(files, owner)
    firewall = NginxFirewall(program=str(NGINX), modules=_MODULES, user=_REPLAYING, clock=SystemClock())
    return ClusterLogs(uid, place_in(files, uid), settings_of(files, uid), firewall)


def read_records(file: Path) -> list[Record]:
    """Return the records in a file of lines, also a compressed one. Raises InvalidInputError."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            return [record_of_line(line) for line in lines]
    except (OSError, EOFError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}") from error
    except UnreadableError as error:
        raise InvalidInputError(f"{file} has a line that is no record", hint="'haneul logs' writes some") from error


def moment_before(span: timedelta) -> int:
    """Return when so long ago was, in milliseconds since 1970."""
    return max(0, round((datetime.now(UTC) - span).timestamp() * 1000))
