"""Checks of machines: what machines say is not believed blindly, and none holds up those of others."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest

from haneul.dkos.adapters.ssh_machines import SshMachines
from haneul.dkos.adapters.ssh_session import MachineCommandError, MachineSession, NodeState, SshTarget, parse_state
from haneul.dkos.machine_store import MemoryMachines
from haneul.dkos.machines import MachineCheck, MachineSpec
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.waiting import wait_for

START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
#: By the last part of the address: hangs, fails in a way that nobody foresaw, is off.
HANGS, ODD, OFF = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Unreached(AbstractAsyncContextManager[MachineSession]):
    """A connection that never comes about."""

    def __init__(self, answered: asyncio.Event, target: SshTarget) -> None:
        self._answered = answered
        self._address = target.address

    async def __aenter__(self) -> MachineSession:
        if self._address == HANGS:
            await self._answered.wait()
        if self._address == ODD:
            raise RuntimeError("nobody foresaw this")
        raise UnavailableError("it is off")

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError("nothing was entered")


async def test_no_project_s_machines_hold_up_another_s() -> None:
    store, answered = MemoryMachines(), asyncio.Event()

    for number in range(9):
        await add(store, "slow", f"rack{number}", HANGS)
    await add(store, "odd", "rack0", ODD)
    await add(store, "shop", "rack0", OFF)
    connect = functools.partial(Unreached, answered)
    machines = SshMachines(store, store, architecture="amd64", clock=VirtualClock(START), connect=connect)
    async with asyncio.TaskGroup() as group:
        checks = group.create_task(machines.watch_checks())
        answer = functools.partial(check_of, store, "shop")
        check = await wait_for(answer, what="the answer", timeout=30, clock=SystemClock(), interval=0.01)
        assert check.problem == "it is off"
        assert await check_of(store, "slow") is None and not checks.done()
        answered.set()
    assert all(machine.status.check for machine in await store.list("slow"))
    assert await check_of(store, "odd") is None


async def add(store: MemoryMachines, project: str, name: str, address: str) -> None:
    await store.public(project)
    spec = MachineSpec(address=address, host_key="SHA256:" + "A" * 43, check_requested=START)
    await store.add(project, name, spec)


async def check_of(store: MemoryMachines, project: str) -> MachineCheck | None:
    return (await store.get(project, "rack0")).status.check


def test_state_of_a_node_is_what_its_machine_says() -> None:
    assert parse_state("") == NodeState()
    text = "owner u/shop/web/a-0\ninstance 0a 1b 3\nstarted 2026-11-24T09:00:00Z\nrunning yes\n"
    assert parse_state(text) == NodeState("u/shop/web/a-0", "0a", "1b", 3, START, running=True)


@pytest.mark.parametrize(
    "text", ["instance one", "instance a b c", "started soon", "started 2026-11-24T09:00:00", "instance a b 1 2"]
)
def test_a_state_that_makes_no_sense_is_an_error_that_is_told(text: str) -> None:
    with pytest.raises(MachineCommandError, match="makes no sense"):
        parse_state(text)
