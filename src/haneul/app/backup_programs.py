"""The programs of backups, composed: the worker that follows all clusters, and the steps of a restore."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog

from haneul.app.alive import alive, until_readable
from haneul.dkos.adapters.backup_files import FileBackups
from haneul.dkos.adapters.etcd_gateway import EtcdGateway
from haneul.dkos.adapters.kube_backups import KubeBackups
from haneul.dkos.backup import placing
from haneul.dkos.backup.archiver import Schedule
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.record import Access, Record, record_from
from haneul.dkos.backup.replaying import Alteration, Member, Replayer
from haneul.dkos.backup.timeline import Wish
from haneul.dkos.backup.worker import BackupWorker
from haneul.dkos.etcd_slots import member_name
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import HaneulError, HostNotReadyError
from haneul.kernel.kube import KubeAccess
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.tls import client_context

_log = structlog.get_logger(__name__)

#: What a restored state shall not have: credentials that nodes asked with, and requests that wait for an answer.
STALE: Final = ("/registry/secrets/kube-system/bootstrap-token-", "/registry/certificatesigningrequests/")
#: What, in a new cluster, is of the nodes and masters of the old one.
FOREIGN: Final = (
    *STALE,
    "/registry/minions/",
    "/registry/csinodes/",
    "/registry/masterleases/",
    "/registry/leases/kube-node-lease/",
    "/registry/leases/kube-system/",
    "/registry/cilium.io/ciliumnodes/",
    "/registry/cilium.io/ciliumendpoints/",
)


@dataclass(frozen=True)
class WorkerFolders:
    """Where the worker keeps backups, and where it may put a cluster's data for a moment."""

    backups: Path = Path("/backups")
    scratch: Path = Path("/scratch")


def connect(access: Access) -> EtcdGateway:
    """Return an etcd, reached with the worker's certificate for it."""
    return EtcdGateway(access.urls, client_context(access.authority, access.certificate, access.key))


async def run_worker(
    access: KubeAccess, folders: WorkerFolders, *, replay: Path, schedule: Schedule, port: int
) -> None:
    """Back up all clusters until cancelled; ``port`` is open while it works."""
    clock = SystemClock()
    store = FileBackups(folders.backups)
    replayer = Replayer(replay, folders.scratch)
    await store.tidy()
    await asyncio.to_thread(replayer.tidy)
    async with HttpKubeClient(access, user_agent="haneul-backup") as client:
        board = KubeBackups(client)
        await until_readable(board.ready, what="the records of backups", clock=clock)
        worker = BackupWorker(
            store,
            board,
            connect=connect,
            replayer=replayer,
            schedule=schedule,
            clock=clock,
        )
        async with alive(port):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(worker.run_publisher())
                    group.create_task(board.run(worker.know, worker.forget))
            finally:
                await worker.close()


@dataclass(frozen=True)
class RestoreStep:
    """What one step of a restore is told: see :class:`haneul.dkos.model.RestoreRequest`."""

    number: int
    peer_url: str
    token: str
    revision: int = 0
    least: int = 0
    moment: datetime | None = None
    as_new: bool = False


@dataclass(frozen=True)
class RestoreFolders:
    """The member's folder, the backups, scratch, and the files of two records: the source's and the cluster's own."""

    data: Path = Path("/data")
    backups: Path = Path("/backups")
    scratch: Path = Path("/scratch")
    source: Path = Path("/etc/haneul/source")
    own: Path = Path("/etc/haneul/own")


async def run_restore(
    step: str, wanted: RestoreStep, folders: RestoreFolders, *, replay: Path, clock: Clock
) -> dict[str, Any]:
    """Do one step and return what is to be told of it; what the backup cannot give is told as ``refused``."""
    try:
        if step == "prepare":
            return await _prepare(wanted, folders, replay=replay, clock=clock)
        if step == "place":
            await asyncio.to_thread(placing.place, folders.data, wanted.number)
        else:
            await asyncio.to_thread(placing.clear, folders.data)
    except HaneulError as error:
        _log.error("the restore was refused", step=step, code=error.code, detail=error.detail)
        return {"refused": error.detail, "code": error.code}
    return {"done": step}


async def _prepare(wanted: RestoreStep, folders: RestoreFolders, *, replay: Path, clock: Clock) -> dict[str, Any]:
    began = clock.monotonic()
    source, own = _record(folders.source), _record(folders.own)
    replayer = Replayer(replay, folders.scratch)
    made = await placing.prepare(
        replayer,
        SealedObjects(FileBackups(folders.backups), source.uid, source.key),
        Wish(wanted.revision, wanted.moment, wanted.least),
        folder=folders.data,
        number=wanted.number,
        member=Member(member_name(0), wanted.peer_url, wanted.token),
        alteration=Alteration(FOREIGN if wanted.as_new else STALE, next(iter(own.sealing_keys.items()), None)),
        version=str(own.spec.get("version", "")),
    )
    said: dict[str, Any] = {"done": "prepare", "seconds": round(clock.monotonic() - began, 2)}
    # It was made by a Job that ended before it could say so; how it is, its etcd will say.
    return said if made is None else {**said, "revision": made.revision, "keys": made.keys}


def _record(folder: Path) -> Record:
    record = record_from({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    if record is None:
        raise HostNotReadyError(f"{folder} holds no record of a cluster's backup")
    return record


def told(said: dict[str, Any]) -> str:
    """Return what a step tells as the message with which its container ends."""
    return json.dumps(said)[:4000]
