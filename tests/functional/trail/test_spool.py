"""The folder of ModSecurity's files: who may write when, how much, and what of it is read."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haneul.kernel.clock import VirtualClock
from haneul.kernel.process import run
from haneul.trail.adapters.memory_folder import abandoned_mounts, clear_abandoned, mount_memory, unmount_memory
from haneul.trail.adapters.spool import Spool

MOUNT_SECONDS = 60.0
START = datetime(2026, 11, 27, 21, 30, 40, tzinfo=UTC)


def opened(folder: Path, clock: VirtualClock, *, room: int = 1 << 20) -> Spool:
    spool = Spool(folder / "spool", user="", room=room, clock=clock)
    spool.prepare()
    return spool


def minute(folder: Path, moment: datetime) -> Path:
    local = moment.astimezone()
    return folder / "spool" / f"{local:%Y%m%d}" / f"{local:%Y%m%d-%H%M}"


def test_what_was_written_is_taken_once_the_oldest_first(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    spool = opened(tmp_path, clock)
    for name in ("c", "a", "b"):
        (minute(tmp_path, START) / name).write_text(f'{{"{name}": 1}}')
    (minute(tmp_path, START + timedelta(minutes=1)) / "0").write_text("{}\n")
    taken = spool.take(3)
    assert [one.content for one in taken.written] == [b'{"a": 1}', b'{"b": 1}', b'{"c": 1}']
    assert taken.more
    assert [one.content for one in spool.take(3).written] == [b"{}\n"]
    assert not spool.take(3).written


def test_a_file_that_is_not_whole_is_waited_for_and_then_counted(tmp_path: Path) -> None:
    clock = VirtualClock(datetime.now(UTC))
    spool = opened(tmp_path, clock)
    file = minute(tmp_path, clock.now()) / "a"
    file.write_text('{"a"')
    assert spool.take(9).lost == 0
    assert file.exists()
    clock.advance(30)
    assert spool.take(9).lost == 1
    assert not file.exists()


def test_only_this_minute_and_the_next_are_open(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    spool = opened(tmp_path, clock)
    assert minute(tmp_path, START).is_dir()
    assert minute(tmp_path, START + timedelta(minutes=1)).is_dir()
    assert not minute(tmp_path, START + timedelta(minutes=2)).exists()
    clock.advance(60)
    spool.tend()
    assert minute(tmp_path, START + timedelta(minutes=2)).is_dir()
    # Requests that began then may still end.
    assert minute(tmp_path, START).is_dir()
    clock.advance(3700)
    spool.tend()
    assert not minute(tmp_path, START).exists()


def test_it_is_shut_while_there_is_too_much_and_opened_at_the_half(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    spool = opened(tmp_path, clock, room=1000)
    folder = minute(tmp_path, START)
    for name in "abcd":
        (folder / name).write_text("{" + "x" * 298 + "}")
    spool.tend()
    assert not folder.stat().st_mode & 0o222
    if os.geteuid() == 0:
        assert not folder.stat().st_mode & 0o777
    assert len(spool.take(2).written) == 2
    spool.tend()
    assert not folder.stat().st_mode & 0o222
    assert len(spool.take(9).written) == 2
    spool.tend()
    assert folder.stat().st_mode & 0o700 == 0o700


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    """A worker that was taken over may leave anything in its minute; whoever reads may be root."""
    clock = VirtualClock(START)
    spool = opened(tmp_path, clock)
    (tmp_path / "secret").write_text('{"key": 1}')
    folder = minute(tmp_path, START)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "zz").write_text("{}")
    taken = spool.take(9)
    assert [one.content for one in taken.written] == [b"{}"]
    assert not taken.lost
    clock.advance(3700)
    spool.tend()
    assert not folder.exists()
    assert (tmp_path / "secret").exists()


def test_minutes_are_of_a_user_without_a_name(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    spool = Spool(tmp_path / "spool", user=1_900_000_001, room=1 << 20, clock=VirtualClock(START))
    spool.prepare()
    owned = minute(tmp_path, START).stat()
    assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o777) == (1_900_000_001, 1_900_000_001, 0o700)
    assert (tmp_path / "spool").stat().st_uid == 0


async def test_a_folder_in_memory_has_its_size(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = tmp_path / "memory"
    if not await mount_memory(folder, 1 << 20):
        pytest.skip("nothing can be mounted here")
    try:
        assert await mount_memory(folder, 1 << 20)
        with pytest.raises(OSError, match="No space"), (folder / "a").open("wb") as file:
            for _ in range(3):
                file.write(b"x" * (1 << 20))
    finally:
        await unmount_memory(folder)
    assert not folder.is_mount()
    await unmount_memory(folder)


async def test_a_folder_in_memory_gets_another_size_and_keeps_what_it_has(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = tmp_path / "a folder in memory"
    if not await mount_memory(folder, 1 << 20):
        pytest.skip("nothing can be mounted here")
    try:
        before = os.statvfs(folder)
        (folder / "a").write_bytes(b"x" * (1 << 19))
        for size in (1 << 23, 1 << 20):
            assert await mount_memory(folder, size)
            now = os.statvfs(folder)
            assert (now.f_blocks * now.f_frsize, now.f_flag) == (size, before.f_flag)
        # It has more in it than that.
        assert await mount_memory(folder, 1 << 18)
        assert os.statvfs(folder).f_blocks == before.f_blocks
        assert (folder / "a").stat().st_size == 1 << 19
        # Who takes it over is known as who mounted it was.
        assert await clear_abandoned(tmp_path) == []
    finally:
        await unmount_memory(folder)
    assert not folder.is_mount()


async def test_a_file_system_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    mounted = await run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "somebody", str(tmp_path)], timeout=MOUNT_SECONDS, check=False
    )
    if mounted.status != 0:
        pytest.skip("nothing can be mounted here")
    try:
        assert await mount_memory(tmp_path, 1 << 23)
        there = os.statvfs(tmp_path)
        assert there.f_blocks * there.f_frsize == 1 << 20
    finally:
        await unmount_memory(tmp_path)


async def test_what_a_killed_process_mounted_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    own, theirs = tmp_path / "own", tmp_path / "a folder of theirs"
    if not await mount_memory(own, 1 << 20):
        pytest.skip("nothing can be mounted here")
    mounting = (
        "import asyncio, sys; from pathlib import Path; from haneul.trail.adapters.memory_folder import mount_memory;"
        "print(asyncio.run(mount_memory(Path(sys.argv[1]), 1 << 20)), flush=True); sys.stdin.read()"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", mounting, str(theirs), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert other.stdout
        assert await asyncio.wait_for(other.stdout.readline(), 120) == b"True\n"
        assert await clear_abandoned(tmp_path) == []
        assert (own.is_mount(), theirs.is_mount()) == (True, True)
        other.kill()
        await other.wait()
        # Tests that begin beside this one clear such folders too.
        await clear_abandoned(tmp_path)
        assert (own.is_mount(), theirs.is_mount()) == (True, False)
    finally:
        if other.returncode is None:
            other.kill()
            await other.wait()
        await unmount_memory(own)
        await unmount_memory(theirs)


def test_mounts_of_processes_that_are_gone_are_found() -> None:
    # No process has a number so large (proc(5), pid_max).
    gone, common = (1 << 22) + 1, "36 25 0:31 / {} rw,nosuid - tmpfs {} rw,size=1024k"
    lines = [
        common.format("/tmp/one\\040of/spool", f"haneul-trail-{gone}"),
        common.format("/tmp/living", f"haneul-trail-{os.getpid()}"),
        common.format("/tmp/others", "tmpfs"),
        common.format("/var/elsewhere", f"haneul-trail-{gone}"),
    ]
    assert list(abandoned_mounts("\n".join(lines), Path("/tmp"))) == [Path("/tmp/one of/spool")]
