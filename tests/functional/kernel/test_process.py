"""Programs end in time, as a whole, and say why they failed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path

import pytest

from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import CommandFailedError, DeadlineExceededError, HostNotReadyError
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for


async def test_output_status_and_input() -> None:
    done = await run(["sh", "-c", "cat; echo warned >&2; exit 3"], stdin=b"hello", timeout=60, check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "hello", "warned")


async def test_environment_is_added_to_and_folder_is_the_given_one(tmp_path: Path) -> None:
    done = await run(["sh", "-c", 'pwd; echo "$GIVEN $HOME"'], env={"GIVEN": "1"}, cwd=tmp_path, timeout=60)
    assert done.stdout.splitlines() == [str(tmp_path), f"1 {os.environ.get('HOME', '')}"]


async def test_input_that_nobody_reads_is_no_error() -> None:
    assert (await run(["true"], stdin=b"x" * (1 << 20), timeout=60)).status == 0


async def test_failure_says_which_program_and_the_end_of_what_it_said() -> None:
    with pytest.raises(CommandFailedError) as failure:
        await run(["sh", "-c", "seq 1 100 >&2; exit 4"], timeout=60)
    lines = failure.value.detail.splitlines()
    assert "status 4" in lines[0] and "'sh -c" in lines[0]
    assert lines[1:] == [str(number) for number in range(86, 101)]


async def test_failure_without_errors_shows_the_output() -> None:
    with pytest.raises(CommandFailedError, match="said here"):
        await run(["sh", "-c", "echo said here; exit 1"], timeout=60)


async def test_program_that_is_not_there_is_named() -> None:
    with pytest.raises(HostNotReadyError, match="no-such-program"):
        await run(["no-such-program"], timeout=60)


async def test_lines_are_seen_as_they_come() -> None:
    seen: list[str] = []
    both = asyncio.Event()

    def note(line: str) -> None:
        seen.append(line)
        if len(seen) == 2:
            both.set()

    task = asyncio.create_task(run(["sh", "-c", "echo a >&2; echo b >&2; read x"], timeout=60, on_line=note))
    # The program still runs: its input is closed only for `read`, so it may have ended, but the lines came first.
    await asyncio.wait_for(both.wait(), 60)
    assert seen == ["a", "b"]
    await asyncio.gather(task, return_exceptions=True)


async def test_error_of_who_sees_the_lines_ends_the_program(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="seen"):
        await run(["sh", "-c", "echo $$ > pid; echo seen >&2; sleep 300"], timeout=60, on_line=refuse, cwd=tmp_path)
    await _gone(int((tmp_path / "pid").read_text()))


async def test_a_very_long_line_is_no_error() -> None:
    done = await run(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2"], timeout=60)
    assert done.stderr.endswith("end")
    assert len(done.stderr) >= 3_000_000


@pytest.mark.parametrize(
    "script",
    [
        "sleep 300 & echo $! > pid; wait",
        # The program itself has ended; what it left holds its output open.
        "sleep 300 & echo $! > pid",
        "trap '' TERM; sleep 300 & echo $! > pid; wait",
    ],
    ids=["child", "orphan", "stubborn"],
)
async def test_whole_group_ends_when_time_is_up(script: str, tmp_path: Path) -> None:
    # A machine that is slow gets more time to come so far that there is something to end.
    for seconds in (0.3, 3.0, 30.0):
        with pytest.raises(DeadlineExceededError, match="did not end within"):
            await run(["sh", "-c", script], timeout=seconds, cwd=tmp_path)
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"):
            break
    await _gone(int((tmp_path / "pid").read_text()))


async def test_whole_group_ends_when_the_caller_is_cancelled(tmp_path: Path) -> None:
    task = asyncio.create_task(run(["sh", "-c", "sleep 300 & echo $! > pid; wait"], timeout=60, cwd=tmp_path))
    pid_file = tmp_path / "pid"

    async def started() -> bool:
        return pid_file.exists() and pid_file.read_text().endswith("\n")

    await wait_for(started, what="the child to start", timeout=60, clock=SystemClock(), interval=0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(int(pid_file.read_text()))


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_while_it_starts_it_ends_too(turns: int) -> None:
    seconds = f"300.{secrets.randbelow(10**9)}"
    task = asyncio.create_task(run(["sh", "-c", f"sleep {seconds} & wait"], timeout=60))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(60):
            await task

    async def gone() -> bool:
        return not [path for path in Path("/proc").glob("[0-9]*/cmdline") if seconds in _content(path)]

    await wait_for(gone, what="the program and what it started to end", timeout=60, clock=SystemClock())


def _content(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


async def _gone(pid: int) -> None:
    """Wait until a process has ended; one that waits to be reaped has."""

    async def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    await wait_for(gone, what=f"process {pid} to end", timeout=60, clock=SystemClock(), interval=0.01)
