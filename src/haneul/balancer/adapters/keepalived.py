"""keepalived on this machine: it gives the machine a balancer's addresses, or leaves them to another one.

As the balancer itself it outlives whoever started it. It is seen to again and again: its configuration is written anew
when it differs, and it is started when it does not run.
"""

from __future__ import annotations

import json
import signal
from typing import Final

from haneul.balancer.adapters import pid_files
from haneul.balancer.adapters.keepalived_configuration import Sharing, file_names, render
from haneul.balancer.adapters.truth import Truth
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for

_SECONDS: Final = 20.0
_PAUSE: Final = 0.05


class Keepalived:
    """One keepalived, whose files are in the balancer's folder, where ``truth`` is."""

    def __init__(self, sharing: Sharing, truth: Truth, *, clock: Clock) -> None:
        self._sharing = sharing
        self._truth = truth
        self._clock = clock
        self._configuration, self._pid, self._vrrp_pid = file_names(truth.folder)

    async def settle(self) -> None:
        """See to it that it runs with its configuration. Raises UnavailableError."""
        text = render(self._sharing)
        async with self._truth.locked():
            known = self._configuration.exists() and self._configuration.read_text() == text
            if not known:
                write_atomically(self._configuration, text, mode=0o600)
            if not self.runs:
                await self._start()
            elif not known:
                pid_files.send(self._pid, self._configuration, signal.SIGHUP)

    async def has_addresses(self) -> bool:
        """Say whether this machine has the addresses now. Raises UnavailableError."""
        words = ["ip", "-j", "address", "show", "dev", self._sharing.device, "to", self._sharing.addresses[0]]
        try:
            done = await run(words, timeout=_SECONDS)
        except CommandFailedError as error:
            raise UnavailableError(f"this machine does not say which addresses it has: {error.detail}") from error
        return any(entry for entry in json.loads(done.stdout or "[]"))

    async def _start(self) -> None:
        # One whose main process was killed leaves the other, which would keep the addresses beside a new one.
        if pid_files.send(self._vrrp_pid, self._configuration, signal.SIGTERM):
            raise UnavailableError("a keepalived without its main process is ending; it is started again after that")
        # What is there is of a dead one; keepalived itself would not tell that from one that is not waited for.
        for file in (self._pid, self._vrrp_pid):
            file.unlink(missing_ok=True)
        files = ["-f", str(self._configuration), "-p", str(self._pid), "-r", str(self._vrrp_pid)]
        try:
            await run(["keepalived", "--vrrp", "--log-detail", *files], timeout=_SECONDS)
        except CommandFailedError as error:
            raise UnavailableError(
                f"keepalived does not start: {error.detail}", hint=f"'keepalived -t -f {self._configuration}' says why"
            ) from error

        async def runs() -> bool:
            return self.runs

        # It goes on by itself, and a second one beside it would never be found.
        await wait_for(runs, what="keepalived to run", timeout=_SECONDS, clock=self._clock, interval=_PAUSE)

    @property
    def runs(self) -> bool:
        """Return whether it runs."""
        return pid_files.lives(self._pid, self._configuration)
