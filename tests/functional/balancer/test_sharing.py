"""Two machines that share a balancer's addresses by keepalived: when one dies, the other one has them and serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.balancer.adapters import haproxy_alive, pid_files
from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.haproxy_configuration import Process
from haneul.balancer.adapters.keepalived import Keepalived
from haneul.balancer.adapters.keepalived_configuration import Sharing, file_names
from haneul.balancer.adapters.truth import Truth
from haneul.balancer.model import Change, Frontend, Listener, Member, Options, Protocol
from haneul.kernel.clock import SystemClock
from haneul.kernel.processes import Found, all_found, send
from haneul.kernel.waiting import wait_for
from tests.balancers import CHECK, short_folder
from tests.namespaces import entered
from tests.segment import Responder, Segment, asked, segment

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("haproxy") or not shutil.which("keepalived"),
    reason="network namespaces need root, and shared addresses 'make system-packages'",
)

ADDRESS, OTHER = "10.66.0.100", "10.66.0.101"
WEB = Listener(ADDRESS, Protocol.TCP, 80)
OWNER = "first/0c5e7a0e"
DEADLINE = 60.0


class Host:
    """A machine with a HAProxy and a keepalived. What it does, it does in its own network namespace."""

    def __init__(self, net: Segment, name: str, peer: str, folder: Path, *, asks: bool) -> None:
        self.net = net
        self.name = name
        self.process = Process(folder / name, connections=100)
        with entered(net.path(name)):
            self.balancer = HaproxyBalancer(self.process, clock=SystemClock(), shared=True)
        # Where nothing is about what is asked, a machine that is too busy to be asked in time is not dead either.
        alive = (
            ("/bin/true",)
            if not asks
            else (sys.executable, "-I", "-S", haproxy_alive.__file__, str(self.process.worker))
        )
        sharing = Sharing(
            (ADDRESS, OTHER), "eth0", net.addresses[name], (net.addresses[peer],), 51, 100, advert=50, alive=alive
        )
        self.keepalived = Keepalived(sharing, Truth(self.process.folder), clock=SystemClock())

    async def begin(self, frontend: Frontend) -> None:
        with entered(self.net.path(self.name)):
            await self.balancer.apply(OWNER, [Change(None, frontend)])
            await self.keepalived.settle()

    async def has_addresses(self) -> bool:
        with entered(self.net.path(self.name)):
            return await self.keepalived.has_addresses()

    def processes(self, *names: str) -> list[Found]:
        """Return its processes by their files, each before those that it started."""
        configuration, *files = file_names(self.process.folder)
        known = {self.process.folder / "haproxy.pid": self.process.configuration, **dict.fromkeys(files, configuration)}
        found = []
        for file, named in known.items():
            # What is left of a process that was killed may name somebody else's by now.
            if (not names or file.name in names) and (number := pid_files.number(file, named)) is not None:
                with contextlib.suppress(OSError):
                    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
                    found += all_found([number, *map(int, children)], lambda _: True)
        return list(dict.fromkeys(found))

    async def kill(self, found: list[Found], how: signal.Signals = signal.SIGKILL) -> None:
        send(found, how)
        await until(lambda: not any(process.alive for process in found), "processes to be gone")


async def until(probe: object, what: str) -> None:
    async def so() -> bool:
        assert callable(probe)
        found = probe()
        return bool(await found if asyncio.iscoroutine(found) else found)

    await wait_for(so, what=what, timeout=DEADLINE, clock=SystemClock(), interval=0.05, max_interval=0.2)


class Ground:
    """A client, two balancers, and a machine behind them."""

    def __init__(self, net: Segment, folder: Path, *, asks: bool) -> None:
        self.net = net
        self.hosts = [Host(net, *names, folder, asks=asks) for names in (("lb1", "lb2"), ("lb2", "lb1"))]
        self.responder = Responder(net, "m1")

    async def begin(self) -> None:
        await self.responder.start(8080)
        frontend = Frontend(WEB, "shop/web", Options(check=CHECK), (Member(self.net.addresses["m1"], 8080),))
        for host in self.hosts:
            await host.begin(frontend)

    async def elected(self) -> tuple[Host, Host]:
        """Wait until one has the addresses, and is answered at them; return it and the other one."""
        having: list[Host] = []

        async def one() -> bool:
            having[:] = [host for host in self.hosts if await host.has_addresses()]
            return len(having) == 1

        await until(one, "one to have the addresses")
        await self.until_answered()
        return having[0], next(host for host in self.hosts if host is not having[0])

    async def until_answered(self) -> None:
        async def answered() -> bool:
            return (await asked(self.net, "client", ADDRESS, 80))[0] == "m1"

        await until(answered, "the address to be answered")

    async def end(self) -> None:
        for host in self.hosts:
            await host.kill(host.processes(), signal.SIGTERM)
        await self.responder.end()


@pytest.fixture(params=[True])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    with short_folder() as folder, segment("client", "lb1", "lb2", "m1") as net:
        made = Ground(net, folder, asks=request.param)
        try:
            await made.begin()
            yield made
        finally:
            await made.end()


@pytest.mark.parametrize("ground", [False], indirect=True)
async def test_when_the_active_one_is_killed_the_other_one_serves_everything(ground: Ground) -> None:
    active, other = await ground.elected()
    asking, answers = True, list[str]()

    async def ask_again_and_again() -> None:
        while asking:
            answers.append((await asked(ground.net, "client", ADDRESS, 80))[0])

    clients = [asyncio.ensure_future(ask_again_and_again()) for _ in range(3)]
    await until(lambda: answers.count("m1") > 30, "requests to go on")
    await active.kill(active.processes())
    await until(other.has_addresses, "the other one to have the addresses")
    await ground.until_answered()
    # Those that began in between have had their answer, or none, when each client has had two more.
    between = len(answers)
    await until(lambda: len(answers) > between + 6, "requests to go on")
    after = len(answers)
    await until(lambda: len(answers) > after + 100, "requests to go on")
    asking = False
    await asyncio.gather(*clients)
    assert set(answers[after:]) == {"m1"}
    # The one that was killed is begun again by its controller, and is there for the next time.
    assert not active.keepalived.runs
    with entered(ground.net.path(active.name)):
        await active.balancer.tend()
        await active.keepalived.settle()
    assert active.keepalived.runs


async def test_one_whose_haproxy_is_gone_gives_the_addresses_away_and_does_not_take_them_back(ground: Ground) -> None:
    active, other = await ground.elected()
    await active.kill(active.processes("haproxy.pid"))
    await until(other.has_addresses, "the other one to have the addresses")
    await ground.until_answered()
    # It is well again, as its controller sees to it, and leaves the addresses where they are.
    with entered(ground.net.path(active.name)):
        await active.balancer.tend()
    assert await asyncio.to_thread(haproxy_alive.answers, str(active.process.worker))
    await other.kill(other.processes("keepalived.pid"), signal.SIGTERM)
    await until(active.has_addresses, "the first one to have the addresses when the other one leaves them")
    await ground.until_answered()
