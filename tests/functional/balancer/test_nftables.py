"""The kernel as a balancer between machines: packets of real clients to real members, and what comes back which way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from haneul.app.balancer_sharing import sharing_of
from haneul.balancer.adapters.keepalived_configuration import file_names
from haneul.balancer.adapters.nftables import NftablesBalancer
from haneul.balancer.adapters.nftables_rules import Kernel, Mode
from haneul.balancer.adapters.truth import Truth
from haneul.balancer.controller import ClusterController
from haneul.balancer.decisions import BALANCED
from haneul.balancer.members import Targets
from haneul.balancer.model import (
    Algorithm,
    Change,
    Frontend,
    HealthCheck,
    Listener,
    ListenerRefusedError,
    Member,
    MemberState,
    Options,
    Part,
    Pool,
    Protocol,
)
from haneul.balancer.settings import read_settings
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.kube import NODES, SERVICES
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for
from tests.balancers import CHECK, Echo, answered, short_folder
from tests.followed import FollowedCluster
from tests.namespaces import cable, entered, inside
from tests.segment import Conversation, Datagrams, Responder, Segment, asked, segment
from tests.support import HANEUL
from tests.unit.balancer.objects import node, port, service, site

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("conntrack"),
    reason="network namespaces need root, and the kernel's balancer 'make system-packages'",
)

OWNER = "first/0c5e7a0e"
ADDRESS = "10.66.0.100"
WEB, NAMES = Listener(ADDRESS, Protocol.TCP, 80), Listener(ADDRESS, Protocol.UDP, 53)
OPTIONS = Options(check=CHECK)
#: Nothing of these tests is about members that do not answer.
CALM = Options(check=HealthCheck(interval=300_000, timeout=300_000, fall=100))


class Ground:
    """A client, a balancer in whose namespace this thread is, and three machines that serve."""

    def __init__(self, net: Segment, folder: Path, kernel: Kernel) -> None:
        self.net = net
        self.folder = folder
        self.kernel = kernel
        self.balancer = self.again()
        self.responders = {name: Responder(net, name) for name in ("m1", "m2", "m3")}
        self.conversations: list[Conversation] = []

    def again(self) -> NftablesBalancer:
        """Return another one for the same folder, as one has who begins anew."""
        return NftablesBalancer(self.folder / "b", self.kernel, clock=SystemClock())

    def member(self, name: str, port: int = 8080) -> Member:
        return Member(self.net.addresses[name], port)

    def frontend(self, *names: str, listener: Listener = WEB, port: int = 8080, options: Options = CALM) -> Frontend:
        return Frontend(listener, "shop/web", options, tuple(sorted(self.member(name, port) for name in names)))

    async def change(self, before: Frontend | None, after: Frontend | None) -> None:
        await self.balancer.apply(OWNER, [Change(before, after)])

    async def names(self, times: int = 9) -> set[str]:
        return {(await asked(self.net, "client", ADDRESS, 80))[0] for _ in range(times)}

    async def converse(self) -> Conversation:
        made = await Conversation.begin(self.net, "client", ADDRESS, 80)
        self.conversations.append(made)
        return made

    async def until_states(self, listener: Listener, wanted: dict[str, MemberState], port: int = 8080) -> None:
        async def seen() -> bool:
            await self.balancer.tend()
            states = {member: one.state for member, one in (await self.balancer.health())[listener].items()}
            return states == {self.member(name, port): state for name, state in wanted.items()}

        await wait_for(seen, what=f"members to be {wanted}", timeout=30, clock=SystemClock(), interval=0.05)

    def hold(self, name: str) -> None:
        """Give a machine the address, without a word of it to the network: neither asked nor asking (ip-sysctl)."""
        self.net.set(name, "ipv4/conf/all/arp_ignore", "1")
        self.net.set(name, "ipv4/conf/all/arp_announce", "2")
        self.net.ip(name, "address", "add", f"{ADDRESS}/32", "dev", "lo")

    def rules(self) -> str:
        return inside(self.net.places["lb"], "nft", "list", "ruleset").stdout

    async def end(self) -> None:
        for conversation in self.conversations:
            conversation.close()
        for responder in self.responders.values():
            await responder.end()
        await self.balancer.close()


@contextlib.asynccontextmanager
async def made_ground(kernel: Kernel) -> AsyncIterator[Ground]:
    names = ["client", "lb", "m1", "m2", "m3"]
    with short_folder() as folder, segment(*names) as net, entered(net.path("lb")):
        net.ip("lb", "address", "add", f"{ADDRESS}/32", "dev", "eth0")
        net.set("lb", "ipv4/ip_forward", "1")
        ground = Ground(net, folder, kernel)
        try:
            yield ground
        finally:
            await ground.end()


@pytest.fixture
async def dnat() -> AsyncIterator[Ground]:
    async with made_ground(Kernel()) as ground:
        for responder in ground.responders.values():
            await responder.start(8080)
            await responder.start_udp(5353)
        yield ground


@pytest.fixture
async def direct() -> AsyncIterator[Ground]:
    async with made_ground(Kernel(Mode.DIRECT, device="eth0")) as ground:
        for name, responder in ground.responders.items():
            ground.hold(name)
            await responder.start(80)
            await responder.start_udp(53, ADDRESS)
        yield ground


async def test_tcp_and_udp_get_to_members_and_back(dnat: Ground) -> None:
    await dnat.change(None, dnat.frontend("m1", "m2", "m3"))
    await dnat.change(None, dnat.frontend("m1", "m2", listener=NAMES, port=5353))
    assert await dnat.names() == {"m1", "m2", "m3"}
    found = set()
    for _ in range(6):
        client = Datagrams(dnat.net, "client", ADDRESS, 53)
        first = await client.ask()
        # A client's datagrams stay with a member as long as they come from one port.
        assert await client.ask() == first
        found.add(first)
        client.close()
    balancer = dnat.net.addresses["lb"]
    assert found == {("m1", balancer), ("m2", balancer)}


async def test_datagrams_of_who_asked_before_and_asks_on_follow_the_listener(dnat: Ground) -> None:
    client = Datagrams(dnat.net, "client", ADDRESS, 53)
    assert await client.ask() == ("", "")
    frontend = dnat.frontend("m1", listener=NAMES, port=5353)
    await dnat.change(None, frontend)
    assert (await client.ask())[0] == "m1"
    await dnat.change(frontend, None)
    assert await client.ask() == ("", "")
    client.close()


async def test_ipv6(dnat: Ground) -> None:
    address = "fd00::100"
    dnat.net.ip("lb", "address", "add", f"{address}/128", "dev", "lo", "nodad")
    echoes = [Echo("one", host="::1"), Echo("two", host="::1")]
    members = tuple(sorted([await echo.start() for echo in echoes]))
    options = replace(CALM, sources=("fd00::/8", "10.0.0.0/8"))
    await dnat.change(None, Frontend(Listener(address, Protocol.TCP, 80), "shop/web", options, members))
    names = {await answered(address, 80) for _ in range(4)}
    for echo in echoes:
        await echo.end()
    assert names == {"one", "two"}


async def test_members_see_the_client_where_their_way_back_is_through_the_balancer(dnat: Ground) -> None:
    cable(dnat.net.places["client"], "198.51.100.2/24", dnat.net.places["lb"], "198.51.100.1/24", name="far")
    for name in dnat.responders:
        dnat.net.ip(name, "route", "add", "default", "via", dnat.net.addresses["lb"])
    dnat.balancer = NftablesBalancer(dnat.folder / "b", Kernel(masquerade=False), clock=SystemClock())
    dnat.net.ip("client", "route", "add", f"{ADDRESS}/32", "via", "198.51.100.1")
    await dnat.change(None, dnat.frontend("m1"))
    assert await asked(dnat.net, "client", ADDRESS, 80) == ("m1", "198.51.100.2")


async def test_only_clients_of_the_source_ranges_get_in(dnat: Ground) -> None:
    options = replace(CALM, sources=("10.66.0.0/25", "10.66.0.1/32"))
    await dnat.change(None, dnat.frontend("m1", options=options))
    dnat.net.ip("client", "address", "add", "10.66.0.200/24", "dev", "eth0")
    assert (await asked(dnat.net, "client", ADDRESS, 80))[0] == "m1"
    assert (await asked(dnat.net, "client", ADDRESS, 80, source="10.66.0.200"))[0] == ""
    udp = dnat.frontend("m1", listener=NAMES, port=5353, options=replace(CALM, sources=("192.0.2.0/24",)))
    await dnat.change(None, udp)
    client = Datagrams(dnat.net, "client", ADDRESS, 53)
    assert await client.ask() == ("", "")
    client.close()


async def test_udp_to_a_member_that_ends_goes_to_another_one(dnat: Ground) -> None:
    quick = replace(OPTIONS, check=replace(CHECK, timeout=300))
    frontend = dnat.frontend("m1", "m2", listener=NAMES, port=5353, options=quick)
    await dnat.change(None, frontend)
    client = Datagrams(dnat.net, "client", ADDRESS, 53)
    name, _ = await client.ask()
    other = {"m1": "m2", "m2": "m1"}[name]
    await dnat.responders[name].end()
    await dnat.until_states(NAMES, {name: MemberState.DOWN, other: MemberState.UP}, 5353)

    async def moved() -> bool:
        return (await client.ask())[0] == other

    await wait_for(moved, what="the client to be answered by the other one", timeout=30, clock=SystemClock())
    client.close()


@pytest.fixture(params=["dnat", "direct"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    way = Kernel() if request.param == "dnat" else Kernel(Mode.DIRECT, device="eth0")
    async with made_ground(way) as made:
        for name, responder in made.responders.items():
            if way.mode is Mode.DIRECT:
                made.hold(name)
            await responder.start(80)
        yield made


async def test_no_request_fails_while_members_roll(ground: Ground) -> None:
    before = ground.frontend("m1", "m2", port=80)
    await ground.change(None, before)
    kept = [await ground.converse() for _ in range(4)]
    first = [await one.ask() for one in kept]
    rolling, names = True, list[str]()

    async def ask_again_and_again() -> None:
        while rolling:
            names.append((await asked(ground.net, "client", ADDRESS, 80))[0])

    asking = [asyncio.ensure_future(ask_again_and_again()) for _ in range(3)]
    for members in (("m2", "m3"), ("m3", "m1"), ("m1", "m2")):
        after = ground.frontend(*members, port=80)
        await ground.change(before, after)
        before, seen = after, len(names)

        async def went_on(seen: int = seen) -> bool:
            await ground.balancer.tend()
            return len(names) > seen + 20

        await wait_for(went_on, what="requests to go on", timeout=30, clock=SystemClock())
    rolling = False
    await asyncio.gather(*asking)
    assert set(names) == {"m1", "m2", "m3"}
    # Whoever was connected was with the same member all along, also while it was leaving.
    assert [await one.ask() for one in kept] == first


async def test_a_member_that_leaves_for_too_long_is_cut(ground: Ground) -> None:
    options = replace(CALM, drain=0)
    before, after = ground.frontend("m1", port=80, options=options), ground.frontend("m2", port=80, options=options)
    await ground.change(None, before)
    client = await ground.converse()
    assert (await client.ask())[0] == "m1"
    await ground.change(before, after)
    await ground.until_states(WEB, {"m2": MemberState.UP}, 80)
    assert (await client.ask())[0] == ""
    assert await ground.names(2) == {"m2"}


async def test_what_begins_anew_changes_nothing_and_knows_everything(ground: Ground) -> None:
    before, after = ground.frontend("m1", "m2", port=80), ground.frontend("m2", port=80)
    await ground.change(None, before)
    kept = [await ground.converse() for _ in range(4)]
    first = [await one.ask() for one in kept]
    assert {name for name, _ in first} == {"m1", "m2"}
    await ground.change(before, after)
    rules = ground.rules()
    await ground.balancer.close()
    assert await ground.names(3) == {"m2"}, "nobody is there, and the kernel goes on"
    ground.balancer = ground.again()
    assert [one.frontend for one in (await ground.balancer.read()).values()] == [after]
    await ground.until_states(WEB, {"m1": MemberState.LEAVING, "m2": MemberState.UP}, 80)
    assert ground.rules().count("goto") == rules.count("goto")
    assert [await one.ask() for one in kept] == first


class KilledError(Exception):
    """Ends whoever raises it, as SIGKILL does: nobody puts anything back."""


class KilledBeforeTheKernel(NftablesBalancer):
    async def _settle(self, present: object) -> None:
        raise KilledError


class ForgetfulTruth(Truth):
    def store(self, present: object) -> None:
        raise KilledError


async def test_whoever_is_killed_is_gone_on_from(ground: Ground) -> None:
    options = replace(CALM, drain=0)
    before, after = ground.frontend("m1", port=80, options=options), ground.frontend("m2", port=80, options=options)
    await ground.change(None, before)
    client = await ground.converse()
    assert (await client.ask())[0] == "m1"
    killed = ground.again()
    killed._truth = ForgetfulTruth(ground.folder / "b")
    with pytest.raises(KilledError):
        await killed.apply(OWNER, [Change(before, after)])
    # Nothing was written down but that it would leave, so it does not.
    await ground.balancer.tend()
    assert (await client.ask())[0] == "m1"
    assert await ground.names(2) == {"m1"}
    with pytest.raises(KilledError):
        await KilledBeforeTheKernel(ground.folder / "b", ground.kernel, clock=SystemClock()).apply(
            OWNER, [Change(before, after)]
        )
    # It was written down, so it is so, for whoever comes next.
    assert await ground.names(2) == {"m1"}
    await ground.balancer.read()
    assert await ground.names(2) == {"m2"}
    await ground.until_states(WEB, {"m2": MemberState.UP}, 80)
    assert (await client.ask())[0] == ""


async def test_rules_that_somebody_took_away_come_back_and_others_stay(ground: Ground) -> None:
    await ground.change(None, ground.frontend("m1", port=80))
    assert inside(ground.net.places["lb"], "nft", "flush ruleset; add table ip company").returncode == 0
    assert await ground.names(1) == {""}
    await ground.balancer.tend()
    assert await ground.names(2) == {"m1"}
    await ground.balancer.end()
    left = json.loads(inside(ground.net.places["lb"], "nft", "-j", "list", "tables").stdout)["nftables"]
    assert [entry["table"]["name"] for entry in left if "table" in entry] == ["company"]


@contextlib.contextmanager
def counting(net: Segment, matches: Sequence[str]) -> Iterator[list[int]]:
    """Count the packets that come to the balancer; the numbers are there after the block."""
    lines = ["add table netdev watch"]
    lines.append('add chain netdev watch seen { type filter hook ingress device "eth0" priority -10; }')
    lines += [f"add rule netdev watch seen {match} counter" for match in matches]
    assert inside(net.places["lb"], "nft", "\n".join(lines)).returncode == 0
    found: list[int] = []
    yield found
    listed = json.loads(inside(net.places["lb"], "nft", "-j", "list", "table", "netdev", "watch").stdout)["nftables"]
    rules = [entry["rule"] for entry in listed if "rule" in entry]
    found += [one["counter"]["packets"] for rule in rules for one in rule["expr"] if "counter" in one]


async def test_direct_answers_do_not_come_past_the_balancer(direct: Ground) -> None:
    client = direct.net.addresses["client"]
    await direct.change(None, direct.frontend("m1", "m2", port=80))
    await direct.change(None, direct.frontend("m1", "m2", listener=NAMES, port=53))
    with counting(direct.net, [f"ip daddr {ADDRESS}", f"ip saddr {ADDRESS}", f"ip daddr {client}"]) as packets:
        answers = {await asked(direct.net, "client", ADDRESS, 80) for _ in range(6)}
        asking = [Datagrams(direct.net, "client", ADDRESS, 53) for _ in range(4)]
        answers |= {await one.ask() for one in asking}
        for one in asking:
            one.close()
    assert answers == {("m1", client), ("m2", client)}
    there, back, to_client = packets
    assert there > 20
    assert (back, to_client) == (0, 0)


async def test_direct_clients_stay_by_their_address(direct: Ground) -> None:
    options = replace(CALM, algorithm=Algorithm.SOURCE, sources=("10.66.0.0/24",))
    await direct.change(None, direct.frontend("m1", "m2", "m3", port=80, options=options))
    assert len(await direct.names(6)) == 1


async def test_direct_has_no_ipv6(direct: Ground) -> None:
    with pytest.raises(ListenerRefusedError, match="IPv4 alone"):
        await direct.change(None, Frontend(Listener("fd00::1", Protocol.TCP, 80), "shop/web"))


async def test_the_kernel_says_what_it_cannot(direct: Ground) -> None:
    await direct.balancer.prove()
    nowhere = NftablesBalancer(direct.folder / "n", Kernel(Mode.DIRECT, device="nowhere"), clock=SystemClock())
    with pytest.raises(HostNotReadyError, match="cannot balance as direct"):
        await nowhere.prove()
    with pytest.raises(UnavailableError, match="refused"):
        await nowhere.apply(OWNER, [Change(None, direct.frontend("m1", port=80))])
    assert await direct.balancer.read() == {}
    direct.net.set("lb", "ipv4/ip_forward", "0")
    with pytest.raises(HostNotReadyError, match="does not forward"):
        await NftablesBalancer(direct.folder / "d", Kernel(), clock=SystemClock()).prove()


async def test_it_is_listed_and_checked_and_shared(dnat: Ground, tmp_path: Path) -> None:
    await dnat.change(None, dnat.frontend("m1"))
    share = {"device": "eth0", "address": dnat.net.addresses["lb"], "peers": [dnat.net.addresses["m3"]]}
    document = {
        "kind": "nftables",
        "folder": str(dnat.folder / "b"),
        "share": share,
        "pools": [{"name": "public", "addresses": [f"{ADDRESS}-10.66.0.101"]}],
    }
    file = tmp_path / "balancer.yaml"
    file.write_text(yaml.safe_dump(document))
    done = await run([str(HANEUL), "balancer", "check", "shop/web", "--balancer", str(file), "-o", "json"], timeout=60)
    [row] = json.loads(done.stdout)
    assert (row["answer"], row["up"], row["members"]) == ("connects", 1, [str(dnat.member("m1"))])
    # Nobody else is there to have the addresses, and the kernel has the rules.
    dnat.net.ip("lb", "address", "delete", f"{ADDRESS}/32", "dev", "eth0")
    shared = sharing_of(read_settings(file), SystemClock())
    assert shared
    # By a call, as it is another one later on.
    part = partial(getattr, shared, "part")
    assert part() is Part.STANDBY
    changed = asyncio.Event()
    running = asyncio.ensure_future(shared.run(changed.set))
    _, *pid_files = file_names(dnat.folder / "b")
    try:
        async with asyncio.timeout(60):
            await changed.wait()
        assert part() is Part.ACTIVE
        assert (await asked(dnat.net, "client", ADDRESS, 80))[0] == "m1"
        # Without the rules the addresses go, though keepalived runs.
        changed.clear()
        await dnat.balancer.close()
        await dnat.balancer.end()
        async with asyncio.timeout(60):
            await changed.wait()
        assert part() is Part.STANDBY
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        ended = [int(pid_file.read_text()) for pid_file in pid_files]
        os.kill(ended[0], signal.SIGTERM)

        async def gone() -> bool:
            return not any(Path(f"/proc/{number}/cmdline").read_bytes() for number in ended if is_there(number))

        await wait_for(gone, what="keepalived to end", timeout=30, clock=SystemClock())


async def test_a_clusters_service_of_both_protocols_is_balanced(dnat: Ground) -> None:
    cluster = FollowedCluster()
    await cluster.with_namespaces()
    ports = [port(80, name="web", node_port=8080), port(53, name="dns", protocol="UDP", node_port=5353)]
    made = service("both", ports=ports)
    del made["status"]
    await cluster.create(SERVICES, made)
    for name in ("m1", "m2"):
        there = node(name, dnat.net.addresses[name])
        await cluster.create(NODES, there)
        await cluster.patch(NODES, name, {"status": there["status"]}, subresource="status")
    where = site(Pool("public", ((ADDRESS, ADDRESS),)), targets=Targets.NODES, abilities=dnat.balancer.abilities)
    controller = ClusterController(cluster, dnat.balancer, "first", where, clock=SystemClock())
    working = asyncio.ensure_future(controller.run())

    async def told() -> bool:
        status = (await cluster.get(SERVICES, "both", "shop") or {}).get("status", {})
        return any(entry["reason"] == BALANCED for entry in status.get("conditions", []))

    try:
        await wait_for(told, what="the Service to be balanced", timeout=60, clock=SystemClock())
        assert await dnat.names(4) == {"m1", "m2"}
        client = Datagrams(dnat.net, "client", ADDRESS, 53)
        assert (await client.ask())[0] in ("m1", "m2")
        client.close()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def is_there(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


async def test_of_two_on_one_folder_one_asks_members_and_the_other_goes_on(dnat: Ground) -> None:
    await dnat.change(None, dnat.frontend("m1", "m2", options=OPTIONS))
    other = dnat.again()
    await other.tend()
    await dnat.balancer.close()
    dnat.balancer = other
    await dnat.responders["m1"].end()
    await dnat.until_states(WEB, {"m1": MemberState.DOWN, "m2": MemberState.UP})
    assert await dnat.names(4) == {"m2"}
