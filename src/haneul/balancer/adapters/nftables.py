"""The kernel of this machine as a load balancer, by rules of nftables in a table of our own.

What is to be served lies in ``frontends.json`` in its folder, as with every balancer on this machine, and what is
known of members beside it. The kernel's rules follow from the two: each call first brings them together, in one
transaction of what differs. They go on when nobody is there, and whoever begins anew finds them as they are.

- Connections are the kernel's, so they outlive every change of the rules. A member that leaves or does not answer is
  no longer in them; when its time is over, or it was found down, what it still has is cut.
- Members are asked whether they are well by whichever process served first, of several on one folder; another one
  goes on when it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock, Timeout

from haneul.balancer.adapters.health_checking import HealthChecker
from haneul.balancer.adapters.listeners import refusal, trial
from haneul.balancer.adapters.member_notes import Notebook, Notes, target_of, targets
from haneul.balancer.adapters.nftables_flows import counted, cut, forget_datagrams
from haneul.balancer.adapters.nftables_rules import STAMP, Kernel, Mode, Piece, piece, stamps, transaction
from haneul.balancer.adapters.truth import Truth
from haneul.balancer.changes import carried_out
from haneul.balancer.model import (
    Abilities,
    Algorithm,
    Change,
    Frontend,
    Frontends,
    Listener,
    ListenerRefusedError,
    Member,
    MemberHealth,
    MemberState,
    Present,
    Protocol,
)
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError, HaneulError, HostNotReadyError, UnavailableError
from haneul.kernel.process import run

_log = structlog.get_logger(__name__)
_SECONDS: Final = 30.0
_PAUSE: Final = 1.0
#: What nft(8) says of a table or chain that is not there.
_MISSING: Final = "No such file or directory"
_SAMPLE: Final = Frontend(Listener("192.0.2.1", Protocol.TCP, 1), "a/b", members=(Member("192.0.2.2", 1),))


class NftablesBalancer:
    """This machine's kernel. ``shared`` says that its addresses come and go, as another machine may have them."""

    def __init__(self, folder: Path, kernel: Kernel, *, clock: Clock, shared: bool = False) -> None:
        self._kernel = kernel
        self._clock = clock
        self._shared = shared
        self._folder = folder
        self._truth = Truth(folder)
        self._notebook = Notebook(folder)
        self._checker = HealthChecker(clock)
        self._turn = FileLock(folder / "checking.lock", thread_local=False)
        self._keeping: asyncio.Task[None] | None = None
        #: What was drawn last for each listener: with many members that is work.
        self._drawn: dict[Listener, tuple[Frontend, tuple[Member, ...], Piece]] = {}

    @property
    def name(self) -> str:
        """Return which table it is."""
        return f"nftables table {self._kernel.place}"

    @property
    def abilities(self) -> Abilities:
        """Return that it sees packets alone: what they carry, and whether a member refuses them, it does not."""
        return Abilities(
            algorithms=frozenset({Algorithm.ROUND_ROBIN, Algorithm.RANDOM, Algorithm.SOURCE}),
            proxy_protocol=False,
            retries=False,
        )

    async def prove(self) -> None:
        """Let the kernel say whether it can do all of it, without doing it. Raises HostNotReadyError."""
        script = transaction([piece(_SAMPLE, _SAMPLE.members, self._kernel)], {}, self._kernel)
        try:
            await run(["nft", "-c", "-f", "-"], timeout=_SECONDS, stdin=script.encode())
        except CommandFailedError as error:
            raise HostNotReadyError(
                f"this machine's kernel cannot balance as {self._kernel.mode}: {error.detail}",
                hint="docs/reference/balancer.md has what it needs; balancing needs root, too",
            ) from error
        if self._kernel.mode is Mode.DNAT and await asyncio.to_thread(_FORWARDING.read_text) == "0\n":
            raise HostNotReadyError(
                "this machine does not forward packets, so they would not get to members",
                hint="set net.ipv4.ip_forward to 1, and net.ipv6.conf.all.forwarding if there are IPv6 addresses",
            )

    async def read(self) -> Frontends:
        """Return what is served, after bringing about that it is."""
        async with self._truth.locked():
            present = self._truth.load()
            await self._settle(present)
            return present

    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        """Check, write down, and bring about; what the kernel does not take is written down as it was before."""
        async with self._truth.locked():
            before = self._truth.load()
            after = carried_out(before, owner, changes)
            noted = self._notebook.load()
            notes = noted.after(before, after, self._clock.now().timestamp())
            self._draw(after, notes)
            self._check_listeners([listener for listener in after if listener not in before])
            # In this order, so that nobody leaves who is not noted: what they have would never be ended.
            self._notebook.store(notes)
            if after != before:
                self._truth.store(after)
            try:
                await self._settle(after)
            except HaneulError:
                self._truth.store(before)
                self._notebook.store(noted)
                raise
        for listener in before.keys() ^ after.keys():
            await forget_datagrams(listener, self._kernel)
        self._keep()

    async def tend(self) -> None:
        """Let go of members that have left for good, and see to it that members are asked."""
        self._keep()
        async with self._truth.locked():
            present = self._truth.load()
            await self._settle(present)
            notes = self._notebook.load()
            # Whoever was killed after noting who leaves, and before writing it down, has let nobody leave.
            leaving = [
                one
                for one in notes.leaving
                if one.listener in present and one.member not in present[one.listener].frontend.members
            ]
            if not leaving:
                return
            found = await counted({one.listener for one in leaving}, {one.member for one in leaving}, self._kernel)
            now = self._clock.now().timestamp()
            ended = []
            for one in leaving:
                due = now - one.since >= present[one.listener].frontend.options.drain
                if due:
                    await cut(one.listener, one.member, self._kernel)
                if due or not found.get((one.listener, one.member)):
                    ended.append(one)
            self._notebook.store(notes.without(ended))

    async def health(self) -> Mapping[Listener, Mapping[Member, MemberHealth]]:
        """Return what is known of members, and what connections the kernel says they have."""
        async with self._truth.locked():
            present = self._truth.load()
            await self._settle(present)
            notes = self._notebook.load()
        everybody = {member for there in present.values() for member in there.frontend.members}
        everybody |= {one.member for one in notes.leaving}
        found = await counted(present, everybody, self._kernel) if present else {}
        states: dict[Listener, dict[Member, MemberState]] = {listener: {} for listener in present}
        for listener, there in present.items():
            for member in there.frontend.members:
                down = target_of(there.frontend, member) in notes.down
                states[listener][member] = MemberState.DOWN if down else MemberState.UP
        for one in notes.leaving:
            if one.listener in states:
                states[one.listener].setdefault(one.member, MemberState.LEAVING)
        return {
            listener: {member: MemberHealth(state, found.get((listener, member), 0)) for member, state in among.items()}
            for listener, among in states.items()
        }

    async def close(self) -> None:
        """Ask members no more; the kernel goes on."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        await self._checker.end()
        self._turn.release(force=True)

    async def end(self) -> None:
        """Take our table out of the kernel; for tests and measurements."""
        await self._nft(f"add table {self._kernel.place}\ndelete table {self._kernel.place}\n")

    def _keep(self) -> None:
        """Begin to see to members, if that was not begun yet; where it runs already, look at them now."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep_asking())
        self._checker.news.set()

    async def _keep_asking(self) -> None:
        while True:
            try:
                await self._ask()
            except HaneulError as error:
                _log.warning("members are not looked after; tried again", balancer=self.name, detail=error.detail)
                await self._clock.sleep(_PAUSE)
            with contextlib.suppress(TimeoutError):
                # What other processes have changed is seen so, and what a process that is gone did not do any more.
                async with asyncio.timeout(_PAUSE):
                    await self._checker.news.wait()
            self._checker.news.clear()

    async def _ask(self) -> None:
        """Ask the members that there are, and act on what they have answered; one process of several does."""
        if not self._turn.is_locked:
            try:
                self._turn.acquire(blocking=False)
            except Timeout:
                return
        noted = self._notebook.load()
        self._checker.follow(targets(self._truth.load()), noted.down)
        turned = {target: up for target, up in self._checker.verdicts.items() if up is (target in noted.down)}
        if not turned:
            return
        async with self._truth.locked():
            present = self._truth.load()
            notes = self._notebook.load().turned(turned).among(targets(present))
            self._notebook.store(notes)
            await self._settle(present)
        await self._cut_down(present, [target for target in turned if target in notes.down])

    async def _cut_down(self, present: Frontends, down: Sequence[object]) -> None:
        """End the connections of members that were found down: nobody would answer them."""
        hit = [
            (listener, member)
            for listener, there in present.items()
            for member in there.frontend.members
            if target_of(there.frontend, member) in down
        ]
        if not hit:
            return
        found = await counted({listener for listener, _ in hit}, {member for _, member in hit}, self._kernel)
        for listener, member in hit:
            if found.get((listener, member)):
                await cut(listener, member, self._kernel)

    def _check_listeners(self, listeners: Sequence[Listener]) -> None:
        """Open what is new for a moment. Raises ListenerRefusedError."""
        for listener in sorted(listeners):
            if self._kernel.mode is Mode.DIRECT and ":" in listener.address:
                raise ListenerRefusedError(f"{listener} cannot be served directly: IPv4 alone can", listener=listener)
            if error := trial(listener, anywhere=self._shared):
                raise refusal(listener, error)

    def _draw(self, present: Mapping[Listener, Present], notes: Notes) -> list[Piece]:
        """Return the pieces that serve what is there. Raises ValueError if a value is none."""
        drawn = {}
        for listener in sorted(present):
            frontend = present[listener].frontend
            members = notes.usable(frontend)
            known = self._drawn.get(listener)
            if known is None or known[:2] != (frontend, members):
                known = (frontend, members, piece(frontend, members, self._kernel))
            drawn[listener] = known
        self._drawn = drawn
        return [one for _, _, one in drawn.values()]

    async def _settle(self, present: Frontends) -> None:
        """Bring the kernel to what is written down, if it is not there."""
        pieces = self._draw(present, self._notebook.load())
        standing = await self._standing()
        if standing != stamps(pieces, self._kernel):
            await self._nft(transaction(pieces, standing, self._kernel))

    async def _standing(self) -> dict[str, str]:
        """Return what the kernel's table says of itself; nothing if it is not there."""
        command = ["nft", "-j", "list", "chain", *self._kernel.place.split(), STAMP]
        done = await run(command, timeout=_SECONDS, check=False, env={"LC_ALL": "C"})
        if done.status and _MISSING in done.stderr:
            return {}
        if done.status:
            raise UnavailableError(f"the kernel does not tell its rules: {done.stderr.strip()}")
        rules = [entry["rule"] for entry in json.loads(done.stdout)["nftables"] if "rule" in entry]
        words = [str(rule.get("comment", "")).partition(" ") for rule in rules]
        return {name: digest for name, _, digest in words}

    async def _nft(self, script: str) -> None:
        try:
            await run(["nft", "-f", "-"], timeout=_SECONDS, stdin=script.encode())
        except CommandFailedError as error:
            raise UnavailableError(f"the kernel refused its rules: {error.detail}") from error


_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
