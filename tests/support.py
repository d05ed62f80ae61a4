"""Running the command line as a user does, and looking at what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HANEUL = Path(sys.executable).with_name("haneul")
UP_SECONDS = 900.0


def haneul(*arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    completed = subprocess.run(
        [str(HANEUL), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and completed.returncode != 0:
        raise AssertionError(f"haneul {' '.join(arguments)} ended with {completed.returncode}:\n{completed.stderr}")
    return completed


def leftovers() -> list[str]:
    """Return what Haneul left on this host."""
    from haneul.app.installation import this_host
    from haneul.kernel.clock import SystemClock
    from haneul.management import purge

    async def look() -> list[str]:
        installation = await this_host()
        return await purge.leftovers(installation.settings, installation.store.cache, clock=SystemClock())

    return asyncio.run(look())


def kill_when(happened: Callable[[], bool], *arguments: str) -> None:
    """Start a command and kill it without warning as soon as something has happened."""
    process = subprocess.Popen(
        [str(HANEUL), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + UP_SECONDS
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, f"{arguments} ended before it could be killed"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
