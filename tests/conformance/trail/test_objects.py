"""Stores of records, each behind the same port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from haneul.trail.adapters.object_store import objects_in_folder, objects_in_memory
from haneul.trail.ports import Objects, TrailStoreAwayError

Made = Callable[[Path], Objects]
STORES: dict[str, Made] = {"memory": lambda _: objects_in_memory(), "folder": objects_in_folder}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return STORES[request.param](tmp_path / "store")


async def test_an_object_is_kept_replaced_and_removed(store: Objects) -> None:
    await store.put("shop/2026-11-27/a", b"one")
    await store.put("shop/2026-11-27/a", b"another")
    assert await store.get("shop/2026-11-27/a") == b"another"
    assert await store.get_range("shop/2026-11-27/a", 2, 3) == b"oth"
    await store.remove("shop/2026-11-27/a")
    await store.remove("shop/2026-11-27/a")
    assert await store.get("shop/2026-11-27/a") is None
    assert await store.get_range("shop/2026-11-27/a", 0, 1) is None


async def test_keys_are_those_below_a_prefix(store: Objects) -> None:
    for key in ("shop/2026-11-28/b", "shop/2026-11-27/a", "shopping/2026-11-27/a"):
        await store.put(key, b"x")
    assert await store.keys("shop/") == ["shop/2026-11-27/a", "shop/2026-11-28/b"]
    assert await store.keys("shop/2026-11-28/") == ["shop/2026-11-28/b"]
    assert await store.keys("nobody/") == []


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = objects_in_folder(tmp_path / "store")
    (tmp_path / "store" / "shop").write_text("in the way")
    with pytest.raises(TrailStoreAwayError):
        await store.put("shop/2026-11-27/a", b"x")
