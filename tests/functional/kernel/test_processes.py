"""Signals by pidfd against real processes: exactly those that are meant get them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from haneul.kernel import processes
from haneul.kernel.clock import SystemClock
from haneul.kernel.processes import Found, Group
from haneul.kernel.waiting import wait_for

CLOCK = SystemClock()
#: Ends at once, and leaves another one in its group that says its number.
LEAVES_ONE = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid, flush=True)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def found(process: subprocess.Popen[bytes]) -> Found:
    one = processes.find(process.pid)
    assert one is not None
    return one


def test_a_killed_process_is_gone_also_while_its_parent_has_not_noticed(sleeper: subprocess.Popen[bytes]) -> None:
    one = found(sleeper)
    assert one.alive
    processes.send([one], signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not one.alive
    processes.send([one], signal.SIGKILL)


async def test_a_frozen_process_gets_no_processor_until_it_is_thawed(sleeper: subprocess.Popen[bytes]) -> None:
    one = found(sleeper)
    processes.send([one], signal.SIGSTOP)

    async def stands() -> bool:
        return processes.stopped(one)

    await wait_for(stands, what="the process to stand", timeout=60, clock=CLOCK)
    assert one.alive
    processes.send([one], signal.SIGCONT)

    async def goes_on() -> bool:
        return not processes.stopped(one)

    await wait_for(goes_on, what="the process to go on", timeout=60, clock=CLOCK)


def test_another_process_with_the_same_number_is_not_touched(sleeper: subprocess.Popen[bytes]) -> None:
    other = Found(sleeper.pid, found(sleeper).started - 1)
    assert not other.alive
    processes.send([other], signal.SIGKILL)
    assert sleeper.poll() is None
    assert found(sleeper).alive


def test_processes_are_found_by_what_they_are(sleeper: subprocess.Popen[bytes]) -> None:
    assert processes.all_found([sleeper.pid, os.getpid()], lambda pid: pid == sleeper.pid) == [found(sleeper)]
    assert processes.find(2**22 + 1) is None


def test_who_is_not_meant_gets_no_signal(sleeper: subprocess.Popen[bytes]) -> None:
    assert not processes.send_if(sleeper.pid, signal.SIGKILL, lambda: False)
    assert found(sleeper).alive
    assert processes.send_if(sleeper.pid, signal.SIGKILL, lambda: "time.sleep" in processes.title(sleeper.pid))
    assert sleeper.wait(60) == -signal.SIGKILL
    assert not processes.send_if(sleeper.pid, signal.SIGKILL, lambda: True)


def test_the_number_of_a_thread_is_that_of_no_process() -> None:
    """kill(2) with it would end the process that the thread is of: this one."""
    goes_on = threading.Event()
    thread = threading.Thread(target=goes_on.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert thread.native_id != os.getpid()
        assert processes.title(thread.native_id)
        assert not processes.send_if(thread.native_id, signal.SIGTERM, lambda: True)
    finally:
        goes_on.set()
        thread.join()


async def test_a_group_ends_with_what_its_head_has_left() -> None:
    with (
        subprocess.Popen(  # noqa: ASYNC220 - it ends by itself
            [sys.executable, "-c", LEAVES_ONE], stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as head,
        contextlib.closing(Group(head.pid)) as group,
    ):
        assert head.stdout is not None
        left = processes.find(int(head.stdout.readline()))
        assert head.wait(60) == 0
        assert left is not None
        assert left.alive
        group.send(signal.SIGKILL)

        async def gone() -> bool:
            return not left.alive

        await wait_for(gone, what="what was left to end", timeout=60, clock=CLOCK)
        # Nobody is in it any more, and its number may be anybody's.
        group.send(signal.SIGKILL)


def test_a_group_of_a_number_that_somebody_else_has_now_is_left_alone(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel has no signal for a group by pidfd, and the head had ended before it could be held."""
    monkeypatch.setattr(processes, "_open", lambda pid: None)
    begun = found(sleeper).started
    with monkeypatch.context() as before:
        before.setattr(processes, "started", lambda pid: begun - 1)
        group = Group(sleeper.pid)
    group.send(signal.SIGKILL)
    assert found(sleeper).alive
    Group(sleeper.pid).send(signal.SIGKILL)
    assert sleeper.wait(60) == -signal.SIGKILL
