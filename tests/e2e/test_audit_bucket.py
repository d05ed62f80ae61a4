"""Records of the audit trail in a real object store, by its S3 API; it needs no platform."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from haneul.app.trail import catalogue_of, store_of
from haneul.kernel.clock import SystemClock
from haneul.trail.keeping import Keeper
from haneul.trail.ports import Question
from haneul.trail.searching import search
from haneul.trail.settings import TrailSettings
from tests.kage import bucket_of, running_kage
from tests.unit.trail.samples import record

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def test_records_are_kept_found_and_removed(tmp_path: Path) -> None:
    with running_kage(tmp_path / "kage") as kage:
        bucket = bucket_of(kage, "records")
        told = bucket.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"link_seconds"})
        told["secretAccessKey"] = bucket.secret_access_key.get_secret_value()
        file = tmp_path / "bucket.yaml"
        file.touch(0o600)
        file.write_text(yaml.safe_dump(told))
        asyncio.run(kept_found_and_removed(tmp_path, TrailSettings(bucket=file)))


async def kept_found_and_removed(folder: Path, settings: TrailSettings) -> None:
    store, catalogue, clock = store_of(settings), catalogue_of(folder), SystemClock()
    keeper = Keeper("shop", store, catalogue, clock)
    made = [record(f"/item/{number}", unique=f"{number:032x}") for number in range(500)]
    name = await keeper.write([(one, one.line()) for one in made], "kept", clock.now())
    assert await keeper.spent(clock.now()) == (name.size, 0)
    question = Question("shop", 0, 1 << 50)
    (found,) = await search(store, catalogue_of(folder / "elsewhere"), replace(question, path="/item/321"))
    assert found == made[321]
    for key in await store.keys("shop/"):
        await store.remove(key)
    assert await store.get(name.content) is None
    assert await search(store, catalogue, question) == []
