"""What is written into a backup: sealed so that nothing can be changed, lines that come back as they were."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.adapters.backup_memory import MemoryBackups
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.record import (
    Access,
    Record,
    Standing,
    catalogue_from,
    config_map_of,
    record_of,
    secret_of,
)
from haneul.dkos.backup.replaying import _inflater
from haneul.dkos.backup.sealing import new_key, open_sealed, seal
from haneul.dkos.backup.segments import Change, Revision, pack, unpack
from haneul.kernel.errors import BackupDamagedError, BackupIncompleteError

KEY = bytes(range(32))
SIZES = [0, 1, 1 << 20, (1 << 20) + 1, 3 * (1 << 20), 3 * (1 << 20) + 77]


async def parts(content: bytes, size: int = 65537) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


async def sealed(content: bytes, name: str = "uid/a", key: bytes = KEY) -> bytes:
    return b"".join([part async for part in seal(key, name, parts(content))])


async def opened(content: bytes, name: str = "uid/a", key: bytes = KEY) -> bytes:
    return b"".join([part async for part in open_sealed(key, name, parts(content, 4099))])


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_sealed_is_opened_whatever_its_size(size: int) -> None:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    safe = await sealed(content)
    assert await opened(safe) == content
    assert size < 16 or content[:16] not in safe
    assert safe != await sealed(content)


async def test_a_change_anywhere_is_noticed() -> None:
    content = b"x" * (2 * (1 << 20) + 5)
    safe = await sealed(content)
    for place in (0, 20, 60, 1 << 20, len(safe) - 1):
        damaged = bytearray(safe)
        damaged[place] ^= 1
        with pytest.raises(BackupDamagedError, match="uid/a is not what was written there"):
            await opened(bytes(damaged))


async def test_an_end_that_is_cut_off_and_pieces_in_another_order_are_noticed() -> None:
    safe = await sealed(b"x" * (3 * (1 << 20)))
    head, piece = 48, (1 << 20) + 16
    for length in (0, 10, head, head + piece, head + 2 * piece, len(safe) - 1):
        with pytest.raises(BackupDamagedError):
            await opened(safe[:length])
    exchanged = (
        safe[:head] + safe[head + piece : head + 2 * piece] + safe[head : head + piece] + safe[head + 2 * piece :]
    )
    for wrong in (exchanged, safe + b"\0", safe + safe[head:]):
        with pytest.raises(BackupDamagedError):
            await opened(wrong)


async def test_an_object_under_another_name_or_key_is_not_opened() -> None:
    safe = await sealed(b"content")
    with pytest.raises(BackupDamagedError):
        await opened(safe, name="uid/b")
    with pytest.raises(BackupDamagedError):
        await opened(safe, key=new_key())


async def test_objects_that_are_missing_or_exchanged_have_a_code() -> None:
    store = MemoryBackups()
    objects = SealedObjects(store, "uid", KEY)
    await objects.put_document("uid/facts", {"name": "shop"})
    assert await objects.facts() == {"name": "shop"}
    with pytest.raises(BackupIncompleteError) as missing:
        await objects.read_bytes("uid/other")
    assert missing.value.code == "backup-incomplete"
    await store.put("uid/other", store.read("uid/facts"))
    with pytest.raises(BackupDamagedError) as exchanged:
        await objects.read_bytes("uid/other")
    assert exchanged.value.code == "backup-damaged"


texts = st.text("abcdefgh+/=", max_size=8)
changes = st.builds(Change, key=texts, value=texts, lease=st.sampled_from(["0", "77"])) | st.builds(
    lambda key: Change(key, deleted=True), texts
)
revisions = st.builds(
    Revision,
    st.integers(1, 1 << 60),
    st.integers(0, 1 << 50),
    st.lists(changes, min_size=1, max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["77"]), st.integers(1, 3600)),
)


@given(st.lists(revisions, min_size=1, max_size=6))
def test_revisions_come_back_as_they_were(wanted: list[Revision]) -> None:
    assert list(unpack(pack(wanted), "a segment")) == wanted


def test_segments_that_are_put_together_read_as_one() -> None:
    one = Revision(5, 1000, (Change("a", "b"),))
    two = Revision(6, 1001, (Change("a", deleted=True),))
    both = pack([one]) + pack([two])
    assert list(unpack(both, "a segment")) == [one, two]
    inflate = _inflater()
    text = b"".join(inflate(both[begin : begin + 3]) for begin in range(0, len(both), 3))
    assert text == gzip.decompress(both)


def test_an_empty_segment_has_no_changes() -> None:
    assert list(unpack(b"", "a segment")) == []


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"no json\n", mtime=0), gzip.compress(b'{"revision": 5}\n', mtime=0)],
    ids=["no-gzip", "no-json", "not-all-fields"],
)
def test_what_is_no_segment_is_an_error(content: bytes) -> None:
    with pytest.raises(BackupDamagedError, match="a segment cannot be read"):
        list(unpack(content, "a segment"))


def test_records_and_catalogues_come_back_as_they_were() -> None:
    access = Access(("https://192.0.2.1:2379", "https://192.0.2.2:2382"), b"ca", b"certificate", b"key")
    record = Record(
        "uid-1", "shop", "web", Standing.FOLLOWED, KEY, {"second": "eA==", "first": "eQ=="}, {"version": "1"}, access
    )
    assert record_of(secret_of(record)) == record
    assert list(record_of(secret_of(record)).sealing_keys) == ["second", "first"]  # type: ignore[union-attr]
    ended = Record("uid-1", "shop", "web", Standing.DELETED, KEY, deleted=datetime(2026, 11, 27, tzinfo=UTC))
    assert record_of(secret_of(ended)) == ended
    assert record_of({"data": {"uid": "eA=="}}) is None
    catalogue = Catalogue(uid="uid-1", project="shop", name="web", revision=7)
    assert catalogue_from(config_map_of(catalogue)) == catalogue
    assert catalogue_from({"data": {"catalogue.json": "{}"}}) is None
    assert not any(secret in repr(record) for secret in (repr(KEY), "b'key'", "eA=="))
