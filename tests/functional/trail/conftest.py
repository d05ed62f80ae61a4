"""Tests of the trail: what an earlier run that was killed left mounted is cleared away first."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from haneul.trail.adapters.memory_folder import clear_abandoned


@pytest.fixture(scope="session", autouse=True)
def nothing_abandoned() -> None:
    asyncio.run(clear_abandoned(Path(tempfile.gettempdir())))
