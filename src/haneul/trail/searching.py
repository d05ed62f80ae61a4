"""Questions answered from the store: by the catalogue where records lie, then those records and no others.

A catalogue that is behind the store, or new, takes in the indexes that it lacks first; they are small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from haneul.trail.chunks import ChunkName, parse_key, read_block, read_index
from haneul.trail.model import Record, UnreadableError, record_of_line
from haneul.trail.ports import Catalogue, Hit, Objects, Question

_log = structlog.get_logger(__name__)
_AT_ONCE: Final = 8


async def search(objects: Objects, catalogue: Catalogue, question: Question) -> list[Record]:
    """Return the records that answer, the newest first. Raises TrailStoreAwayError."""
    await catch_up(objects, catalogue, question.cluster)
    # What was kept may have been collected besides.
    hits = await asyncio.to_thread(catalogue.find, replace(question, limit=2 * question.limit))
    found: dict[str, Record] = {}
    for line in await _lines(objects, hits):
        record = record_of_line(line)
        if _answers(record, question):
            found.setdefault(str(record.transaction.get("id", "")), record)
    return list(found.values())[: question.limit]


async def catch_up(objects: Objects, catalogue: Catalogue, cluster: str) -> int:
    """Take in what the catalogue lacks, and out what the store has no more; return how many chunks it lacked."""
    names = {name.index: name for key in await objects.keys(f"{cluster}/") if (name := parse_key(key))}
    known = await asyncio.to_thread(catalogue.chunks)
    if gone := sorted(known - names.keys()):
        await asyncio.to_thread(catalogue.forget, gone)
    missing = sorted(names.keys() - known)
    for begin in range(0, len(missing), _AT_ONCE):
        keys = missing[begin : begin + _AT_ONCE]
        for key, content in zip(keys, await asyncio.gather(*map(objects.get, keys)), strict=True):
            if content is not None:
                await _add(catalogue, names[key], content)
    return len(missing)


async def _add(catalogue: Catalogue, name: ChunkName, content: bytes) -> None:
    """Take in an index; one that is broken hides its own chunk only."""
    try:
        await asyncio.to_thread(lambda: catalogue.add(name, read_index(content)))
    except UnreadableError as error:
        _log.warning("an index cannot be read; its records are not found", index=name.index, detail=error.detail)


async def _lines(objects: Objects, hits: Sequence[Hit]) -> list[bytes]:
    """Return the lines of hits in their order; one whose chunk was removed meanwhile is left out."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def read(place: tuple[str, int, int]) -> list[bytes]:
        async with turns:
            content = await objects.get_range(*place)
        try:
            return await asyncio.to_thread(read_block, content) if content is not None else []
        except UnreadableError as error:
            _log.warning("records cannot be read", chunk=place[0], detail=error.detail)
            return []

    places = list(dict.fromkeys((hit.chunk, hit.offset, hit.length) for hit in hits))
    blocks = dict(zip(places, await asyncio.gather(*map(read, places)), strict=True))
    found = [(blocks[hit.chunk, hit.offset, hit.length], hit.line) for hit in hits]
    return [block[line] for block, line in found if line < len(block)]


def _answers(record: Record, question: Question) -> bool:
    """Say whether a record is what was searched for: the catalogue has numbers for some texts."""
    return (not question.client or record.client == question.client) and (
        not question.request_id or record.request_id == question.request_id
    )
