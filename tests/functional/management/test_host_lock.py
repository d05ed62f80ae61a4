"""One command at a time changes a host; whoever comes second is told by whom, and a killed one is in nobody's way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from haneul.app.installation import Installation
from haneul.app.switches import Switches
from haneul.host.memory_services import MemoryServices
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError, HostNotReadyError, InvalidInputError
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

    content = SimpleNamespace(needs_store=False)

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


async def test_what_up_is_told_is_kept_by_who_has_the_lock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path / "state")
    fake = cast(Any, parts)
    settings = ManagementSettings(address="127.0.0.1", host_name="host", state=parts.state)
    installation = Installation(settings, MemoryServices(), fake, fake, fake, fake)
    foreign: list[str] = []

    async def ports(self: Installation) -> None:
        if foreign:
            raise HostNotReadyError(foreign[0])

    monkeypatch.setattr(Installation, "_refuse_foreign_ports", ports)
    switches = Switches(hub=False, kage=True)
    off, on = parts.state / "hub.off", parts.state / "kage.on"
    # What is told counts at once, and is not kept yet.
    assert (switches.hub_is_wanted(parts.state), switches.kage_is_wanted(parts.state)) == (False, True)
    with holding(parts.state), pytest.raises(ConflictError, match="is changing this host"):
        await installation.up(SilentProgress(), switches)
    foreign.append("a port is taken")
    with pytest.raises(HostNotReadyError, match="a port is taken"):
        await installation.up(SilentProgress(), switches)
    assert not off.exists()
    assert not on.exists()
    assert parts.seen == []

    foreign.clear()
    wrong = tmp_path / "issuer.yaml"
    with pytest.raises(InvalidInputError, match=r"issuer\.yaml"):
        await installation.up(SilentProgress(), replace(switches, acme=wrong))
    assert not off.exists()
    with pytest.raises(KeyboardInterrupt):
        await installation.up(SilentProgress(), switches)
    assert off.exists()
    assert on.exists()
    kept = Switches()
    assert (kept.hub_is_wanted(parts.state), kept.kage_is_wanted(parts.state)) == (False, True)
    kept.keep(parts.state)
    assert off.exists()
    Switches(hub=True, kage=False).keep(parts.state)
    assert not off.exists()
    assert not on.exists()


class Whole(Parts):
    """All parts, with images that cannot be moved."""

    async def up(self, progress: object) -> None:
        self._look("up")

    async def settle_images(self, progress: object) -> None:
        self._look("images")
        raise ConflictError("the images could not be moved", hint="mend that")


async def test_images_that_cannot_be_moved_keep_nothing_else_from_coming_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, services = Whole(tmp_path / "state"), MemoryServices()
    fake = cast(Any, parts)
    settings = ManagementSettings(address="127.0.0.1", host_name="host", state=parts.state)
    installation = Installation(settings, services, fake, fake, fake, fake)

    async def no_ports(self: Installation) -> None:
        """Nobody else listens."""

    async def ingress(self: Installation) -> None:
        parts.seen.append("ingress")

    monkeypatch.setattr(Installation, "_refuse_foreign_ports", no_ports)
    monkeypatch.setattr(Installation, "_start_ingress", ingress)
    monkeypatch.setattr(Installation, "sign_root_in", lambda self: parts.seen.append("signed in"))
    with pytest.raises(ConflictError, match="the images could not be moved"):
        await installation.up(SilentProgress())
    assert parts.seen[-3:] == ["images: haneul up", "ingress", "signed in"]
    assert [state.name for state in await services.states()] == ["certificates"]
    # The lock is free.
    await installation.down(SilentProgress())
