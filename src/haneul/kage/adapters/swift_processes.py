"""Swift's parts as processes of this one: the kernel kills them when it ends, however that happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from haneul.kage.adapters import swift_commands
from haneul.kage.model import Part

_END_SECONDS: Final = 10.0
_SHOWN: Final = 2000


class SwiftProcesses:
    """Runs parts with an interpreter and ``swift_run.py``; each has a log of its own.

    ``etc`` is the folder of Swift's configuration, ``logs`` is made when it is missing.
    """

    def __init__(self, command: Sequence[str], *, etc: Path, logs: Path) -> None:
        self._command, self._etc, self._logs = tuple(command), etc, logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def make_rings(self, described: Mapping[str, Any]) -> None:
        """Make them with Swift's own builder."""
        await swift_commands.make_rings(self._command, self._etc, described)

    async def start(self, parts: Sequence[Part]) -> None:
        """Start each in a session of its own, so that a terminal's Ctrl-C does not end it before its proxy."""
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            if not self._running(part):
                self._begin(part)

    async def ended(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Ask their processes."""
        return [part for part in parts if not self._running(part)]

    async def stop(self, parts: Sequence[Part], *, at_once: bool = False) -> None:
        """Signal all, then wait for all; who does not end in time is killed."""
        ending = [self._processes.pop(part.name) for part in parts if part.name in self._processes]
        for process in ending:
            _signal(process, signal.SIGKILL if at_once else signal.SIGTERM)
        for process in ending:
            try:
                await asyncio.to_thread(process.wait, _END_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                await asyncio.to_thread(process.wait)

    def said(self, part: Part) -> str:
        """Return the end of its log."""
        path = self._log(part)
        return path.read_text(errors="replace")[-_SHOWN:] if path.exists() else ""

    def _begin(self, part: Part) -> None:
        descriptor = os.open(self._log(part), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._processes[part.name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *swift_commands.of_part(self._command, self._etc, part)],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    def _running(self, part: Part) -> bool:
        process = self._processes.get(part.name)
        return process is not None and process.poll() is None

    def _log(self, part: Part) -> Path:
        return self._logs / f"{part.name}.log"


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a part's whole group, which it is the head of: updaters have children for each pass."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
