"""Reaching registered machines: with their project's key, pinning the host key where the first one is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import structlog

from haneul.dkos.adapters.ssh_session import MachineSession, SshTarget, open_session
from haneul.dkos.machine_store import MachineStore, PrivateKeys
from haneul.dkos.machines import CheckFinding, Machine, MachineCheck
from haneul.dkos.preflight import Finding, Wanted, examine
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)
_CHECKS_AT_ONCE: Final = 4
_LONGEST_WORDS: Final = 500


class Connect(Protocol):
    """Opens a session on a target."""

    def __call__(self, target: SshTarget) -> AbstractAsyncContextManager[MachineSession]:
        """Return the session; raises UnavailableError."""
        ...


class SshMachines:
    """All registered machines, as far as SSH goes. ``architecture`` is that of the platform's programs."""

    def __init__(
        self,
        store: MachineStore,
        keys: PrivateKeys,
        *,
        architecture: str,
        clock: Clock,
        connect: Connect = open_session,
    ) -> None:
        self.store = store
        self._keys = keys
        self._architecture = architecture
        self._clock = clock
        self._connect = connect

    @asynccontextmanager
    async def open(self, machine: Machine) -> AsyncIterator[MachineSession]:
        """Connect to a machine. The key that it shows at its first use is written down before anything else is said."""
        spec = machine.spec
        private = await self._keys.private(machine.project)
        target = SshTarget(spec.address, spec.port, spec.user, private, machine.host_key)
        async with self._connect(target) as session:
            if not machine.host_key:
                pinned = machine.status.model_copy(update={"host_key": session.host_key})
                await self.store.report(machine, pinned)
            yield session

    async def examine(self, session: MachineSession, machine: Machine, owner: str) -> tuple[Finding, ...]:
        """Look whether the machine fits to be ``owner``'s node."""
        wanted = Wanted(machine.spec.address, self._architecture, owner)
        return examine(await session.facts(), wanted, self._clock.now())

    async def watch_checks(self) -> None:
        """Carry out every check that is asked for; without end. No project's machines hold up another's."""
        turns: dict[str, asyncio.Semaphore] = {}
        at_work: set[str] = set()

        async def check(machine: Machine, turn: asyncio.Semaphore) -> None:
            try:
                async with turn:
                    await self._answer(machine.project, machine.name)
            finally:
                at_work.discard(machine.uid)

        async with asyncio.TaskGroup() as group:
            async for machine in self.store.watch():
                if _asks(machine) and machine.uid not in at_work:
                    at_work.add(machine.uid)
                    turn = turns.setdefault(machine.project, asyncio.Semaphore(_CHECKS_AT_ONCE))
                    group.create_task(check(machine, turn))

    async def _answer(self, project: str, name: str) -> None:
        """Check a machine until nobody asks for a check any more that was not made."""
        try:
            while _asks(machine := await self.store.get(project, name)):
                await self.check(machine)
        except HaneulError as error:
            # The machine changed meanwhile, or nobody could write the answer down; its next change comes here.
            _log.warning("machine not checked", machine=name, error=str(error))
        except Exception as error:
            # Whatever a tenant's machine made go wrong here, the others' are still to be checked.
            _log.error("machine not checked", machine=name, exc_info=error)

    async def check(self, machine: Machine) -> Machine:
        """Examine a machine and write down what was found."""
        claim = machine.status.claim
        result = MachineCheck(at=self._clock.now(), requested=machine.spec.check_requested)
        try:
            async with self.open(machine) as session:
                findings = await self.examine(session, machine, claim.owner if claim else "")
                result = result.model_copy(
                    update={
                        "passed": all(found.good for found in findings),
                        "findings": tuple(
                            CheckFinding(
                                name=f.name,
                                good=f.good,
                                detail=f.detail[:_LONGEST_WORDS],
                                hint="" if f.good else f.hint,
                            )
                            for f in findings
                        ),
                    }
                )
        except HaneulError as error:
            result = result.model_copy(update={"problem": in_words(error)})
        # Pinning the host key changed the machine, and so may anybody else have.
        current = await self.store.get(machine.project, machine.name)
        return await self.store.report(current, current.status.model_copy(update={"check": result}))


def _asks(machine: Machine) -> bool:
    done = machine.status.check.requested if machine.status.check else None
    return machine.spec.check_requested is not None and machine.spec.check_requested != done


def in_words(error: HaneulError) -> str:
    """Return an error in one line, which is kept with the machine."""
    detail = error.detail[:_LONGEST_WORDS]
    return f"{detail} ({error.hint})" if error.hint else detail
