"""What HAProxy in particular has to keep: no reload for members, and going on from whatever was cut short."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.haproxy_configuration import Process
from haneul.balancer.adapters.haproxy_socket import ask, field
from haneul.balancer.model import (
    Change,
    Frontend,
    Frontends,
    FrontendsChangedError,
    HealthCheck,
    Listener,
    ListenerRefusedError,
    Member,
    MemberState,
    Options,
    Protocol,
)
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import InvalidInputError, UnavailableError
from haneul.kernel.waiting import wait_for
from tests.balancers import CHECK, Client, Echo, address, answered, connected, haproxy, short_folder

OWNER = "first/0c5e7a0e"
OPTIONS = Options(check=CHECK)


class Ground:
    """A HAProxy of one test's own, with a member."""

    def __init__(self, folder: Path, balancer: HaproxyBalancer, echo: Echo) -> None:
        self.process = Process(folder / "b", connections=500)
        self.balancer = balancer
        self.echo = echo
        self.listener = Listener(address(), Protocol.TCP, 8080)

    def frontend(self, *members: Member, options: Options = OPTIONS) -> Frontend:
        return Frontend(self.listener, "shop/web", options, tuple(sorted(members)))

    async def served(self) -> bool:
        return await answered(self.listener.address, self.listener.port) == self.echo.name

    async def info(self, name: str) -> str:
        return field(await ask(self.process.worker, "show info"), name)

    def again(self, kind: type[HaproxyBalancer] = HaproxyBalancer) -> HaproxyBalancer:
        """Return another adapter of the same HAProxy, as another process has."""
        return kind(self.process, clock=SystemClock())


class Killed(BaseException):
    """Stands for the end of the process."""


class KilledBeforeWriting(HaproxyBalancer):
    """It is killed when members have changed and nothing is written down."""

    def _store(self, present: Frontends) -> None:
        raise Killed


class KilledAfterWriting(HaproxyBalancer):
    """It is killed when all is written down and HAProxy knows nothing of it."""

    async def _hasten(self, before: Frontends, after: Frontends) -> None:
        pass

    def _store(self, present: Frontends) -> None:
        super()._store(present)
        raise Killed


class KilledBeforeConfiguring(HaproxyBalancer):
    """It is killed between the two files."""

    async def _hasten(self, before: Frontends, after: Frontends) -> None:
        pass

    def _write_configuration(self, present: Frontends) -> None:
        raise Killed


class Careless(HaproxyBalancer):
    """It does not look whether the machine has an address."""

    async def _check_listeners(self, listeners: Iterable[Listener]) -> None:
        pass


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    echo = Echo("one")
    await echo.start()
    with short_folder() as folder:
        async with haproxy(folder) as balancer:
            yield Ground(folder, balancer, echo)
    await echo.end()


async def test_members_change_without_a_reload_and_all_else_with_one(ground: Ground) -> None:
    before = ground.frontend()
    await ground.balancer.apply(OWNER, [Change(None, before)])
    worker = await ground.info("Pid")
    assert not await ground.served()
    for members in ([ground.echo.member], [ground.echo.member, Member("127.0.0.9", 1)], [ground.echo.member]):
        after = ground.frontend(*members)
        await ground.balancer.apply(OWNER, [Change(before, after)])
        before = after
    slow = replace(before, options=replace(OPTIONS, drain=1))
    await ground.balancer.apply(OWNER, [Change(before, slow)])
    assert await ground.served()
    assert await ground.info("Pid") == worker
    changed = replace(slow, options=replace(slow.options, check=HealthCheck(interval=300)))
    await ground.balancer.apply(OWNER, [Change(slow, changed)])
    assert await ground.info("Pid") != worker
    assert await ground.served()


