"""The folders of a zone, which belong to somebody else than who makes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from haneul.kage.model import KageSettings, Part, Secrets
from haneul.kage.store import Kage
from haneul.kernel.clock import VirtualClock

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class Nothing:
    """Parts that only seem to run, and the API of a store that has nothing to do."""

    async def make_rings(self, described: Mapping[str, Any]) -> None:
        pass

    async def start(self, parts: Sequence[Part]) -> None:
        pass

    async def ended(self, parts: Sequence[Part]) -> Sequence[Part]:
        return []

    async def stop(self, parts: Sequence[Part], *, at_once: bool = False) -> None:
        pass

    def said(self, part: Part) -> str:
        return part.name

    async def answers(self) -> bool:
        return True

    async def listens(self, part: Part) -> bool:
        return part.port > 0

    async def make_bucket(self, name: str, secrets: Secrets) -> None:
        pass


async def test_nothing_is_done_in_a_folder_that_was_given_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Path] = []
    marked: list[Path] = []

    def give(path: Path, user: int, group: int, *, follow_symlinks: bool = True) -> None:
        assert (user, group) == owner
        assert not follow_symlinks
        assert not {path, *path.parents} & set(given)
        given.append(path)

    def mark(path: Path, name: str, value: bytes) -> None:
        assert not given
        marked.append(path)

    owner = (os.geteuid(), os.getegid())
    monkeypatch.setattr(os, "chown", give)
    monkeypatch.setattr(os, "setxattr", mark)
    settings = KageSettings(tmp_path / "kage", "65530", zones=1, owner=owner)
    await Kage(settings, Nothing(), Nothing(), clock=VirtualClock(NOW)).start()
    making = settings.folder / ".zone1"
    assert {path.relative_to(making).as_posix() for path in given} == {
        ".",
        "disks",
        "disks/d1",
        "disks/d1/tmp",
        "recon",
    }
    assert [path.relative_to(making).as_posix() for path in marked] == ["disks/d1"]
    assert (settings.disk(1) / "tmp").is_dir()
