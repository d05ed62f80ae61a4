"""What every load balancer does: the behaviour suite of the port LoadBalancer, with real ones and the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.memory import MemoryBalancer
from haneul.balancer.model import (
    Algorithm,
    Change,
    Frontend,
    FrontendsChangedError,
    HealthCheck,
    Listener,
    ListenerRefusedError,
    Member,
    MemberState,
    Options,
    Present,
    Protocol,
    ProxyProtocol,
)
from haneul.balancer.ports import LoadBalancer
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from tests.balancers import CHECK, Client, Echo, address, answered, connected, haproxy, kept, short_folder

OURS, OTHERS = "first/0c5e7a0e", "second/9b8f3c52"
OPTIONS = Options(check=CHECK)
KINDS = ["memory", "kept", "haproxy"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def balancer(request: pytest.FixtureRequest) -> AsyncIterator[LoadBalancer]:
    if request.param == "memory":
        yield MemoryBalancer()
        return
    with short_folder() as folder:
        if request.param == "kept":
            async with kept(MemoryBalancer(), folder) as asked:
                yield asked
            return
        async with haproxy(folder) as made:
            yield made


class Ground:
    """Addresses and members of one test's own."""

    def __init__(self, balancer: LoadBalancer) -> None:
        self.balancer = balancer
        self.real = isinstance(balancer, HaproxyBalancer)
        self.address = address()
        self.echoes: dict[str, Echo] = {}
        self.clients: list[Client] = []

    def listener(self, port: int = 8080) -> Listener:
        return Listener(self.address, Protocol.TCP, port)

    def frontend(self, *members: Member, port: int = 8080, options: Options = OPTIONS) -> Frontend:
        return Frontend(self.listener(port), "shop/web", options, tuple(sorted(members)))

    async def member(self, name: str) -> Member:
        self.echoes[name] = Echo(name)
        return await self.echoes[name].start()

    async def change(self, before: Frontend | None, after: Frontend | None, *, owner: str = OURS) -> None:
        await self.balancer.apply(owner, [Change(before, after)])

    async def there(self) -> dict[Listener, Present]:
        present = await self.balancer.read()
        return {listener: one for listener, one in present.items() if listener.address == self.address}

    async def connect(self, *, port: int = 8080, source: str = "") -> Client:
        client = await connected(self.address, port, source=source)
        assert client
        self.clients.append(client)
        return client

    async def names(self, times: int = 12, *, port: int = 8080, source: str = "") -> set[str]:
        return {await answered(self.address, port, source=source) for _ in range(times)}

    async def until(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        await wait_for(probe, what=what, timeout=30, clock=SystemClock(), interval=0.02, max_interval=0.1)

    async def states(self, listener: Listener | None = None) -> dict[Member, MemberState]:
        health = (await self.balancer.health())[listener or self.listener()]
        return {member: one.state for member, one in health.items()}

    async def end(self) -> None:
        for client in self.clients:
            client.close()
        for echo in self.echoes.values():
            await echo.end()
        present = await self.there()
        for owner in (OURS, OTHERS):
            changes = [Change(one.frontend, None) for one in present.values() if one.owner == owner]
            await self.balancer.apply(owner, changes)


@pytest_asyncio.fixture(loop_scope="module")
async def ground(balancer: LoadBalancer) -> AsyncIterator[Ground]:
    made = Ground(balancer)
    yield made
    await made.end()


@pytest.fixture
def real(ground: Ground) -> Ground:
    if not ground.real:
        pytest.skip("nobody can connect to what is in memory")
    return ground


async def test_what_is_applied_is_there_and_says_whose_it_is(ground: Ground) -> None:
    assert ground.balancer.name
    options = Options(Algorithm.LEAST_CONNECTIONS, HealthCheck(500, 600, 3, 4), 7, ProxyProtocol.V2, ("10.0.0.0/8",))
    frontend = ground.frontend(Member("127.0.0.1", 1), options=options)
    await ground.change(None, frontend)
    assert await ground.there() == {frontend.listener: Present(frontend, OURS)}
    changed = replace(frontend, options=OPTIONS, members=())
    await ground.change(frontend, changed)
    assert await ground.there() == {frontend.listener: Present(changed, OURS)}
    await ground.change(changed, None)
    assert await ground.there() == {}


async def test_a_batch_is_done_whole_or_not_at_all(ground: Ground) -> None:
    one, two = ground.frontend(port=8081), ground.frontend(port=8082)
    await ground.balancer.apply(OURS, [Change(None, one), Change(None, two)])
    wrong = Change(replace(two, service="shop/other"), None)
    with pytest.raises(FrontendsChangedError):
        await ground.balancer.apply(OURS, [Change(one, None), wrong, Change(None, ground.frontend(port=8083))])
    assert set(await ground.there()) == {one.listener, two.listener}


async def test_an_address_is_one_owners_alone(ground: Ground) -> None:
    frontend = ground.frontend()
    await ground.change(None, frontend)
    for change in (
        Change(frontend, None),
        Change(frontend, replace(frontend, service="other/web")),
        Change(None, frontend),
        Change(None, ground.frontend(port=8081)),
    ):
        with pytest.raises(FrontendsChangedError):
            await ground.balancer.apply(OTHERS, [change])
    assert await ground.there() == {frontend.listener: Present(frontend, OURS)}
    await ground.change(frontend, None)
    await ground.change(None, frontend, owner=OTHERS)
    assert await ground.there() == {frontend.listener: Present(frontend, OTHERS)}


async def test_of_two_who_want_the_same_address_one_has_it(ground: Ground) -> None:
    done = await asyncio.gather(
        ground.change(None, ground.frontend(port=8081)),
        ground.change(None, ground.frontend(port=8082), owner=OTHERS),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in done) == ["FrontendsChangedError", "NoneType"]
    assert [one.owner for one in (await ground.there()).values()] == [OURS if done[0] is None else OTHERS]


async def test_members_have_states(ground: Ground) -> None:
    well = await ground.member("well")
    await ground.change(None, ground.frontend(well))

    async def is_up() -> bool:
        return await ground.states() == {well: MemberState.UP}

    await ground.until(is_up, "the member to be up")


async def test_connections_are_spread_over_members(real: Ground) -> None:
    members = [await real.member(name) for name in ("one", "two", "three")]
    await real.change(None, real.frontend(*members))
    assert await real.names() == {"one", "two", "three"}


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_every_algorithm_takes_members_while_it_runs(real: Ground, algorithm: Algorithm) -> None:
    options = replace(OPTIONS, algorithm=algorithm)
    one, two = await real.member("one"), await real.member("two")
    before, after = real.frontend(one, options=options), real.frontend(two, options=options)
    await real.change(None, before)
    assert await real.names(3) == {"one"}
    await real.change(before, after)
    assert await real.names(3) == {"two"}


async def test_a_client_stays_with_its_member_by_its_address(real: Ground) -> None:
    members = [await real.member(str(number)) for number in range(5)]
    before = real.frontend(*members, options=replace(OPTIONS, algorithm=Algorithm.SOURCE))
    await real.change(None, before)
    sources = [f"127.0.3.{number}" for number in range(1, 13)]
    found = {source: await real.names(2, source=source) for source in sources}
    assert all(len(names) == 1 for names in found.values())
    assert len(set.union(*found.values())) > 1
    # Without one member, whoever was not with it stays where it was.
    await real.change(before, replace(before, members=before.members[1:]))
    gone = next(name for name, echo in real.echoes.items() if echo.member == before.members[0])
    for source, names in found.items():
        now = await real.names(2, source=source)
        assert now == names or (names == {gone} and now != {gone})


async def test_a_member_that_leaves_gets_nothing_new_and_keeps_what_it_has(real: Ground) -> None:
    one, two = await real.member("one"), await real.member("two")
    before, after = real.frontend(one), real.frontend(two)
    await real.change(None, before)
    client = await real.connect()
    await real.change(before, after)
    assert await real.names() == {"two"}
    await real.balancer.tend()
    assert await client.says("still here")
    assert await real.states() == {one: MemberState.LEAVING, two: MemberState.UP}
    client.close()

    async def is_gone() -> bool:
        await real.balancer.tend()
        return await real.states() == {two: MemberState.UP}

    await real.until(is_gone, "the member to be gone")


async def test_a_member_that_leaves_for_too_long_is_cut(real: Ground) -> None:
    one, two = await real.member("one"), await real.member("two")
    options = replace(OPTIONS, drain=0)
    await real.change(None, real.frontend(one, options=options))
    client = await real.connect()
    await real.change(real.frontend(one, options=options), real.frontend(two, options=options))

    async def is_gone() -> bool:
        await real.balancer.tend()
        return await real.states() == {two: MemberState.UP}

    await real.until(is_gone, "the member to be gone")
    assert not await client.says("still here")


async def test_a_member_that_comes_back_is_used_again(real: Ground) -> None:
    one, two = await real.member("one"), await real.member("two")
    await real.change(None, real.frontend(one, two))
    held = [await real.connect() for _ in range(2)]
    await real.change(real.frontend(one, two), real.frontend(two))
    assert await real.names() == {"two"}
    await real.change(real.frontend(two), real.frontend(one, two))
    assert await real.names() == {"one", "two"}
    assert all([await client.says("still here") for client in held])


async def test_connections_survive_changes_of_everything_else(real: Ground) -> None:
    one = await real.member("one")
    before = real.frontend(one)
    await real.change(None, before)
    client = await real.connect()
    changed = replace(before, options=replace(OPTIONS, algorithm=Algorithm.RANDOM))
    await real.change(before, changed)
    await real.change(None, real.frontend(one, port=8081))
    assert await client.says("still here")
    assert await real.names(3) == {"one"}
    assert await real.names(3, port=8081) == {"one"}


async def test_a_listener_that_goes_takes_no_connections(real: Ground) -> None:
    one = await real.member("one")
    await real.change(None, real.frontend(one))
    await real.change(None, real.frontend(one, port=8081))
    await real.change(real.frontend(one), None)

    async def refused() -> bool:
        return await real.names(1) == {""}

    await real.until(refused, "the listener to be gone")
    assert await real.names(1, port=8081) == {"one"}


async def test_a_member_that_does_not_answer_is_not_used_until_it_does(real: Ground) -> None:
    one, two = await real.member("one"), await real.member("two")
    await real.change(None, real.frontend(one, two))
    await real.echoes["one"].end()

    async def is_down() -> bool:
        return await real.states() == {one: MemberState.DOWN, two: MemberState.UP}

    await real.until(is_down, "the member to be down")
    assert await real.names() == {"two"}
    # What is known of members outlives changes of other things.
    await real.change(None, real.frontend(two, port=8081))
    assert await real.states() == {one: MemberState.DOWN, two: MemberState.UP}
    await real.echoes["one"].start(one.port)

    async def is_used() -> bool:
        return await real.names(4) == {"one", "two"}

    await real.until(is_used, "the member to be used again")


async def test_while_a_member_is_not_known_to_be_down_others_take_its_connections(real: Ground) -> None:
    one, two = await real.member("one"), await real.member("two")
    slow = replace(OPTIONS, check=HealthCheck(interval=300_000, timeout=300_000, rise=1, fall=100))
    await real.change(None, real.frontend(one, two, options=slow))
    await real.echoes["one"].end()
    assert await real.names() == {"two"}


async def test_only_clients_of_the_source_ranges_get_in(real: Ground) -> None:
    one = await real.member("one")
    options = replace(OPTIONS, sources=("127.0.4.0/24", "127.0.6.1/32", "fd00::/8"))
    await real.change(None, real.frontend(one, options=options))
    for source, name in {"127.0.4.9": "one", "127.0.6.1": "one", "127.0.6.2": "", "127.0.5.1": ""}.items():
        assert await real.names(1, source=source) == {name}


@pytest.mark.parametrize(("version", "start"), [(ProxyProtocol.V1, b"PROXY TCP4 "), (ProxyProtocol.V2, b"\r\n")])
async def test_members_are_told_the_clients_address(real: Ground, version: ProxyProtocol, start: bytes) -> None:
    one = await real.member("one")
    await real.change(None, real.frontend(one, options=replace(OPTIONS, proxy_protocol=version)))
    client = await real.connect(source="127.0.7.1")
    # An echo knows nothing of the protocol: it repeats the head too.
    await client.says("hello")

    async def heard() -> bool:
        return any(line.startswith(start) for line in real.echoes["one"].heads)

    await real.until(heard, "the member to be told")


async def test_a_listener_that_somebody_else_has_is_refused_and_nothing_is_done(real: Ground) -> None:
    stranger = Echo("stranger", host=real.address)
    taken = (await stranger.start()).port
    one = await real.member("one")
    try:
        with pytest.raises(ListenerRefusedError) as caught:
            changes = [Change(None, real.frontend(one)), Change(None, real.frontend(one, port=taken))]
            await real.balancer.apply(OURS, changes)
        assert caught.value.listener == real.listener(taken)
        assert await real.there() == {}
        await real.change(None, real.frontend(one))
        assert await real.names(2) == {"one"}
    finally:
        await stranger.end()


async def test_an_address_that_is_not_the_balancers_is_refused(real: Ground) -> None:
    listener = Listener("192.0.2.77", Protocol.TCP, 8080)
    with pytest.raises(ListenerRefusedError) as caught:
        await real.change(None, Frontend(listener, "shop/web"))
    assert caught.value.listener == listener
    assert "operator" in caught.value.hint


async def test_many_members_at_once(real: Ground) -> None:
    one = await real.member("one")
    many = [Member("127.0.0.9", port) for port in range(1, 301)]
    before = real.frontend(one)
    await real.change(None, before)
    await real.change(before, real.frontend(one, *many))
    assert len(await real.states()) == 301
    await real.change(real.frontend(one, *many), before)
    assert await real.names(3) == {"one"}


async def test_what_a_service_is_called_cannot_be_more_than_a_name(ground: Ground) -> None:
    hostile = 'web\n    server evil 192.0.2.1:1\nglobal\n#"\\ '
    frontend = replace(ground.frontend(), service=hostile)
    await ground.change(None, frontend)
    assert (await ground.there())[frontend.listener].frontend.service == hostile
    for member in (Member("127.0.0.1 disabled", 1), Member("127.0.0.1", 0), Member("a.example", 1)):
        if ground.real:
            with pytest.raises(ValueError, match=r"is no port|does not appear to be"):
                await ground.change(frontend, replace(frontend, members=(member,)))
    assert await ground.there() == {frontend.listener: Present(frontend, OURS)}
