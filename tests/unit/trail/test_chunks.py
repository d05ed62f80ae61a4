"""Chunks are read in pieces and whole, by us and by any tool."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

import pytest

from haneul.trail.chunks import make_chunk, parse_key, read_block, read_index
from haneul.trail.model import UnreadableError
from tests.unit.trail.samples import STARTED, record

NOW = datetime(2026, 11, 27, 21, 30, tzinfo=UTC)


def some(count: int) -> list[tuple[object, bytes]]:
    made = [record(f"/item/{number}?filler={'x' * 900}", started=STARTED + number) for number in range(count)]
    return [(one, one.line()) for one in made]


def test_a_record_is_found_in_its_block_alone() -> None:
    lines = some(300)
    chunk = make_chunk("shop", lines, kind="kept", now=NOW, unique="0123abcd")  # type: ignore[arg-type]
    index = read_index(chunk.index)
    assert len(index.blocks) > 1
    for number, entry in enumerate(index.entries):
        start, length = index.blocks[entry.block]
        assert read_block(chunk.content[start : start + length])[entry.line] == lines[number][1]
    assert gzip.decompress(chunk.content) == b"".join(line for _, line in lines)


def test_its_name_says_what_it_has() -> None:
    lines = some(3)
    chunk = make_chunk("shop", lines, kind="collected", now=NOW, unique="0123abcd")  # type: ignore[arg-type]
    name = parse_key(chunk.name.index)
    assert name == chunk.name
    assert (name.day, name.records, name.kind) == ("2026-11-27", 3, "collected")
    assert name.size == sum(len(line) for _, line in lines)
    assert (name.first, name.last) == (round(STARTED * 1000), round((STARTED + 2) * 1000))


@pytest.mark.parametrize("key", ["", "shop/other", "shop/2026-11-27/1-2-3-4-kept-0123abcd.jsonl.gz", "../x.index.gz"])
def test_other_keys_are_none_of_ours(key: str) -> None:
    assert parse_key(key) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"x", gzip.compress(b"[]"), gzip.compress(b"{}")[:-3]],
    ids=["nothing", "not compressed", "no index", "cut off"],
)
def test_what_is_no_index_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_index(content)


def test_what_is_no_block_is_refused() -> None:
    with pytest.raises(UnreadableError):
        read_block(b"no gzip")
