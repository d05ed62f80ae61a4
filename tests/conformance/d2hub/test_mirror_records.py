"""What is promised of mirrored manifests and of the history of upstreams' tags."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from haneul.d2hub.adapters.sql_audit import SqlAudit
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.adapters.sql_mirrors import SqlMirrorRecords
from haneul.d2hub.adapters.sql_outbox import SqlOutbox
from haneul.d2hub.errors import ManifestBlobUnknownError
from haneul.d2hub.happenings import Happening, Origin
from haneul.d2hub.model import DeletionOrder
from haneul.d2hub.record_ports import Span
from tests.conformance.d2hub.test_metadata import HOUR, NOW, blob, change, collect, index

DAY = timedelta(days=1)


@pytest.fixture
def records(database: SqlDatabase, metadata: SqlMetadata) -> SqlMirrorRecords:
    return SqlMirrorRecords(database, metadata)


async def test_a_mirrored_manifest_is_kept_before_its_blobs(metadata: SqlMetadata, records: SqlMirrorRecords) -> None:
    mirrored = change("far/web", blob("config"), blob("layer"), tag="v1")
    await records.keep(mirrored, seen="")
    found = await metadata.manifest("far/web", "v1")
    assert found is not None
    assert found.content == mirrored.content
    assert await metadata.blob("far/web", blob("layer").digest) is None


async def test_what_is_pushed_still_needs_everything(metadata: SqlMetadata, records: SqlMirrorRecords) -> None:
    mirrored = change("far/web", blob("config"), blob("layer"))
    await records.keep(mirrored, seen="")
    with pytest.raises(ManifestBlobUnknownError):
        await metadata.put_manifest(mirrored)
    with pytest.raises(ManifestBlobUnknownError):
        await metadata.put_manifest(index("far/web", mirrored))
    for one in (blob("config"), blob("layer")):
        await metadata.link_blob("far/web", one, now=NOW)
    await metadata.put_manifest(mirrored)
    await metadata.put_manifest(index("far/web", mirrored))


async def test_a_mirrored_manifest_with_all_its_parts_is_like_any_other(
    metadata: SqlMetadata, records: SqlMirrorRecords
) -> None:
    mirrored = change("far/web", blob("config"))
    await metadata.link_blob("far/web", blob("config"), now=NOW)
    await records.keep(mirrored, seen="")
    await metadata.put_manifest(index("far/web", mirrored))


async def test_blobs_that_come_later_stay_as_long_as_the_manifest(
    metadata: SqlMetadata, records: SqlMirrorRecords, database: SqlDatabase
) -> None:
    keeping = SqlKeeping(database)
    mirrored = change("far/web", blob("config"), blob("layer"), tag="v1")
    await records.keep(mirrored, seen="")
    await metadata.link_blob("far/web", blob("layer"), now=NOW)
    assert await collect(keeping, at=NOW + DAY) == set()
    await metadata.delete(DeletionOrder("far/web", mirrored.digest, NOW + DAY, "owner"))
    assert await collect(keeping, at=NOW + DAY + 3 * HOUR) == {blob("layer").key}
    assert await metadata.manifest("far/web", mirrored.digest) is None
    # What the upstream's tag named is known on, though nothing of the repository is left.
    assert len(await records.history("far/web", "v1", limit=10)) == 1


async def test_receivers_are_told_what_came_from_an_upstream(records: SqlMirrorRecords, database: SqlDatabase) -> None:
    origin = Origin("", ("https://a/",), Happening.MIRROR)
    mirrored = replace(change("far/web", blob("config"), tag="v1"), origin=origin)
    await records.keep(mirrored, seen="")
    [delivery] = await SqlOutbox(database).listed("far", state=None, limit=9)
    event = json.loads(delivery.event)
    assert (event["type"], event["subject"]) == ("dev.haneul.d2hub.mirror", "far/web:v1")
    assert event["data"]["mediaType"] == mirrored.manifest.media_type
    [entry] = (await SqlAudit(database).entries("far", Span(), limit=9))[0]
    assert (entry.happening, entry.digest) == (Happening.MIRROR, mirrored.digest)


async def test_a_tag_that_moves(metadata: SqlMetadata, records: SqlMirrorRecords, database: SqlDatabase) -> None:
    older, newer = change("far/web", blob("older"), tag="v1"), change("far/web", blob("newer"), tag="v1")
    assert not await records.keep(older, seen="")
    assert not await records.keep(replace(older, now=NOW + HOUR), seen=older.digest)
    assert await records.keep(replace(newer, now=NOW + 2 * HOUR), seen=older.digest)
    assert await records.note("far/web", "v1", None, seen=newer.digest, now=NOW + 3 * HOUR)
    assert not await records.note("far/web", "v1", None, seen=newer.digest, now=NOW + 4 * HOUR)
    # It came back as it was, which is no move; then it moved again.
    assert not await records.keep(replace(newer, now=NOW + 5 * HOUR), seen=newer.digest)
    assert await records.keep(replace(older, now=NOW + 6 * HOUR), seen=newer.digest)
    assert not await records.keep(change("far/web", blob("older"), tag="v2"), seen="")
    found = await records.history("far/web", "v1", limit=10)
    assert [(entry.digest, (entry.since - NOW) / HOUR) for entry in found] == [
        (older.digest, 6),
        (newer.digest, 5),
        (None, 3),
        (newer.digest, 2),
        (older.digest, 0),
    ]
    assert list(await records.history("far/web", "v1", before=found[2].number, limit=1)) == [found[3]]
    assert [entry.digest for entry in await SqlCatalog(database).deletions("far/web")] == [newer.digest, older.digest]


async def test_an_answer_that_comes_late_moves_no_tag(metadata: SqlMetadata, records: SqlMirrorRecords) -> None:
    """Another process asked later, and was answered first."""
    first, older, newer = (change("far/web", blob(name), tag="v1") for name in ("first", "older", "newer"))
    assert not await records.keep(first, seen="")
    assert await records.keep(newer, seen=first.digest)
    assert not await records.keep(older, seen=first.digest)
    assert not await records.note("far/web", "v1", first.digest, seen=first.digest, now=NOW + HOUR)
    assert not await records.note("far/web", "v1", None, seen=first.digest, now=NOW + HOUR)
    found = await metadata.manifest("far/web", "v1")
    assert found is not None
    assert found.digest == newer.digest
    assert await metadata.manifest("far/web", older.digest) is not None
    assert [entry.digest for entry in await records.history("far/web", "v1", limit=9)] == [newer.digest, first.digest]
