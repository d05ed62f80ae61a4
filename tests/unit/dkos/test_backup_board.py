"""Catalogues of backups where the API finds them: what was taken away with its project does not come back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from haneul.dkos.adapters.backup_memory import MemoryBackups
from haneul.dkos.adapters.kube_backups import KubeBackups
from haneul.dkos.backup.archiver import Schedule
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.ports import EtcdSource
from haneul.dkos.backup.record import NAMESPACE, Access, Record, Standing, record_name, secret_of
from haneul.dkos.backup.replaying import Replayer
from haneul.dkos.backup.worker import BackupWorker
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, SECRETS
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.waiting import wait_for

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RECORD = Record("uid", "shop", "web", Standing.FOLLOWED, bytes(32))
CATALOGUE = Catalogue(uid="uid", project="shop", name="web", revision=7)


@pytest.fixture
async def kube() -> MemoryKubeClient:
    client = MemoryKubeClient(clock=VirtualClock(NOW))
    await client.apply(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    await client.apply(SECRETS, secret_of(RECORD))
    return client


async def end(kube: MemoryKubeClient) -> Record:
    """Delete the cluster: what the operator writes down of it then."""
    ended = replace(RECORD, standing=Standing.DELETED, deleted=NOW)
    await kube.apply(SECRETS, secret_of(ended))
    return ended


async def test_a_catalogue_is_shown_and_shown_anew(kube: MemoryKubeClient) -> None:
    board = KubeBackups(kube)
    await board.publish(CATALOGUE)
    later = CATALOGUE.model_copy(update={"revision": 9})
    await board.publish(later)
    assert await board.of("uid") == later
    assert await board.of_project("shop") == [later]
    # Whoever took it away, the cluster is there.
    await kube.delete(CONFIG_MAPS, record_name("uid"), NAMESPACE)
    await board.publish(later)
    assert await board.of("uid") == later


async def test_what_was_withdrawn_with_its_project_is_not_shown_again(kube: MemoryKubeClient) -> None:
    board = KubeBackups(kube)
    await board.publish(CATALOGUE)
    await end(kube)
    await board.publish(CATALOGUE)
    assert await board.of_project("shop") == [CATALOGUE]
    await board.withdraw("shop")
    # Told by the cluster's archiver a moment before it ended.
    await board.publish(CATALOGUE)
    assert await board.of("uid") is None
    await kube.delete(SECRETS, record_name("uid"), NAMESPACE)
    await board.publish(CATALOGUE)
    assert await board.of_project("shop") == []


class Hasty(KubeBackups):
    """A board whose project is deleted right after its catalogue was read."""

    async def of(self, uid: str) -> Catalogue | None:
        found = await super().of(uid)
        if found is not None:
            await self.withdraw(found.project)
        return found


async def test_a_project_that_is_deleted_while_its_cluster_s_end_is_written_down_leaves_nothing(
    kube: MemoryKubeClient, tmp_path: Path
) -> None:
    board, store = Hasty(kube), MemoryBackups()

    def connect(_: Access) -> EtcdSource:
        raise AssertionError("a deleted cluster has no etcd")

    await board.publish(CATALOGUE)
    replayer = Replayer(tmp_path / "etcd-replay", tmp_path)
    worker = BackupWorker(
        store, board, connect=connect, replayer=replayer, schedule=Schedule(), clock=VirtualClock(NOW)
    )
    await worker.know(await end(kube))

    async def gone() -> bool:
        return await kube.get(SECRETS, record_name("uid"), NAMESPACE) is None

    seen: list[str] = []

    async def watch() -> None:
        async for event in kube.watch(CONFIG_MAPS, NAMESPACE):
            seen.append(event.type)

    watching = asyncio.create_task(watch())
    try:
        await wait_for(gone, what="the record to end", timeout=60, clock=SystemClock())
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await worker.close()
    assert seen.count("ADDED") <= 1, "shown again"
    assert await board.of_project("shop") == []
