"""HAProxy as a load balancer: one process on this machine that outlives whoever tells it what to do.

What is to be served lies in ``frontends.json`` in its folder, written whole and at once; its configuration follows
from that, and HAProxy follows from its configuration. Each call first brings the three together, so whoever was killed
between two of them is gone on from. A lock in the folder is held meanwhile, as several clusters' controllers may use
the same HAProxy.

- Members come and go by the runtime API, with no reload. One that leaves is drained: no new connections; when it has
  none left, or its time is over, it is taken away, and what it still has is cut.
- Other changes are a reload: the master starts a worker with the same sockets, the one before finishes what it has.
  Members' health is handed over, so that one that is down does not count as well until it is asked again.
- A configuration is only used after HAProxy itself has found nothing wrong with it (``haproxy -c``), and a new listener
  only after this process was able to open it.
"""

from __future__ import annotations

import contextlib
import errno
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from haneul.balancer.adapters import pid_files
from haneul.balancer.adapters.haproxy_configuration import (
    Process,
    digest,
    member_of,
    name_of,
    render,
)
from haneul.balancer.adapters.haproxy_members import leaves, orders
from haneul.balancer.adapters.haproxy_socket import ask, comma_table, field, order, table
from haneul.balancer.adapters.listeners import refusal, trial
from haneul.balancer.adapters.truth import Truth
from haneul.balancer.changes import carried_out
from haneul.balancer.model import (
    Abilities,
    Change,
    Frontends,
    Listener,
    ListenerRefusedError,
    Member,
    MemberHealth,
    MemberState,
    Protocol,
)
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError, DeadlineExceededError, InvalidInputError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for

_PROGRAM: Final = "haproxy"
_CHECK_SECONDS, _START_SECONDS = 30.0, 30.0
#: A worker that was told to stop lets go of its listeners by when the next one is so old.
_FREE_SECONDS: Final = 5
_TRIES: Final = 10
_PAUSE: Final = 0.05


@dataclass(frozen=True)
class _Drawing:
    """A configuration, and what tells whether HAProxy has to read it again."""

    text: str
    digest: str