@pytest.mark.parametrize("kind", [KilledBeforeWriting, KilledAfterWriting, KilledBeforeConfiguring])
async def test_whoever_is_killed_is_gone_on_from(ground: Ground, kind: type[HaproxyBalancer]) -> None:
    empty, full = ground.frontend(), ground.frontend(ground.echo.member)
    await ground.balancer.apply(OWNER, [Change(None, empty)])
    with pytest.raises(Killed):
        await ground.again(kind).apply(OWNER, [Change(empty, full)])
    next_one = ground.again()
    there = (await next_one.read())[ground.listener].frontend
    assert there == (empty if kind is KilledBeforeWriting else full)
    # What HAProxy does is what it says.
    assert await ground.served() == (there == full)
    if there != full:
        await next_one.apply(OWNER, [Change(there, full)])
    assert await ground.served()


@pytest.mark.parametrize("kind", [KilledAfterWriting, KilledBeforeConfiguring])
async def test_a_reload_that_was_not_begun_is_made(ground: Ground, kind: type[HaproxyBalancer]) -> None:
    await ground.balancer.read()
    with pytest.raises(Killed):
        await ground.again(kind).apply(OWNER, [Change(None, ground.frontend(ground.echo.member))])
    await ground.again().tend()
    assert await ground.served()


async def test_a_haproxy_that_is_killed_starts_again_with_its_members(ground: Ground) -> None:
    await ground.balancer.apply(OWNER, [Change(None, ground.frontend(ground.echo.member))])
    master = (ground.process.folder / "haproxy.pid").read_text()
    worker = await ground.info("Pid")
    for number in (master, worker):
        os.kill(int(number), signal.SIGKILL)

    async def gone() -> bool:
        return not await ground.served()

    await wait_for(gone, what="HAProxy to be gone", timeout=20, clock=SystemClock())
    await ground.again().tend()
    assert await ground.served()


async def test_several_processes_use_one_haproxy(ground: Ground) -> None:
    others = [ground.again() for _ in range(4)]
    frontends = [replace(ground.frontend(), listener=replace(ground.listener, port=8081 + i)) for i in range(4)]
    await asyncio.gather(
        *(one.apply(OWNER, [Change(None, it)]) for one, it in zip(others, frontends, strict=True)),
        *(one.tend() for one in others),
    )
    assert set(await ground.balancer.read()) == {one.listener for one in frontends}
    done = await asyncio.gather(
        *(one.apply(f"owner-{i}", [Change(None, ground.frontend())]) for i, one in enumerate(others)),
        return_exceptions=True,
    )
    assert {type(one) for one in done} == {FrontendsChangedError}


async def test_health_is_asked_for_by_http_at_another_port(ground: Ground) -> None:
    asked: list[bytes] = []
    well = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" if well else b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    options = replace(OPTIONS, check=replace(CHECK, path="/healthz", port=port))
    frontend = ground.frontend(ground.echo.member, options=options)
    await ground.balancer.apply(OWNER, [Change(None, frontend)])

    async def state(wanted: MemberState) -> bool:
        health = (await ground.balancer.health())[ground.listener]
        return bool(asked) and health[ground.echo.member].state is wanted

    async with server:
        await wait_for(lambda: state(MemberState.UP), what="it to be well", timeout=20, clock=SystemClock())
        well = False
        await wait_for(lambda: state(MemberState.DOWN), what="it to be down", timeout=20, clock=SystemClock())
    assert asked[0].startswith(b"GET /healthz ")


async def test_a_member_that_leaves_may_stop_to_listen_and_finish_what_it_has(ground: Ground) -> None:
    stays = Echo("two")
    other = await stays.start()
    before = ground.frontend(ground.echo.member)
    await ground.balancer.apply(OWNER, [Change(None, before)])
    client = await connected(ground.listener.address, ground.listener.port)
    assert client
    await ground.balancer.apply(OWNER, [Change(before, ground.frontend(other))])
    await ground.echo.stop_listening()
    await stays.stop_listening()

    async def is_down() -> bool:
        # By the time that this one has failed its checks, the other one would have too.
        await ground.balancer.tend()
        return (await ground.balancer.health())[ground.listener][other].state is MemberState.DOWN

    await wait_for(is_down, what="the other member to be down", timeout=20, clock=SystemClock())
    assert await client.says("still here")
    client.close()
    await stays.end()


