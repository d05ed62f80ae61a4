"""One command at a time changes a host; whoever comes second is told by whom, and a killed one is in nobody's way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from haneul.app.installation import Installation
from haneul.host.memory_services import MemoryServices
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError
from haneul.kernel.progress import SilentProgress
from haneul.management.host_lock import host_lock
from haneul.management.settings import ManagementSettings
from haneul.trail.adapters.memory_folder import mount_memory, unmount_memory

CLOCK = SystemClock()
HOLDS = """
import sys
from pathlib import Path
from haneul.kernel.clock import SystemClock
from haneul.management.host_lock import host_lock

with host_lock(Path(sys.argv[1]), "haneul down --purge", clock=SystemClock()):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def holding(state: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it reads a line or is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refusal(state: Path) -> ConflictError:
    with pytest.raises(ConflictError) as refused, host_lock(state, "haneul up", clock=CLOCK):
        raise AssertionError("it was held already")
    return refused.value


def test_the_second_one_is_told_who_holds_it_and_since_when(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with holding(tmp_path / "state") as process:
        refused = refusal(tmp_path / "state")
        said, _, since = refused.detail.removesuffix(") is changing this host").partition(", since ")
        assert said == f"'haneul down --purge' (process {process.pid}"
        assert before <= datetime.strptime(since, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) <= datetime.now(UTC)
        assert refused.hint == "wait for it to end, then try again"
        process.communicate("\n", timeout=60)
    with host_lock(tmp_path / "state", "haneul up", clock=CLOCK):
        pass
    assert os.listdir(tmp_path / "state") == ["host.lock"]  # noqa: PTH208 - names are all that is asked for


def test_the_lock_of_one_that_was_killed_is_free_and_its_name_is_forgotten(tmp_path: Path) -> None:
    with holding(tmp_path / "state") as process:
        process.kill()
        process.wait(60)
        left = (tmp_path / "state/host.lock.json").read_text()
        with host_lock(tmp_path / "state", "haneul up", clock=CLOCK):
            assert f"(process {os.getpid()}, " in refusal(tmp_path / "state").detail
            # As it is before the one that took over has written its own.
            (tmp_path / "state/host.lock.json").write_text(left)
            assert refusal(tmp_path / "state").detail == "another 'haneul' command is changing this host"


def test_the_lock_of_a_folder_that_its_holder_deletes_is_no_error(tmp_path: Path) -> None:
    with host_lock(tmp_path / "state", "haneul down --purge", clock=CLOCK):
        for file in (tmp_path / "state").iterdir():
            file.unlink()
        (tmp_path / "state").rmdir()
    assert not (tmp_path / "state").exists()


async def test_a_full_disk_keeps_nobody_from_holding_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    if os.geteuid() != 0 or not await mount_memory(state, 1 << 16):
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match="No space"), (state / "all").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with holding(state):
            assert refusal(state).detail == "another 'haneul' command is changing this host"
        (state / "all").unlink()
        with host_lock(state, "haneul up", clock=CLOCK):
            assert "'haneul up'" in refusal(state).detail
    finally:
        await unmount_memory(state)


class Parts:
    """All parts of an installation: each sees whether the host is locked while it is brought up or down."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.seen: list[str] = []

    async def build(self, names: list[str], progress: object) -> None:
        self._look("build")

    async def up(self, progress: object) -> None:
        self._look("up")
        if self.seen.count("up: haneul up") == 2:
            raise KeyboardInterrupt

    async def start(self) -> None:
        self._look("start")

    async def down(self, progress: object) -> None:
        self._look("down")

    def _look(self, what: str) -> None:
        self.seen.append(f"{what}: {refusal(self.state).detail.split(chr(39))[1]}")


async def test_a_command_holds_the_lock_from_its_first_change_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path / "state")
    fake = cast(Any, parts)
    settings = ManagementSettings(address="127.0.0.1", host_name="host", state=parts.state)
    installation = Installation(settings, MemoryServices(), fake, fake, fake, fake)

    async def no_ports(self: Installation) -> None:
        assert not parts.state.exists(), "what refuses comes before any change"

    monkeypatch.setattr(Installation, "_refuse_foreign_ports", no_ports)
    with pytest.raises(KeyboardInterrupt):
        await installation.up(SilentProgress())
    assert parts.seen == ["build: haneul up", "up: haneul up", "start: haneul up", "up: haneul up"]
    await installation.down(SilentProgress())
    assert parts.seen[4:] == ["down: haneul down"]
    with holding(parts.state) as process:
        for command in (installation.down, installation.purge):
            with pytest.raises(ConflictError, match=f"process {process.pid}, since"):
                await command(SilentProgress())
