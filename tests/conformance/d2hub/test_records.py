"""What is promised of audit record and outbox, asked of SQLite's file and of PostgreSQL."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, event

from haneul.d2hub.adapters.sql_audit import SqlAudit
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.adapters.sql_outbox import SqlOutbox
from haneul.d2hub.deliveries import Backlog, DeliveryState, Outcome
from haneul.d2hub.digests import digest_of
from haneul.d2hub.errors import ManifestBlobUnknownError, TagImmutableError
from haneul.d2hub.happenings import AuditEntry, Happening, Origin
from haneul.d2hub.journal import Journal
from haneul.d2hub.manifests import OCI_MANIFEST, parse_manifest
from haneul.d2hub.model import DeletionOrder, ManifestPush, StoredBlob
from haneul.d2hub.record_ports import Span
from haneul.d2hub.rules import ProjectRules
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import InvalidInputError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ORIGIN = Origin("192.0.2.7", ("https://a/", "https://b/"))
CONFIG = b"{}"


@pytest.fixture
def audit(database: SqlDatabase) -> SqlAudit:
    return SqlAudit(database)


@pytest.fixture
def outbox(database: SqlDatabase) -> SqlOutbox:
    return SqlOutbox(database)


def change(tag: str, *, repository: str = "shop/web", now: datetime = NOW, origin: Origin = ORIGIN) -> ManifestPush:
    config = f'{{"mediaType": "a/b", "digest": "{digest_of(CONFIG)}", "size": 2}}'
    content = f'{{"schemaVersion": 2, "config": {config}, "layers": [], "annotations": {{"x": "{tag}"}}}}'.encode()
    manifest = parse_manifest(content, OCI_MANIFEST)
    return ManifestPush(repository, str(digest_of(content)), content, manifest, now, "alice", tag, origin=origin)


async def push(metadata: SqlMetadata, tag: str, **more: object) -> ManifestPush:
    pushed = change(tag, **more)  # type: ignore[arg-type]
    stored = StoredBlob(str(digest_of(CONFIG)), "key", 2)
    await metadata.link_blob(pushed.repository, stored, now=pushed.now)
    await metadata.put_manifest(pushed)
    return pushed


async def told(audit: SqlAudit) -> list[tuple[str, str, str]]:
    """Return what was written down, the first first."""
    found, more = await audit.entries("shop", Span(), limit=1000)
    assert not more
    return [(str(entry.happening), entry.reference, entry.account) for entry in found[::-1]]


async def test_every_change_writes_its_record(
    database: SqlDatabase, metadata: SqlMetadata, audit: SqlAudit, outbox: SqlOutbox
) -> None:
    catalog, keeping = SqlCatalog(database), SqlKeeping(database)
    pushed = await push(metadata, "v1")
    at = [NOW + HOUR * turn for turn in range(10)]
    await metadata.delete(DeletionOrder("shop/web", "v1", at[1], "bob", origin=ORIGIN))
    await catalog.undelete("shop/web", "v1", now=at[2], by="carol", origin=ORIGIN)
    retention = replace(ORIGIN, happening=Happening.RETENTION)
    await metadata.delete(DeletionOrder("shop/web", "v1", at[3], "dora", origin=retention))
    origin = Origin("", ("https://a/",))
    untagged = keeping.delete_untagged("shop", released_before=at[5], now=at[5], limit=3, origin=origin)
    assert [name async for names in untagged for name in names] == ["shop/web"]
    await catalog.undelete("shop/web", pushed.digest, now=at[6], by="erin")
    await metadata.delete(DeletionOrder("shop/web", pushed.digest, at[7], "finn"))
    assert await keeping.purge_deleted(before=at[8], now=at[8], limit=3) == 1
    await metadata.delete_blob("shop/web", str(digest_of(CONFIG)), now=at[9], by="gina")
    assert await told(audit) == [
        ("push", "v1", "alice"),
        ("delete", "v1", "bob"),
        ("undelete", "v1", "carol"),
        ("retention", "v1", "dora"),
        ("collection", "", "(untagged)"),
        ("undelete", "", "erin"),
        ("delete", "", "finn"),
        ("purge", "", "(collection)"),
        ("delete", "", "gina"),
    ]
    [first] = (await audit.entries("shop", Span(until=at[1]), limit=9))[0]
    assert first == AuditEntry(NOW, Happening.PUSH, "shop/web", "v1", pushed.digest, "alice", "192.0.2.7")
    enqueued = await outbox.listed("shop", state=None, limit=100)
    assert [delivery.receiver for delivery in enqueued[::-1]] == ["https://a/", "https://b/"] * 4 + ["https://a/"]
    assert len({delivery.identity for delivery in enqueued}) == 5


async def test_what_is_refused_or_finds_nothing_writes_none(
    database: SqlDatabase, metadata: SqlMetadata, audit: SqlAudit, outbox: SqlOutbox
) -> None:
    with pytest.raises(ManifestBlobUnknownError):
        await metadata.put_manifest(change("v1"))
    assert not await metadata.delete(DeletionOrder("shop/web", "v1", NOW, "bob", origin=ORIGIN))
    await push(metadata, "v1", origin=Origin())
    with pytest.raises(TagImmutableError):
        await metadata.delete(DeletionOrder("shop/web", "v1", NOW, "bob", stays=lambda _: True, origin=ORIGIN))
    assert not await SqlCatalog(database).undelete("shop/web", "v2", now=NOW, by="x", origin=ORIGIN)
    assert not await metadata.delete_blob("shop/web", "sha256:00", now=NOW, by="x", origin=ORIGIN)
    assert await told(audit) == [("push", "v1", "alice")]
    assert await outbox.backlog() == Backlog()


async def test_a_record_that_cannot_be_written_takes_the_change_back(
    database: SqlDatabase, metadata: SqlMetadata
) -> None:
    """There is no change without its record, whatever befalls the statement that writes it."""

    def fail(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO audit"):
            raise OSError("the disk is on fire")

    event.listen(database.engine, "before_cursor_execute", fail)
    with pytest.raises(OSError, match="on fire"):
        await push(metadata, "v1")
    event.remove(database.engine, "before_cursor_execute", fail)
    assert await metadata.manifest("shop/web", "v1") is None
    await push(metadata, "v1")
    event.listen(database.engine, "before_cursor_execute", fail)
    with pytest.raises(OSError, match="on fire"):
        await metadata.delete(DeletionOrder("shop/web", "v1", NOW, "x"))
    assert await metadata.manifest("shop/web", "v1") is not None


async def test_records_come_in_pages_by_time(audit: SqlAudit) -> None:
    entries = [
        AuditEntry(NOW + HOUR * (turn // 3), Happening.PULL, f"{project}/x", f"t{turn}", "sha256:aa", "bob", weight=10)
        for turn in range(10)
        for project in ("shop", "lab")
    ]
    await audit.add(entries)
    mine = [entry for entry in entries if entry.project == "shop"]
    found: list[AuditEntry] = []
    more, pages = "", 0
    while pages == 0 or more:
        page, more = await audit.entries("shop", Span(), before=more, limit=4)
        found += page
        pages += 1
    assert (found[::-1], pages) == (mine, 3)
    span = Span(NOW + HOUR, NOW + HOUR * 2)
    page, more = await audit.entries("shop", span, limit=9)
    assert ([entry.reference for entry in page], more) == (["t5", "t4", "t3"], "")
    for text in ("x", "2026-11-24/x", "nonsense/5"):
        with pytest.raises(InvalidInputError):
            await audit.entries("shop", Span(), before=text, limit=4)
    assert await audit.purge(before=NOW + HOUR * 2, limit=8) == 8
    assert await audit.purge(before=NOW + HOUR * 2, limit=8) == 4
    assert await audit.purge(before=NOW + HOUR * 2, limit=8) == 0
    assert len((await audit.entries("shop", Span(), limit=9))[0]) == 4


async def test_a_record_that_is_written_again_is_there_once(audit: SqlAudit) -> None:
    """The answer to a commit may be lost, and what is not known to be written is written again."""
    first, second = (
        AuditEntry(NOW, Happening.PULL, "shop/x", tag, "", "bob", identity=tag * 16) for tag in ("v1", "v2")
    )
    await audit.add([first])
    await audit.add([first, second])
    assert [tag for _, tag, _ in await told(audit)] == ["v1", "v2"]


async def test_a_record_that_can_never_be_written_holds_up_nobody(audit: SqlAudit) -> None:
    class NoRules:
        def rules(self, _: str) -> ProjectRules:
            return ProjectRules()

    journal = Journal(audit, NoRules(), keep=HOUR, clock=VirtualClock(NOW), chance=random.Random(1))  # noqa: S311
    for tag in ("v1", "a\0b", "\ud800", "v2"):
        journal.refused(Happening.PUSH, "shop/web", tag, "", by=("bob", ""), result="forbidden")
    await journal.flush()
    journal.refused(Happening.PUSH, "shop/web", "v3", "", by=("bob", ""), result="forbidden")
    await journal.flush()
    written = [tag for _, tag, _ in await told(audit)]
    assert [tag for tag in written if "\0" not in tag] == ["v1", "v2", "v3"]
    assert "d2hub_audit_waiting 0" in journal.lines()
    assert f"d2hub_audit_lost_total {5 - len(written)}" in journal.lines()


async def turns(outbox: SqlOutbox, now: datetime) -> list[tuple[str, str]]:
    found = [await outbox.take(head.number, now=now, until=now + HOUR) for head in await outbox.heads(now=now)]
    assert None not in found
    for delivery in found:
        assert delivery is not None
        await outbox.settle(delivery.number, Outcome(DeliveryState.WAITING, "let go", now), attempts=delivery.attempts)
    return [(delivery.repository, delivery.event.partition('"tag": "')[2][:2]) for delivery in found if delivery]


async def test_each_repositorys_first_has_its_turn(metadata: SqlMetadata, outbox: SqlOutbox) -> None:
    one = Origin("", ("https://a/",))
    for repository, tag in (("shop/web", "v1"), ("shop/web", "v2"), ("shop/api", "v3"), ("lab/x", "v4")):
        await push(metadata, tag, repository=repository, origin=one)
    assert await turns(outbox, NOW) == [("shop/web", "v1"), ("shop/api", "v3"), ("lab/x", "v4")]
    assert await turns(outbox, NOW - HOUR) == []
    first, *_ = heads = await outbox.heads(now=NOW)
    assert [head.project for head in heads] == ["shop", "shop", "lab"]
    assert len(await outbox.heads(now=NOW, project="shop", receiver="https://a/")) == 2
    assert await outbox.heads(now=NOW, project="shop", receiver="https://b/") == []
    # While it is held, and while it waits for its next attempt, what is behind it waits too.
    taken = await outbox.take(first.number, now=NOW, until=NOW + HOUR)
    assert taken is not None
    assert taken.attempts == 2
    assert await outbox.take(first.number, now=NOW, until=NOW + HOUR) is None
    assert await turns(outbox, NOW) == [("shop/api", "v3"), ("lab/x", "v4")]
    await outbox.settle(first.number, Outcome(DeliveryState.WAITING, "status 500", NOW + HOUR * 3), attempts=2)
    assert await turns(outbox, NOW + HOUR * 2) == [("shop/api", "v3"), ("lab/x", "v4")]
    assert (await turns(outbox, NOW + HOUR * 3))[0] == ("shop/web", "v1")
    # A hold that ended without a word: whoever had it was killed.
    late = await outbox.take(first.number, now=NOW + HOUR * 3, until=NOW + HOUR * 4)
    assert late is not None
    assert (await turns(outbox, NOW + HOUR * 4))[0] == ("shop/web", "v1")
    # It was late, and nothing that it says counts: its delivery is somebody else's by now.
    done = Outcome(DeliveryState.DELIVERED, "status 200", NOW + HOUR * 4)
    await outbox.settle(first.number, done, attempts=late.attempts)
    assert (await turns(outbox, NOW + HOUR * 4))[0] == ("shop/web", "v1")
    await outbox.settle(first.number, done, attempts=late.attempts + 2)
    assert (await turns(outbox, NOW + HOUR * 4))[0] == ("shop/web", "v2")
    backlog = await outbox.backlog()
    assert (backlog.waiting, backlog.oldest) == (3, NOW)


async def test_a_failed_one_is_made_again_when_asked(metadata: SqlMetadata, outbox: SqlOutbox) -> None:
    await push(metadata, "v1")
    second, first = await outbox.listed("shop", state=None, limit=10)
    await outbox.take(first.number, now=NOW, until=NOW + HOUR)
    await outbox.settle(first.number, Outcome(DeliveryState.FAILED, "status 500", NOW), attempts=1)
    [failed] = await outbox.listed("shop", state=DeliveryState.FAILED, limit=10)
    assert (failed.number, failed.attempts, failed.answer, failed.ended) == (first.number, 1, "status 500", NOW)
    assert [one.number for one in await outbox.listed("shop", state=None, before=second.number, limit=9)] == [
        first.number
    ]
    assert not await outbox.again("lab", first.number, now=NOW)
    assert not await outbox.again("shop", second.number, now=NOW)
    assert await outbox.again("shop", first.number, now=NOW + HOUR)
    assert await outbox.listed("shop", state=DeliveryState.FAILED, limit=10) == []
    [head] = await outbox.heads(now=NOW + HOUR, project="shop", receiver=first.receiver)
    taken = await outbox.take(head.number, now=NOW + HOUR, until=NOW + HOUR * 2)
    assert taken is not None
    assert (taken.attempts, taken.identity) == (1, first.identity)
    await outbox.settle(first.number, Outcome(DeliveryState.DELIVERED, "status 200", NOW + HOUR), attempts=1)
    assert await outbox.purge(before=NOW + HOUR, limit=10) == 0
    assert await outbox.purge(before=NOW + HOUR * 2, limit=10) == 1
    assert [one.number for one in await outbox.listed("shop", state=None, limit=10)] == [second.number]
