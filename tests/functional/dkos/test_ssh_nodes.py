"""Machines with real SSH servers as nodes: what is refused, what is resumed, what comes back, and what is left behind.

The node image is a small one that only stays there; how nodes join and run pods is for the end-to-end tests.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from haneul.dkos.adapters import node_pack, ssh_session
from haneul.dkos.adapters.node_pack import NodePack, archive, pack
from haneul.dkos.adapters.ssh_machines import SshMachines
from haneul.dkos.adapters.ssh_nodes import SshNodes
from haneul.dkos.adapters.ssh_session import MachineCommandError, SshTarget, open_session
from haneul.dkos.machine_store import MemoryMachines
from haneul.dkos.machines import MachineSpec
from haneul.dkos.model import Cluster, ClusterSpec, Network, NodePool, NodeProviderName
from haneul.dkos.node_files import node_files
from haneul.dkos.ports import NodeAnnouncement, ProvidedNode
from haneul.dkos.releases import VERSIONS
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.waiting import wait_for
from tests.machines import Machine, idle_node_tree, machines

CLOCK = SystemClock()
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
SECONDS = 60.0


@dataclass
class Site:
    """One machine, registered in the project ``shop`` as ``rack1``."""

    machine: Machine
    store: MemoryMachines
    #: By version of Kubernetes.
    packs: dict[str, NodePack]
    providers: list[SshNodes] = field(default_factory=list)

    @property
    def reached(self) -> SshMachines:
        return SshMachines(self.store, self.store, architecture=ARCHITECTURE, clock=CLOCK)

    def provider(self) -> SshNodes:
        """Return a provider that knows nothing yet, as after a restart of the operator."""

        async def packed(version: str) -> NodePack:
            if version not in self.packs:
                raise HostNotReadyError(f"the node image of {version} is not there")
            return self.packs[version]

        made = SshNodes(self.reached, pack=packed, clock=CLOCK)
        self.providers.append(made)
        return made

    async def target(self, *, host_key: str | None = None) -> SshTarget:
        key = await self.store.private("shop")
        pin = self.machine.fingerprint if host_key is None else host_key
        return SshTarget(self.machine.address, 22, "root", key, pin)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    if os.geteuid() != 0 or shutil.which("sshd") is None:
        pytest.skip("machines are made by root, with the SSH server of the Debian package openssh-server")
    store = MemoryMachines()
    packs = {one: pack(idle_node_tree(tmp_path / one, version=one)) for one in VERSIONS}
    async with machines(tmp_path, await store.public("shop"), count=1) as (machine,):
        await store.add("shop", "rack1", MachineSpec(address=machine.address, host_key=machine.fingerprint))
        made = Site(machine, store, packs)
        try:
            yield made
        finally:
            for provider in made.providers:
                await provider.close()


def cluster(name: str) -> Cluster:
    pool = NodePool(name="default", provider=NodeProviderName.SSH, machines=("rack1",), count=1)
    network = Network(pods="10.0.0.0/18", services="10.128.0.0/20")
    spec = ClusterSpec(network=network, node_pools=(pool,))
    return Cluster(project="shop", name=name, uid=f"uid-{name}", generation=1, created=datetime.now(UTC), spec=spec)


def announcement(of: Cluster, version: str = VERSIONS[0]) -> NodeAnnouncement:
    pool = of.spec.node_pools[0]
    files = node_files(of, pool, "default-rack1", pause_image="pause")
    return NodeAnnouncement("default-rack1", pool, files, b"kubeconfig", b"authority", version)


async def seen(
    provider: SshNodes,
    of: Cluster,
    what: str,
    wanted: Callable[[ProvidedNode], bool],
    version: str = VERSIONS[0],
) -> ProvidedNode:
    """Keep the node as a controller does, until it is as wanted."""

    async def look() -> ProvidedNode | None:
        await provider.ensure(of, announcement(of, version))
        found = await provider.observe(of)
        return found[0] if found and wanted(found[0]) else None

    return await wait_for(look, what=what, timeout=SECONDS, clock=CLOCK)


async def test_a_machine_is_left_exactly_as_it_was_found(site: Site) -> None:
    router = f"{site.machine.address.rpartition('.')[0]}.1"
    # Somebody's own, among addresses that the pods will have: no reason to take it away.
    await site.machine.run("ip", "route", "add", "10.0.9.0/24", "via", router)
    before = await site.machine.snapshot()
    shop, provider = cluster("shop"), site.provider()
    await seen(provider, shop, "the node to run", lambda node: node.running)
    assert await site.machine.snapshot() != before
    # What the node's programs make while it runs, and a kubelet changes.
    await site.machine.run("ip", "link", "add", "flannel.1", "type", "bridge")
    await site.machine.run("sysctl", "-q", "net.ipv4.conf.all.route_localnet=1")
    for pods in ("10.0.1.0/24", "10.0.2.0/24"):
        await site.machine.run("ip", "route", "add", pods, "via", router)
    await provider.release(shop, seconds=SECONDS)
    assert await site.machine.differences(before) == {}
    assert (await site.store.get("shop", "rack1")).status.claim is None


async def test_a_machine_with_a_foreign_kubelet_is_refused_and_not_touched(site: Site) -> None:
    await site.machine.run("mkdir", "-p", "/etc/kubernetes/manifests")
    before = await site.machine.snapshot()
    shop, provider = cluster("shop"), site.provider()
    refused = await seen(provider, shop, "the refusal", lambda node: "foreign Kubernetes" in node.message)
    assert "/etc/kubernetes" in refused.message and not refused.running
    await provider.close()
    assert await site.machine.differences(before) == {}
    checked = await site.reached.check(await site.store.get("shop", "rack1"))
    assert checked.status.check is not None and not checked.status.check.passed


async def test_another_host_key_than_the_pinned_one_is_not_spoken_to(site: Site) -> None:
    wrong = await site.target(host_key="SHA256:" + "A" * 43)
    with pytest.raises(UnavailableError, match="not the pinned"):
        async with open_session(wrong):
            pass


async def test_first_host_key_is_pinned_when_that_was_asked_for(site: Site) -> None:
    machine = await site.store.get("shop", "rack1")
    trusting = MachineSpec(address=machine.spec.address, trust_on_first_use=True)
    checked = await site.reached.check(await site.store.change(machine, trusting))
    assert checked.status.host_key == site.machine.fingerprint
    assert checked.status.check is not None and checked.status.check.passed


async def test_a_key_that_the_machine_does_not_know_is_told_with_what_to_do(site: Site) -> None:
    stranger = MemoryMachines()
    await stranger.public("shop")
    target = await site.target()
    with pytest.raises(UnavailableError) as refused:
        async with open_session(SshTarget(target.address, 22, "root", await stranger.private("shop"), target.host_key)):
            pass
    assert "authorized_keys" in refused.value.hint


async def test_sending_goes_on_where_it_was_interrupted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_pack, "PART_BYTES", 64 << 10)
    many = pack(site.packs[VERSIONS[0]].tree)
    assert len(set(many.parts)) > 4
    shop, claim = cluster("shop"), "uid-shop/shop/shop/default-rack1"
    async with open_session(await site.target()) as session:
        await session.run("begin", claim)
        first = next(many.read(frozenset(many.parts[:1])))
        await session.send_part(*first)
        with pytest.raises(MachineCommandError, match="damaged"):
            await session.send_part(many.parts[1], b"not what was asked for")
        assert (await session.run("parts")).split() == [first[0]]
    site.packs[VERSIONS[0]] = many
    await seen(site.provider(), shop, "the node to run", lambda node: node.running)


async def test_a_provider_that_was_killed_is_continued_by_the_next(site: Site) -> None:
    shop, first = cluster("shop"), site.provider()
    await first.ensure(shop, announcement(shop))

    async def begun() -> bool:
        return (site.machine.folder / "opt/haneul/node/owner").exists()

    await wait_for(begun, what="the work on the machine", timeout=SECONDS, clock=CLOCK, interval=0.01)
    await first.close()
    node = await seen(site.provider(), shop, "the node to run", lambda node: node.running)
    again = await seen(site.provider(), shop, "the same node", lambda node: node.running)
    assert again.instance == node.instance


async def test_a_reset_that_was_interrupted_is_finished_by_the_next_operator(site: Site) -> None:
    before = await site.machine.snapshot()
    shop, first = cluster("shop"), site.provider()
    await seen(first, shop, "the node to run", lambda node: node.running)
    await first.remove(shop, "default-rack1")
    await first.close()
    # Its cluster is gone meanwhile; only the claim tells that the machine is not back yet.
    await site.provider().resume()

    async def free() -> bool:
        return (await site.store.get("shop", "rack1")).status.claim is None

    await wait_for(free, what="the machine to be put back", timeout=SECONDS, clock=CLOCK)
    assert await site.machine.differences(before) == {}


async def test_a_machine_that_rebooted_is_the_same_node_again_by_itself(site: Site) -> None:
    shop, provider = cluster("shop"), site.provider()
    node = await seen(provider, shop, "the node to run", lambda node: node.running)
    site.machine.kill()
    await seen(provider, shop, "its silence to be told", lambda node: bool(node.message))
    await site.machine.start()
    again = await seen(provider, shop, "the node to run again", lambda node: node.running and not node.message)
    assert (again.instance, again.started) == (node.instance, node.started)


async def test_a_machine_is_never_the_node_of_two_clusters(site: Site) -> None:
    shop, other, provider = cluster("shop"), cluster("other"), site.provider()
    node = await seen(provider, shop, "the node to run", lambda node: node.running)
    refused = await seen(provider, other, "the refusal", lambda node: bool(node.message))
    assert "shop/shop" in refused.message and not refused.running
    # Neither where the store's word is lost: the machine itself knows whose it is.
    async with open_session(await site.target()) as session:
        with pytest.raises(MachineCommandError, match="node of uid-shop"):
            await session.run("begin", "uid-other/shop/other/default-rack1")
        with pytest.raises(MachineCommandError, match="node of uid-shop"):
            await session.run("reset", "uid-other/shop/other/default-rack1")
    (still,) = await provider.observe(shop)
    assert still.instance == node.instance and still.running


async def test_dead_process_of_a_node_is_started_again(site: Site) -> None:
    shop, provider = cluster("shop"), site.provider()
    node = await seen(provider, shop, "the node to run", lambda node: node.running)
    async with open_session(await site.target()) as session:
        await session.run("stop", "uid-shop/shop/shop/default-rack1")
        assert not (await session.state()).running
    again = await seen(site.provider(), shop, "the node to run again", lambda node: node.running)
    assert again.instance == node.instance


async def test_another_version_is_another_node_of_that_version_s_files_on_the_same_machine(site: Site) -> None:
    before = await site.machine.snapshot()
    shop, provider = cluster("shop"), site.provider()

    async def version_on_machine() -> str:
        folder = "/opt/haneul/node"
        return await site.machine.run("sh", "-c", f"cat {folder}/$(cat {folder}/using)/etc/kubernetes-version")

    older = await seen(provider, shop, "the node to run", lambda node: node.running, VERSIONS[1])
    assert (await version_on_machine()).strip() == VERSIONS[1]
    newer = await seen(
        provider, shop, "the newer node", lambda node: node.running and node.instance != older.instance, VERSIONS[0]
    )
    assert (await version_on_machine()).strip() == VERSIONS[0]
    assert newer.started is not None and older.started is not None and newer.started >= older.started
    # A version whose files nobody has leaves the machine alone and says so.
    del site.packs[VERSIONS[1]]
    await seen(provider, shop, "the refusal", lambda node: "is not there" in node.message, VERSIONS[1])
    assert (await version_on_machine()).strip() == VERSIONS[0]
    await provider.release(shop, seconds=SECONDS)
    assert await site.machine.differences(before) == {}


async def test_changed_authorities_reach_the_running_node(site: Site) -> None:
    shop, provider = cluster("shop"), site.provider()
    node = await seen(provider, shop, "the node to run", lambda node: node.running)
    kept = site.machine.folder / "opt/haneul/node/bootstrap/ca.crt"
    assert kept.read_bytes() == b"authority"
    await provider.ensure(shop, replace(announcement(shop), authority=b"authority and another"))

    async def written() -> bool:
        return kept.read_bytes() == b"authority and another"

    await wait_for(written, what="the changed authorities", timeout=SECONDS, clock=CLOCK)
    (still,) = await provider.observe(shop)
    assert (still.instance, still.running) == (node.instance, True)


async def test_node_is_known_to_the_next_operator_before_it_meets_the_machine(site: Site) -> None:
    shop, first = cluster("shop"), site.provider()
    announced = replace(announcement(shop), era=3)
    await first.ensure(shop, announced)

    async def kept() -> bool:
        status = (await site.store.get("shop", "rack1")).status
        return status.node is not None and bool(status.node.instance)

    await wait_for(kept, what="the node to be written down", timeout=SECONDS, clock=CLOCK)
    (node,) = await first.observe(shop)
    await first.close()
    site.machine.kill()
    (known,) = await site.provider().observe(shop)
    assert (known.revision, known.era) == (first.revision(shop, announced), 3)
    assert (known.instance, known.started, known.running) == (node.instance, node.started, True)


async def test_secrets_are_for_root_only(site: Site) -> None:
    shop, provider = cluster("shop"), site.provider()
    await seen(provider, shop, "the node to run", lambda node: node.running)
    kept = site.machine.folder / "opt/haneul/node/bootstrap/kubeconfig"
    assert kept.read_bytes() == b"kubeconfig"
    assert kept.stat().st_mode & 0o077 == 0 and kept.parent.stat().st_mode & 0o077 == 0


async def test_archive_keeps_names_and_modes(tmp_path: Path) -> None:
    (tmp_path / "made.tar").write_bytes(archive({"a/b": (b"one", 0o600), "c": (b"two", 0o755)}))
    process = await asyncio.create_subprocess_exec("tar", "-xf", str(tmp_path / "made.tar"), "-C", str(tmp_path))
    assert await process.wait() == 0
    assert (tmp_path / "a/b").read_bytes() == b"one" and (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o755


async def test_machine_that_talks_without_end_is_not_listened_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_session, "_script", lambda _: "exec yes")
    async with open_session(await site.target()) as session:
        with pytest.raises(MachineCommandError, match="says more"):
            await session.run("facts")
    monkeypatch.setattr(ssh_session, "_script", lambda _: "yes >&2; exit 1")
    async with open_session(await site.target()) as session:
        with pytest.raises(MachineCommandError, match="says more"):
            await session.run("facts")
