"""Programs that people use registries with, as tests call them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from haneul.app.installation import component_store
from haneul.components.table import component_of
from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.progress import SilentProgress
from tests.functional.d2hub.hub import NOT_LONGER_THAN_US

START_SECONDS = 120.0


def need(program: str) -> str:
    """Return where a program of this machine is, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def built(program: str) -> str:
    """Return where one of our components is, built unless it is there."""
    store = component_store()
    asyncio.run(store.build([component_of(program).name], SilentProgress()))
    return str(store.program(program))


def run(
    *command: str,
    stdin: str | None = None,
    timeout: float = 300,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Return what a program writes, which has to end well; ``env`` is added to the environment."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        input=stdin,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Containerd:
    """A containerd of the built component: how its ctr is called, and the runc to run containers with."""

    command: tuple[str, ...]
    runc: Path


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[Containerd]:
    """Run a containerd until the block ends, or skip where it is not built."""
    store = component_store()
    try:
        program, ctr, runc = store.program("containerd"), store.program("ctr"), store.program("runc")
    except HostNotReadyError as error:
        pytest.skip(error.detail)
    configuration = folder / "config.toml"
    configuration.write_text(
        f'version = 3\nroot = "{folder / "root"}"\nstate = "{folder / "state"}"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"]\n'
        f'[grpc]\naddress = "{folder / "sock"}"\n'
    )
    process = subprocess.Popen(
        [*NOT_LONGER_THAN_US, str(program), "--config", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "sock").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        yield Containerd((str(ctr), "--address", str(folder / "sock")), runc)
    finally:
        process.terminate()
        process.wait(60)
        _unmount_below(folder)


def _unmount_below(folder: Path) -> None:
    """Take away what a containerd that was killed while it unpacked has left mounted."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((place for place in mounted if place.startswith(f"{folder}/")), reverse=True):
        run("umount", "--lazy", place)
