"""The platform's own life: stop, start, a power cut. These tests stop what others use, so they come last."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from haneul.app.installation import Installation
from haneul.host.processes import command_line, executable, processes_matching
from haneul.kernel.kube import CONFIG_MAPS
from tests.e2e.tenants import PROJECT, tenant
from tests.support import haneul

pytestmark = [pytest.mark.e2e, pytest.mark.last]


async def write_and_read(name: str, value: str | None) -> str:
    async with tenant(name) as kube:
        if value is not None:
            metadata = {"name": "kept", "namespace": "default"}
            await kube.apply(
                CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}
            )
        return str(((await kube.get(CONFIG_MAPS, "kept", "default")) or {})["data"]["value"])


@pytest.fixture(scope="module")
def kept(project: str) -> str:
    haneul("cluster", "create", "kept", "--memory", "1024", "-p", project)
    return "kept"


async def test_a_power_cut_loses_nothing_that_was_acknowledged(kept: str, installation: Installation) -> None:
    """Every process of ours is killed at once, without warning; `up` brings all of it back."""
    await write_and_read(kept, "before the cut")
    cache = str(installation.store.cache)
    ours = processes_matching(
        lambda pid: executable(pid).startswith(cache) or "supervisor.supervisord" in " ".join(command_line(pid))
    )
    assert len(ours) > 5
    for pid in ours:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    haneul("up", timeout=600)
    haneul("cluster", "get", kept, "--wait", "-p", PROJECT)
    assert await write_and_read(kept, None) == "before the cut"


async def test_down_and_up_bring_back_the_same_clusters(kept: str) -> None:
    await write_and_read(kept, "before the stop")
    haneul("down")
    assert haneul("status", check=False).returncode == 8
    haneul("up", timeout=600)
    haneul("cluster", "get", kept, "--wait", "-p", PROJECT)
    assert await write_and_read(kept, None) == "before the stop"
    assert haneul("status").returncode == 0