async def test_no_connection_fails_while_members_roll(ground: Ground) -> None:
    members = [Echo(f"m{number}") for number in range(6)]
    for echo in members:
        await echo.start()
    before = ground.frontend(members[0].member, members[1].member)
    await ground.balancer.apply(OWNER, [Change(None, before)])
    rolling = True
    names: list[str] = []

    async def ask_again_and_again() -> None:
        while rolling:
            names.append(await answered(ground.listener.address, ground.listener.port))

    asking = [asyncio.ensure_future(ask_again_and_again()) for _ in range(6)]
    for leaving, following in itertools.pairwise(members[1:]):
        gone = leaving.member
        after = ground.frontend(members[0].member, following.member)
        await ground.balancer.apply(OWNER, [Change(before, after)])
        before = after

        async def is_used(name: str = following.name) -> bool:
            return name in names

        await wait_for(is_used, what="the new member to be used", timeout=30, clock=SystemClock())

        async def has_left(member: Member = gone) -> bool:
            await ground.balancer.tend()
            return member not in (await ground.balancer.health())[ground.listener]

        await wait_for(has_left, what="the member to have left", timeout=30, clock=SystemClock())
        await leaving.end()
    rolling = False
    await asyncio.gather(*asking)
    assert set(names) == {echo.name for echo in members}
    for echo in (members[0], members[-1]):
        await echo.end()


async def test_an_address_that_the_machine_has_lost_keeps_nobody_else_from_starting(ground: Ground) -> None:
    lost = Frontend(Listener("192.0.2.77", Protocol.TCP, 8080), "shop/lost")
    served = ground.frontend(ground.echo.member)
    await ground.again(Careless).apply(OWNER, [Change(None, lost), Change(None, served)])
    assert await ground.served()
    await ground.balancer.end()
    await ground.balancer.tend()
    assert await ground.served()


async def test_udp_is_not_haproxys(ground: Ground) -> None:
    listener = replace(ground.listener, protocol=Protocol.UDP)
    assert Protocol.UDP not in ground.balancer.abilities.protocols
    with pytest.raises(ListenerRefusedError):
        await ground.balancer.apply(OWNER, [Change(None, Frontend(listener, "shop/web"))])


async def test_what_is_written_down_is_not_guessed_at(ground: Ground) -> None:
    await ground.balancer.apply(OWNER, [Change(None, ground.frontend(ground.echo.member))])
    (ground.process.folder / "frontends.json").write_text('[{"owner": "x"}]')
    with pytest.raises(InvalidInputError, match="not as it was written"):
        await ground.balancer.read()
    assert await ground.served()


async def test_one_that_others_start_is_waited_for() -> None:
    with short_folder() as folder:
        process = Process(folder / "b", connections=500)
        supervised = HaproxyBalancer(process, clock=SystemClock(), supervised=True)
        with pytest.raises(UnavailableError, match="does not run"):
            await supervised.read()
        # What its supervisor starts it with is there.
        assert process.configuration.exists()


async def test_one_project_cannot_take_the_connections_of_another_whatever_its_clusters_and_ports(
    ground: Ground,
) -> None:
    listeners = [ground.listener, replace(ground.listener, port=8081), Listener(address(), Protocol.TCP, 8080)]
    one, two, other = (replace(ground.frontend(ground.echo.member), listener=listener) for listener in listeners)
    for owner, frontend in (("shop/web/u1/k1", one), ("shop/web/u1/k1", two), ("team/web/u2/k2", other)):
        await ground.balancer.apply(owner, [Change(None, frontend)])
    share = ground.process.share(2)
    assert share == 125
    clients: list[Client] = []
    try:
        # By turns, so that neither listener alone has as many as it may; a worker that ends may have taken some first.
        for number in range(share + 75):
            listener = listeners[number % 2]
            client = await connected(listener.address, listener.port)
            if client is None:
                break
            clients.append(client)
        assert share <= len(clients) < share + 75
        assert await answered(other.listener.address, other.listener.port) == ground.echo.name
        for client in clients:
            client.close()
        await wait_for(
            ground.served, what="the project to have connections again", timeout=60, clock=SystemClock(), interval=0.05
        )
    finally:
        for client in clients:
            client.close()
