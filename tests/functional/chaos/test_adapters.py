"""What breaks things, against real processes, a real network namespace and a real small disk of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from haneul.chaos.adapters import packets
from haneul.chaos.adapters.journal import Journal
from haneul.chaos.adapters.volumes import SmallDisk
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from tests.namespaces import cable, inside, listener, namespace, reaches

CLOCK = SystemClock()
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces and mounts")


@contextlib.contextmanager
def living_in(place: str) -> Iterator[int]:
    """A process whose network is a namespace."""
    command = ["nsenter", f"--net=/run/netns/{place}", "sleep", "600"]
    with subprocess.Popen(command) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@root_only
async def test_a_namespace_is_cut_off_from_the_masters_and_from_nobody_else() -> None:
    with namespace("hc-node"), namespace("hc-masters"), namespace("hc-friend"):
        cable("hc-node", "10.255.1.1/24", "hc-masters", "10.255.1.2/24", name="masters")
        cable("hc-node", "10.255.2.1/24", "hc-friend", "10.255.2.2/24", name="friend")
        with (
            listener("hc-masters", "10.255.1.2", 6443),
            listener("hc-friend", "10.255.2.2", 80),
            listener("hc-node", "10.255.1.1", 10250),
            living_in("hc-node") as pid,
        ):

            async def there() -> bool:
                return Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/run/netns/hc-node").stat().st_ino

            await wait_for(there, what="the process to be in its namespace", timeout=60, clock=CLOCK)
            assert reaches("hc-node", "10.255.1.2", 6443)
            await packets.cut(pid, ["10.255.1.2"])
            await packets.cut(pid, ["10.255.1.2"])
            assert await packets.is_cut(pid)
            assert not reaches("hc-node", "10.255.1.2", 6443)
            assert not reaches("hc-masters", "10.255.1.1", 10250)
            assert reaches("hc-node", "10.255.2.2", 80)
            await packets.mend(pid)
            await packets.mend(pid)
            assert not await packets.is_cut(pid)
            assert reaches("hc-node", "10.255.1.2", 6443)
            assert reaches("hc-masters", "10.255.1.1", 10250)
            assert packets.TABLE not in inside("hc-node", "nft", "list", "tables").stdout
    # Not even while it was there was it anywhere else.
    assert not await packets.is_cut(os.getpid())


def test_only_addresses_get_into_the_rule_set() -> None:
    assert "10.0.0.1, 10.0.0.2" in packets.cutting(["10.0.0.2", "10.0.0.1", "10.0.0.2"])
    with pytest.raises(ValueError, match="flush ruleset"):
        packets.cutting(["10.0.0.1; flush ruleset"])


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[SmallDisk]:
    small = SmallDisk(tmp_path / "images" / "disk.img", tmp_path / "folder", mib=16)
    await small.make()
    await small.mount()
    yield small
    await small.remove()


def loops() -> set[str]:
    return {path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")}


@root_only
async def test_a_full_disk_refuses_what_is_written_until_it_is_emptied(disk: SmallDisk) -> None:
    file = disk.folder / "data"
    file.write_bytes(b"x" * 1000)
    await disk.fill()
    assert disk.ballast.exists()
    with pytest.raises(OSError) as refused, file.open("ab", buffering=0) as handle:
        for _ in range(64):
            handle.write(os.urandom(1 << 16))
    assert refused.value.errno == errno.ENOSPC
    await disk.fill()
    await disk.empty()
    await disk.empty()
    with file.open("ab", buffering=0) as handle:
        assert handle.write(os.urandom(1 << 20)) == 1 << 20


@root_only
async def test_a_small_disk_is_another_file_system_and_leaves_nothing(disk: SmallDisk) -> None:
    assert disk.folder.stat().st_dev != disk.folder.parent.stat().st_dev
    assert str(disk.image) in loops()
    with (disk.folder / "open").open("w"):
        await disk.unmount()
        await disk.unmount()
        assert disk.folder.stat().st_dev == disk.folder.parent.stat().st_dev
    await disk.remove()
    assert not disk.image.exists()
    await disk.remove()

    async def freed() -> bool:
        return not any(str(disk.image) in backing for backing in loops())

    await wait_for(freed, what="the loop device to be free", timeout=60, clock=CLOCK)


def test_the_journal_knows_what_was_begun_and_not_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "chaos")
    assert journal.open() == {}
    journal.begin("node-cut-off", {"kind": "cut", "pid": 7, "started": 1})
    journal.begin("disk", {"kind": "disk", "image": "a", "folder": "b"})
    assert Journal(tmp_path / "chaos").open()["node-cut-off"]["pid"] == 7
    journal.end("node-cut-off")
    journal.end("node-cut-off")
    assert list(journal.open()) == ["disk"]
    with pytest.raises(ValueError, match="no name"):
        journal.begin("../escape", {})


async def test_the_flood_ends_when_it_is_ended_and_its_access_stands_in_no_argument(tmp_path: Path) -> None:
    from haneul.chaos.adapters.flood import from_json, to_json
    from haneul.kernel.kube import KubeAccess

    access = KubeAccess("http://127.0.0.1:9", b"authority", b"certificate", b"key")
    assert from_json(to_json(access)) == access
    asked = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    file = tmp_path / "access"
    file.write_text(to_json(KubeAccess(f"http://127.0.0.1:{port}", b"", b"", b"")))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "haneul.chaos.adapters.flood", str(file), "2", stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            await asked.wait()
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
        server.close()