class HaproxyBalancer:
    """One HAProxy. ``supervised`` says that somebody else starts it; else it is started here if it does not run.

    ``shared`` says that its addresses come and go, as another machine may have them.
    """

    def __init__(self, process: Process, *, clock: Clock, supervised: bool = False, shared: bool = False) -> None:
        self._process = process
        self._clock = clock
        self._supervised = supervised
        self._shared = shared
        self._truth = Truth(process.folder)
        #: What was drawn last: with many frontends that is work.
        self._drawn: tuple[Frontends, _Drawing] | None = None

    @property
    def name(self) -> str:
        """Return where it is."""
        return f"HAProxy in {self._process.folder}"

    @property
    def abilities(self) -> Abilities:
        """Return that it does TCP alone."""
        return Abilities(protocols=frozenset({Protocol.TCP}))

    async def read(self) -> Frontends:
        """Return what is served, after bringing about that it is."""
        async with self._truth.locked():
            present = self._truth.load()
            await self._settle(present)
            return present

    async def prepare(self) -> None:
        """Write down what whoever supervises HAProxy starts it with."""
        async with self._truth.locked():
            present = self._truth.load()
            await self._check_configuration(present)
            self._write_configuration(present)

    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        """Check, write down, and bring about; what HAProxy could not listen for is written down as it was before."""
        async with self._truth.locked():
            before = self._truth.load()
            after = carried_out(before, owner, changes)
            if after == before:
                await self._settle(before)
                return
            new = [listener for listener in after if listener not in before]
            await self._check_listeners(new)
            await self._hasten(before, after)
            await self._check_configuration(after)
            self._store(after)
            try:
                await self._settle(after)
            except UnavailableError:
                # Somebody may have taken the place since it was looked at.
                try:
                    await self._check_listeners(new)
                except ListenerRefusedError:
                    self._store(before)
                    await self._settle(before)
                    raise
                raise

    async def tend(self) -> None:
        """Take away the members that have left for good."""
        async with self._truth.locked():
            present = self._truth.load()
            await self._settle(present)
            await self._end_due(present)

    async def health(self) -> Mapping[Listener, Mapping[Member, MemberHealth]]:
        """Ask for its statistics."""
        async with self._truth.locked():
            present = self._truth.load()
            await self._settle(present)
            rows = comma_table(await ask(self._process.worker, "show stat -1 4 -1"))
        names = {name_of(listener): listener for listener in present}
        found: dict[Listener, dict[Member, MemberHealth]] = {listener: {} for listener in present}
        for row in rows:
            listener = names[row["pxname"]]
            member = member_of(row["svname"])
            there = member in present[listener].frontend.members
            state = MemberState.UP if row["status"].startswith("UP") else MemberState.DOWN
            found[listener][member] = MemberHealth(state if there else MemberState.LEAVING, int(row["scur"]))
        return found

    async def close(self) -> None:
        """Nothing is open; HAProxy goes on."""

    async def end(self) -> None:
        """Let the HAProxy that was started here end at once, with all its connections; for tests and measurements."""
        file = self._process.folder / "haproxy.pid"
        ended = pid_files.number(file, self._process.configuration)
        if not pid_files.send(file, self._process.configuration, signal.SIGTERM):
            return

        async def is_gone() -> bool:
            # A controller that goes on starts another one at once.
            return pid_files.number(file, self._process.configuration) != ended

        await wait_for(is_gone, what="HAProxy to end", timeout=_START_SECONDS, clock=self._clock)

    def _store(self, present: Frontends) -> None:
        self._truth.store(present)
        self._write_configuration(present)

    def _write_configuration(self, present: Frontends) -> None:
        write_atomically(self._process.configuration, self._drawing(present).text, mode=0o600)

    def _drawing(self, present: Frontends) -> _Drawing:
        if self._drawn is None or self._drawn[0] is not present:
            self._drawn = (present, _Drawing(render(present, self._process), digest(present, self._process)))
        return self._drawn[1]

    async def _hasten(self, before: Frontends, after: Frontends) -> None:
        """Let members go at once if nothing else changes: each moment later is one in which they are given connections.

        Whoever is killed between this and the writing down has not changed anything: what is written down comes back.
        """
        wanted = self._drawing(before).digest
        if wanted == self._drawing(after).digest and await self._description() == wanted:
            await self._align(after)

    async def _check_listeners(self, listeners: Iterable[Listener]) -> None:
        """Open what is new for a moment. Raises ListenerRefusedError."""
        for listener in sorted(listeners):
            if listener.protocol is not Protocol.TCP:
                raise ListenerRefusedError(f"HAProxy cannot listen at {listener}", listener=listener)
            while error := trial(listener, anywhere=self._shared):
                if error.errno != errno.EADDRINUSE or not await self._is_young():
                    raise refusal(listener, error)
                await self._clock.sleep(_PAUSE)

    async def _is_young(self) -> bool:
        """Say whether HAProxy began anew so lately that the worker before may not have let go of everything."""
        with contextlib.suppress(UnavailableError):
            uptime = field(await ask(self._process.worker, "show info"), "Uptime_sec")
            return uptime.isdecimal() and int(uptime) < _FREE_SECONDS
        return False

    async def _check_configuration(self, present: Frontends) -> None:
        """Let HAProxy read what it is to be. Raises InvalidInputError."""
        candidate = self._process.folder / "haproxy.cfg.new"
        write_atomically(candidate, self._drawing(present).text, mode=0o600)
        try:
            await run([_PROGRAM, "-c", "-q", "-f", str(candidate)], timeout=_CHECK_SECONDS)
        except CommandFailedError as error:
            raise InvalidInputError(
                f"HAProxy does not take its configuration: {error.detail}", hint=f"it is in {candidate}"
            ) from error
        candidate.unlink()

    async def _settle(self, present: Frontends) -> None:
        """Bring configuration and HAProxy to what is written down."""
        drawing = self._drawing(present)
        configuration = self._process.configuration
        if not configuration.exists() or configuration.read_text() != drawing.text:
            await self._check_configuration(present)
            self._write_configuration(present)
        wanted = drawing.digest
        described = await self._description()
        if described is None:
            # The master answers nobody for a moment while it begins anew; a second one beside it would never be found.
            if self._lives():
                raise UnavailableError(f"{self.name} runs and does not answer", hint=_LOOK)
            await self._start()
        elif described != wanted:
            await self._reload()
        if described != wanted:
            await self._until_described(wanted)
        await self._align(present)

    async def _description(self) -> str | None:
        """Return the digest of what HAProxy runs with; None if it does not answer, nothing if only its master does."""
        with contextlib.suppress(UnavailableError):
            return field(await ask(self._process.worker, "show info"), "description")
        with contextlib.suppress(UnavailableError):
            await self._ask_master("show proc")
            return ""
        return None

    async def _ask_master(self, command: str) -> str:
        """Ask the process that outlives reloads; as long as it lives, again while it begins anew."""
        deadline = self._clock.monotonic() + _START_SECONDS
        while True:
            try:
                return await ask(self._process.master, command)
            except UnavailableError:
                if not self._lives() or self._clock.monotonic() > deadline:
                    raise
            await self._clock.sleep(_PAUSE)

    def _lives(self) -> bool:
        """Say whether the process that was started here is there still."""
        return pid_files.lives(self._process.folder / "haproxy.pid", self._process.configuration)

    async def _until_described(self, wanted: str) -> None:
        async def is_so() -> bool:
            with contextlib.suppress(UnavailableError):
                return field(await ask(self._process.worker, "show info"), "description") == wanted
            return False

        try:
            await wait_for(
                is_so,
                what=f"{self.name} to take its configuration",
                timeout=_START_SECONDS,
                clock=self._clock,
                interval=_PAUSE,
            )
        except DeadlineExceededError as error:
            raise UnavailableError(f"{self.name} did not take its configuration", hint=_LOOK) from error

    async def _start(self) -> None:
        if self._supervised:
            raise UnavailableError(f"{self.name} does not run", hint="what supervises it has to start it")
        process = self._process
        # What was known of members before is of another time.
        write_atomically(process.state, "", mode=0o600)
        command = [_PROGRAM, "-W", "-D", "-q", "-S", f"{process.master},mode,600,level,admin"]
        try:
            await run(
                [*command, "-p", str(process.folder / "haproxy.pid"), "-f", str(process.configuration)],
                timeout=_START_SECONDS,
            )
        except CommandFailedError as error:
            raise UnavailableError(f"{self.name} does not start: {error.detail}", hint=_LOOK) from error

    async def _reload(self) -> None:
        with contextlib.suppress(UnavailableError):
            write_atomically(self._process.state, await ask(self._process.worker, "show servers state"), mode=0o600)
        await self._ask_master("reload")

    async def _align(self, present: Frontends) -> None:
        """Bring members to what is written down, by orders; look again until nothing differs."""
        said = ""
        for _ in range(_TRIES):
            wanted = orders(present, await self._servers())
            if not wanted:
                return
            said = await order(self._process.worker, wanted)
            if not orders(present, await self._servers()):
                return
            await self._clock.sleep(_PAUSE)
        raise UnavailableError(f"{self.name} does not take its members: {said[:500]}", hint=_LOOK)

    async def _servers(self) -> list[dict[str, str]]:
        return table(await ask(self._process.worker, "show servers state"))

    async def _end_due(self, present: Frontends) -> None:
        leaving = {
            f"{row['be_name']}/{row['srv_name']}": int(row["srv_time_since_last_change"])
            for row in await self._servers()
            if leaves(row)
        }
        if not leaving:
            return
        drains = {name_of(listener): there.frontend.options.drain for listener, there in present.items()}
        for row in comma_table(await ask(self._process.worker, "show stat -1 4 -1")):
            server = f"{row['pxname']}/{row['svname']}"
            if server not in leaving:
                continue
            if int(row["scur"]) == 0 or leaving[server] >= drains[row["pxname"]]:
                # One that still has connections after this is deleted the next time.
                await order(
                    self._process.worker,
                    [f"set server {server} state maint", f"shutdown sessions server {server}", f"del server {server}"],
                )


_LOOK: Final = "its log, or 'haproxy -c -f' with the configuration in its folder, says why"
