"""A state goes on with the version of Kubernetes that wrote it, or with the next minor; else it is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from haneul.dkos.adapters.backup_memory import MemoryBackups
from haneul.dkos.backup.archiver import keep_facts
from haneul.dkos.backup.names import Segment, Snapshot, milliseconds
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.timeline import Stretch
from haneul.dkos.backup.writers import check_reader
from haneul.kernel.errors import ConflictError

BEGIN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
GENERATION = f"{milliseconds(BEGIN):013d}-00000000000000aa"


def facts(version: str) -> dict[str, Any]:
    return {"uid": "uid", "project": "shop", "name": "web", "spec": {"version": version}, "keys": {}}


def state(taken: int, *begins: int) -> Stretch:
    """Return the state of a snapshot and of segments, at hours after the begin."""
    moments = [milliseconds(BEGIN + timedelta(hours=hour)) for hour in (taken, *begins)]
    segments = [Segment("uid", GENERATION, n, n, begin, begin + 1) for n, begin in enumerate(moments[1:], 2)]
    return Stretch(Snapshot("uid", GENERATION, 1, moments[0]), tuple(segments))


@pytest.fixture
async def kept() -> dict[str, Any]:
    """What is known of a cluster that came from 1.35 to 1.36 after ten hours, and to 1.37 after twenty."""
    objects = SealedObjects(MemoryBackups(), "uid", bytes(range(32)))
    for hour, version in ((0, "1.35.9"), (5, "1.35.9"), (10, "1.36.5"), (11, "1.36.5"), (20, "1.37.2")):
        await keep_facts(objects, facts(version), BEGIN + timedelta(hours=hour))
    return await objects.facts()


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        (state(1), "1.35.9"),
        (state(1), "1.36.5"),
        (state(9, 12), "1.36.5"),
        (state(9, 12), "1.37.2"),
        (state(9, 12, 21), "1.37.2"),
        (state(-3), "1.36.5"),
    ],
)
def test_the_same_and_the_next_minor_go_on(kept: dict[str, Any], wanted: Stretch, version: str) -> None:
    check_reader(kept, wanted, version)


@pytest.mark.parametrize(
    ("wanted", "version", "words"),
    [
        (state(9), "1.37.2", "Kubernetes 1.35.9 wrote that state, and the cluster has 1.37.2 now: no minor"),
        (state(-3), "1.37.2", "Kubernetes 1.35.9 wrote"),
        (state(9, 21), "1.36.5", "Kubernetes 1.37.2 wrote that state, and the cluster has 1.36.5 now: masters cannot"),
    ],
)
def test_what_skips_a_minor_or_goes_back_is_refused(
    kept: dict[str, Any], wanted: Stretch, version: str, words: str
) -> None:
    with pytest.raises(ConflictError, match=words):
        check_reader(kept, wanted, version)


async def test_facts_of_before_versions_were_kept_name_the_one_that_there_was() -> None:
    objects = SealedObjects(MemoryBackups(), "uid", bytes(range(32)))
    await objects.put_document("uid/facts", facts("1.35.9"))
    check_reader(await objects.facts(), state(1), "1.36.5")
    await keep_facts(objects, facts("1.37.2"), BEGIN + timedelta(hours=10))
    with pytest.raises(ConflictError, match=r"1\.35\.9 wrote"):
        check_reader(await objects.facts(), state(9), "1.37.2")
    check_reader(await objects.facts(), state(11), "1.37.2")
