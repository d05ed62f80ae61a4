"""A gate and the provider that it trusts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.kernel.clock import VirtualClock
from tests.functional.signon.company import Company, running_company
from tests.functional.signon.gate import START, Gate, running_gate


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
async def company(clock: VirtualClock) -> AsyncIterator[Company]:
    async with running_company(clock) as company:
        yield company


@pytest.fixture
async def gate(tmp_path: Path, company: Company, clock: VirtualClock) -> AsyncIterator[Gate]:
    async with running_gate(tmp_path, company, clock) as gate:
        yield gate
