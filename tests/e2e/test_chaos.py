"""Isolation and self-healing: `haneul bench chaos` on a real platform. Its figures are its verdict."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from haneul.app.installation import this_host
from haneul.chaos.faults import CLUSTERS
from haneul.chaos.plan import short_plan, whole_plan
from haneul.host.processes import command_line, processes_matching
from tests.support import haneul

pytestmark = [pytest.mark.e2e, pytest.mark.last]
WHOLE_SECONDS = 2 * 3600


def broken(folder: Path, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run the suite; return what it measured."""
    completed = haneul(
        "bench", "chaos", "--beside-others", "--results", str(folder), *arguments, check=False, timeout=timeout
    )
    files = list(folder.glob("chaos-*.json"))
    assert files, completed.stderr
    measured: dict[str, Any] = json.loads(files[0].read_text())["measured"]
    assert measured["broken"] == [], completed.stdout
    assert completed.returncode == 0, completed.stderr
    return measured


async def hold(measured: dict[str, Any], rounds: int) -> None:
    """Hold a run to what no verdict of its own says: that it was whole, that it asked, and that it cleared up."""
    assert measured["complete"] and len(measured["rounds"]) == rounds
    assert measured["leftOver"] == []
    for name in CLUSTERS:
        assert measured["written"][name]["acknowledged"] > 10
        assert measured["written"][name]["lost"] == []
    asked = [tally["asked"] for tally in measured["wholeRun"].values()]
    assert min(asked) > 100
    state = (await this_host()).settings.state
    assert list((state / "chaos").glob("*")) == []
    assert "victim-etcd" not in Path("/proc/self/mountinfo").read_text()
    assert processes_matching(lambda pid: "haneul.chaos.adapters.flood" in command_line(pid)) == []


@pytest.mark.timeout(900)
async def test_the_most_telling_faults_are_survived_and_nobody_else_notices(project: str, tmp_path: Path) -> None:
    measured = await asyncio.to_thread(broken, tmp_path, "--quick", timeout=600)
    await hold(measured, len(short_plan()))
    for one in measured["rounds"]:
        # A fault that nobody could have noticed would prove nothing. A killed etcd only keeps questions waiting, and
        # is seen to be another process.
        assert "etcd-disk-full" not in one["faults"] or one["asked"]["victim's API"]["failed"] > 0, one


@pytest.mark.chaos
@pytest.mark.timeout(WHOLE_SECONDS + 600)
async def test_every_fault_and_every_pair_is_survived(project: str, tmp_path: Path) -> None:
    measured = await asyncio.to_thread(broken, tmp_path, timeout=WHOLE_SECONDS)
    await hold(measured, len(whole_plan()))
