"""The end of processes that tests started."""

from __future__ import annotations

import subprocess
from typing import Any

_SECONDS = 60


def kill_all(*processes: subprocess.Popen[Any]) -> None:
    """End processes at once, in their order."""
    for process in processes:
        process.kill()
        process.wait(_SECONDS)


def end_all(*processes: subprocess.Popen[Any]) -> None:
    """Ask processes to end, in their order, and kill those that do not in time."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_SECONDS)
