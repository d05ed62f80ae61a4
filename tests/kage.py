"""A real object store for tests: OpenStack Swift with three zones on loopback, which ends with its test."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from haneul.app.installation import component_store
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.kage.adapters.swift_http import SwiftHttp
from haneul.kage.adapters.swift_processes import SwiftProcesses
from haneul.kage.model import REGION, KageSettings, Ports
from haneul.kage.store import Kage
from haneul.kernel.clock import SystemClock
from haneul.kernel.progress import SilentProgress
from tests.ports import ports


@contextlib.contextmanager
def running_kage(folder: Path, *, replicate_every: float = 30.0) -> Iterator[Kage]:
    """Run a store until the block ends; who loses zones lets copies come together more often."""
    components = component_store()
    asyncio.run(components.build(["swift"], SilentProgress()))
    settings = KageSettings(
        folder, getpass.getuser(), Ports(*ports(5)), part_power=5, replicate_every=replicate_every, zones=3
    )
    command = components.python_command("swift", "swift_run.py")
    processes = SwiftProcesses(command, etc=settings.etc, logs=folder / "logs")
    kage = Kage(settings, processes, SwiftHttp(settings), clock=SystemClock())
    try:
        asyncio.run(kage.start())
        yield kage
    finally:
        asyncio.run(kage.stop())
    assert _left_behind(folder) == []


def bucket_of(kage: Kage, name: str) -> ObjectSettings:
    """Make a bucket, and return what a hub needs to use it."""
    asyncio.run(kage.make_bucket(name))
    secrets = kage.secrets
    return ObjectSettings(
        endpoint=kage.settings.endpoint,
        bucket=name,
        region=REGION,
        access_key_id=secrets.access_key_id,
        secret_access_key=SecretStr(secrets.secret_key),
    )


def objects(kage: Kage, zone: int) -> set[str]:
    """Return the objects that a zone has, each by its place and time."""
    disk = kage.settings.disk(zone)
    return {str(path.relative_to(disk)) for path in disk.glob("objects/*/*/*/*.data")}


def _left_behind(folder: Path) -> list[str]:
    """Return processes that name the store's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            told = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{folder}/" in told:
                found.append(told)
    return found
