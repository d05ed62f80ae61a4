"""The platform's balancer for real: HAProxy and its keeper as host services, and what becomes of both when killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.app.platform_balancer import PlatformBalancer, text_of
from haneul.balancer.adapters.kept import KeptBalancer
from haneul.balancer.model import Change, Frontend, Listener, Protocol
from haneul.balancer.settings import HaproxySettings, PoolSettings, read_settings
from haneul.host.ownership import Ownership, all_processes
from haneul.host.processes import command_line
from haneul.host.supervisord import Supervisord
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError, InvalidInputError
from haneul.kernel.waiting import wait_for
from haneul.management.settings import ManagementSettings
from tests.balancers import Echo, short_folder

OWNER = "shop/web/uid/id"
CLOCK = SystemClock()


def network() -> str:
    """Return some addresses of loopback, of which there are sixteen million."""
    return ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(2))])


class Running:
    """A balancer under a supervisord of its own."""

    def __init__(self, folder: Path) -> None:
        prefix = network()
        self.address, self.outside = f"{prefix}.4", f"{prefix}.99"
        self.settings = ManagementSettings(
            address="192.0.2.2",
            host_name="host-a",
            state=folder / "state",
            runtime=folder / "run",
            logs=folder / "logs",
        )
        pool = PoolSettings(name="default", addresses=(f"{prefix}.0/28",))
        self.balancer = HaproxySettings(
            kind="haproxy",
            folder=folder / "state" / "balancer",
            user="haproxy",
            max_connections=500,
            supervised=True,
            pools=(pool,),
        )
        self.services = Supervisord(
            state=self.settings.state,
            runtime=self.settings.runtime,
            logs=self.settings.logs,
            clock=CLOCK,
            patience=5,
        )
        self.platform = PlatformBalancer(self.settings, self.balancer, services=self.services, clock=CLOCK)
        self.asked = KeptBalancer(self.platform.files.socket)

    def frontend(self, address: str = "", port: int = 8080) -> Frontend:
        return Frontend(Listener(address or self.address, Protocol.TCP, port), "shop/web")

    async def pid(self, name: str) -> int:
        (state,) = [state for state in await self.services.states() if state.name == name]
        return state.pid or 0

    async def taken(self, frontend: Frontend) -> bool:
        """Say whether a connection comes about; as there is no member, that is all that there is to it."""
        try:
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(frontend.listener.address, frontend.listener.port)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    async def applied(self, change: Change) -> None:
        """Apply a change, as often as it takes: a program that was killed is being started again."""

        async def done() -> bool:
            with contextlib.suppress(HaneulError):
                await self.asked.apply(OWNER, [change])
                return True
            return False

        await wait_for(done, what="a change to be taken", timeout=60, clock=CLOCK)

    async def until_taken(self, frontend: Frontend) -> None:
        async def seen() -> bool:
            return await self.taken(frontend)

        await wait_for(seen, what=f"{frontend.listener} to take connections", timeout=60, clock=CLOCK)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    if os.geteuid() != 0:
        pytest.skip("only root can let a program become another user")
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    with short_folder() as folder:
        found = Running(folder)
        found.settings.state.mkdir(parents=True)
        try:
            yield found
        finally:
            await found.services.shut_down()


async def test_what_is_served_outlives_both_programs_and_their_supervisor(running: Running) -> None:
    await running.platform.start()
    first = running.frontend()
    await running.applied(Change(None, first))
    await running.until_taken(first)
    for name in ("balancer", "balancer-keeper"):
        before = await running.pid(name)
        os.kill(before, signal.SIGKILL)

        async def another(name: str = name, before: int = before) -> bool:
            return await running.pid(name) not in (0, before)

        await wait_for(another, what=f"{name} to be started again", timeout=60, clock=CLOCK)
        await running.until_taken(first)
    second = running.frontend(port=8081)
    await running.applied(Change(None, second))
    await running.services.shut_down()
    assert not await running.taken(first)
    await running.platform.start()
    assert {there.frontend for there in (await running.asked.read()).values()} == {first, second}
    await running.until_taken(second)
    # Nobody is in the file's place who did not write it: it is taken up as it is.
    assert read_settings(running.platform.files.settings) == running.balancer
    assert running.platform.files.settings.read_text() == text_of(running.balancer)


async def test_what_a_killed_supervisord_left_never_runs_beside_another_nor_on(running: Running) -> None:
    """HAProxy is begun by a shell, and begins itself anew to read its configuration: no command line is as defined."""
    folder = f"{running.platform.files.folder}/"

    def haproxies() -> dict[int, int]:
        """Return their numbers, with those of their parents."""
        return {
            process.pid: process.parent
            for process in all_processes().values()
            if process.name == "haproxy" and any(argument.startswith(folder) for argument in process.arguments)
        }

    await running.platform.start()
    await running.applied(Change(None, running.frontend()))
    await running.until_taken(running.frontend())
    left = haproxies()
    await supervisord_is_killed(running)
    assert set(left) <= set(haproxies())
    await running.platform.start()
    master = await running.pid("balancer")
    assert not set(left) & set(haproxies())
    assert {pid if parent not in haproxies() else parent for pid, parent in haproxies().items()} == {master}
    await running.until_taken(running.frontend())
    await supervisord_is_killed(running)
    await running.services.shut_down()
    assert haproxies() == {}


async def supervisord_is_killed(running: Running) -> None:
    pid = int((running.settings.runtime / "supervisor.pid").read_text())
    os.kill(pid, signal.SIGKILL)

    async def gone() -> bool:
        return command_line(pid) == ()

    await wait_for(gone, what="supervisord to be gone", timeout=60, clock=CLOCK)


async def test_its_worker_is_not_root_and_its_processes_are_known_as_ours(running: Running) -> None:
    await running.platform.start()
    master, keeper = await running.pid("balancer"), await running.pid("balancer-keeper")
    processes = all_processes()
    workers = [process.pid for process in processes.values() if process.parent == master]
    assert workers
    assert {Path(f"/proc/{pid}").stat().st_uid != 0 for pid in workers} == {True}
    # Also those that nobody supervises any more.
    ownership = Ownership(Path("/nowhere"), running.settings.state, frozenset())
    ours = ownership.of({pid: processes[pid] for pid in (master, keeper)})
    assert set(ours) == {master, keeper}


async def test_who_asks_gets_no_address_outside_the_pools_and_leads_nobody_to_the_machine_itself(
    running: Running,
) -> None:
    await running.platform.start()
    with pytest.raises(InvalidInputError, match="in no pool"):
        await running.asked.apply(OWNER, [Change(None, running.frontend(running.outside))])
    echo = Echo("loopback")
    member = await echo.start()
    try:
        with pytest.raises(InvalidInputError, match="no machine"):
            wanted = running.frontend()
            await running.asked.apply(OWNER, [Change(None, Frontend(wanted.listener, "shop/web", members=(member,)))])
    finally:
        await echo.end()
    assert await running.asked.read() == {}
    socket = running.platform.files.socket
    assert stat.S_IMODE(socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o750
