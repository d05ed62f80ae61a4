"""A stand-in for systemd, which cannot be run beside another process 1: ``systemctl`` on real processes.

It knows what the adapter uses: units are loaded when they are first asked for and by ``daemon-reload``, and what is
started is started by what is loaded, whatever the file says by then (systemctl(1), ``NeedDaemonReload``).
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from haneul.kernel.errors import CommandFailedError
from haneul.kernel.process import Completed


class SystemdStandIn:
    """``units`` is the folder of unit files; ``calls`` are the arguments of each call."""

    def __init__(self, units: Path) -> None:
        self._units = units
        self._loaded: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.calls: list[tuple[str, ...]] = []

    async def run(self, argv: Sequence[str], *, timeout: float) -> Completed:  # noqa: ASYNC109 - as the real one
        """Do what ``systemctl`` would, as :func:`haneul.kernel.process.run` runs it."""
        assert argv[0] == "systemctl"
        verb, *words = argv[1:]
        self.calls.append(tuple(argv[1:]))
        units = [word for word in words if not word.startswith("--")]
        for unit in units:
            self._load(unit)
        said = ""
        if verb == "daemon-reload":
            self._loaded = {unit: self._text(unit) for unit in self._loaded if (self._units / unit).exists()}
        elif verb == "start":
            self._start(*units)
        elif verb == "stop" or (verb == "disable" and "--now" in words):
            self._stop(*units)
        elif verb == "show":
            said = "\n".join(self._shown(unit) for unit in units)
        else:
            assert verb == "enable", f"the stand-in knows no {verb}"
        return Completed(0, said, "")

    def end(self) -> None:
        """End everything that runs."""
        self._stop(*self._processes)

    def _text(self, unit: str) -> str:
        return (self._units / unit).read_text()

    def _load(self, unit: str) -> None:
        if unit not in self._loaded:
            if not (self._units / unit).exists():
                raise CommandFailedError(f"Unit {unit} could not be found.")
            self._loaded[unit] = self._text(unit)

    def _start(self, unit: str) -> None:
        if self._runs(unit):
            return
        lines = [line.partition("=") for line in self._loaded[unit].splitlines()]
        command = next(value for name, _, value in lines if name == "ExecStart")
        told = [shlex.split(value)[0].partition("=") for name, _, value in lines if name == "Environment"]
        self._processes[unit] = subprocess.Popen(
            shlex.split(command.replace("%%", "%").replace("$$", "$")),
            env={**os.environ, **{name: value for name, _, value in told}},
        )

    def _stop(self, *units: str) -> None:
        for unit in units:
            if (process := self._processes.get(unit)) is not None:
                process.kill()
                process.wait(60)

    def _runs(self, unit: str) -> bool:
        return unit in self._processes and self._processes[unit].poll() is None

    def _shown(self, unit: str) -> str:
        runs, old = self._runs(unit), self._loaded[unit] != self._text(unit)
        return (
            f"Id={unit}\nActiveState={'active' if runs else 'inactive'}\n"
            f"MainPID={self._processes[unit].pid if runs else 0}\nNeedDaemonReload={'yes' if old else 'no'}\n"
        )
