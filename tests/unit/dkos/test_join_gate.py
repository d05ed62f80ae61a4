"""The gate on joining in the control loop: no certificate, no pods, before a person said so; and out afterwards."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haneul.dkos.control_plane import Images
from haneul.dkos.controller import ClusterController
from haneul.dkos.credentials import decode
from haneul.dkos.events import Look, told
from haneul.dkos.model import (
    CLUSTERS,
    Cluster,
    ClusterStatus,
    ExternalResource,
    NodePool,
    NodeStatus,
    Phase,
    project_namespace,
)
from haneul.dkos.pace import IDLE, Pace
from haneul.firewall.model import Approval, Resource, Rule, Way, rule_of
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import CERTIFICATE_REQUESTS, NODES, SECRETS
from tests.unit.dkos.test_controller import Calls, World

DB = ExternalResource(name="db-prod", addresses=("10.1.2.3/32",), ports=("5432/tcp",), reason="orders")
WAITS = "waits for a firewall approver: db-prod 10.1.2.3:5432"


def gated(cluster: Cluster, count: int = 1, *resources: ExternalResource) -> Cluster:
    pools = (NodePool(name="open", count=1), NodePool(name="gated", count=count, external_resources=resources or (DB,)))
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"node_pools": pools})})


class Gated(World):
    """A cluster with an open and a gated node; kubelets ask for certificates, and nodes that have one register."""

    @contextlib.asynccontextmanager
    async def running(self, like: Cluster) -> AsyncIterator[ClusterController]:
        await self.ask(like)
        async with self.controller() as controller:
            for _ in range(3):
                await self.look(controller, like)
            assert len(await self.tenant.list(CERTIFICATE_REQUESTS)) == like.spec.node_count
            yield controller

    async def look(self, controller: ClusterController, like: Cluster) -> ClusterStatus:
        """Let kubelets ask, look, and let those register that got a certificate."""
        cluster = await self.cluster(like)
        for machine in await self.nodes.observe(cluster):
            await self.request(cluster, machine.name, machine.instance)
        status = await controller.reconcile(cluster)
        await self.join(like)
        return status

    async def join(self, like: Cluster) -> None:
        cluster = await self.cluster(like)
        machines = await self.nodes.observe(cluster)
        kept = {machine.name for machine in machines if await self.certificate(machine.name, machine.instance)}
        before = {node["metadata"]["name"] for node in await self.tenant.list(NODES)}
        await self.move(cluster)
        for node in await self.tenant.list(NODES):
            # The world lets every machine join; without a certificate none can.
            if (name := node["metadata"]["name"]) not in kept | before:
                await self.tenant.delete(NODES, name)

    async def request(self, cluster: Cluster, node: str, instance: str) -> None:
        name = f"csr-{node}-{instance}"
        kept = await self.management.get(SECRETS, "bootstrap-tokens", cluster.masters_namespace)
        if kept is None or node not in decode(kept) or await self.tenant.get(CERTIFICATE_REQUESTS, name) is not None:
            return
        user = f"system:bootstrap:{decode(kept)[node].decode().split('.')[0]}"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"system:node:{node}")]
        asked = x509.CertificateSigningRequestBuilder().subject_name(
            x509.Name([x509.NameAttribute(kind, value) for kind, value in subject])
        )
        pem = asked.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        spec = {
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "request": base64.b64encode(pem).decode(),
            "usages": ["digital signature", "client auth"],
            "username": user,
        }
        await self.tenant.apply(CERTIFICATE_REQUESTS, {"metadata": {"name": name}, "spec": spec})

    async def certificate(self, node: str, instance: str) -> bool:
        found = await self.tenant.get(CERTIFICATE_REQUESTS, f"csr-{node}-{instance}")
        return bool(found and found.get("status", {}).get("certificate"))

    async def has_certificate(self, like: Cluster, node: str = "gated-0") -> bool:
        machines = {one.name: one for one in await self.nodes.observe(await self.cluster(like))}
        return await self.certificate(node, machines[node].instance)

    async def way(self, like: Cluster, node: str = "gated-0", resource: ExternalResource = DB) -> Way:
        cluster = await self.cluster(like)
        machines = {one.name: one for one in await self.nodes.observe(cluster)}
        wanted = Resource.model_validate(resource.model_dump())
        return Way(
            project=cluster.project,
            cluster=cluster.name,
            uid=cluster.uid,
            pool="gated",
            node=node,
            address=machines[node].address,
            resource=wanted,
        )

    async def ended_at(self, call: int, like: Cluster) -> None:
        """Let a controller look until its n-th call, and end it there as a kill does."""
        self.calls = self.wire._calls = Calls()
        self.calls.hold_at = call
        async with self.controller() as controller:
            await self.calls.end(self.look(controller, like))
        self.calls = self.wire._calls = Calls()

    async def registered(self) -> set[str]:
        return {node["metadata"]["name"] for node in await self.tenant.list(NODES)}


def approval(way: Way, now: datetime) -> Approval:
    return Approval(way=way, approver="carol", decision=1, moment=now)


@pytest.fixture
def world(images: Images, native: Cluster) -> Gated:
    return Gated(images, VirtualClock(native.created))


async def test_a_gated_node_waits_without_a_certificate_and_says_for_whom(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        for _ in range(3):
            status = await world.look(controller, like)
        assert await world.registered() == {"open-0"}
        assert not await world.has_certificate(like)
        waiting = next(node for node in status.nodes if node.name == "gated-0")
        assert (waiting.message, waiting.ready) == (WAITS, False)
        assert waiting.address in next(
            event.message for event in world.told if event.reason.value == "NodeAwaitsApproval"
        )
        assert [event.reason.value for event in world.told].count("NodeAwaitsApproval") == 1
        # Only a person can go on, so nobody looks all the time.
        assert Pace().after(status, 0) == IDLE


async def test_an_approved_node_joins_at_the_next_look_after_the_firewall_was_told(
    world: Gated, native: Cluster
) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        way = await world.way(like)
        assert await world.firewall.opened(way.uid) == frozenset()
        await world.approvals.publish(approval(way, world.clock.now()))
        await world.look(controller, like)
        assert await world.has_certificate(like)
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}
        status = await world.look(controller, like)
        assert {node.name for node in status.nodes if node.ready} == {"open-0", "gated-0"}
        assert "NodeApproved" in [event.reason.value for event in world.told]


@pytest.mark.parametrize(
    "change",
    [{"address": "192.0.2.200"}, {"node": "gated-1"}, {"pool": "open"}, {"uid": "another"}, {"project": "other"}],
)
async def test_an_approval_of_anything_else_lets_nobody_in(
    world: Gated, native: Cluster, change: dict[str, str]
) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        way = await world.way(like)
        await world.approvals.publish(approval(way.model_copy(update=change), world.clock.now()))
        await world.look(controller, like)
        assert not await world.has_certificate(like)
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_every_resource_needs_an_approval(world: Gated, native: Cluster) -> None:
    mail = ExternalResource(name="mail", addresses=("10.1.9.1/32",), ports=("25/tcp",), reason="letters")
    like = gated(native, 1, DB, mail)
    async with world.running(like) as controller:
        await world.approvals.publish(approval(await world.way(like), world.clock.now()))
        status = await world.look(controller, like)
        assert not await world.has_certificate(like)
        assert "mail 10.1.9.1:25" in next(node.message for node in status.nodes if node.name == "gated-0")
        await world.approvals.publish(approval(await world.way(like, resource=mail), world.clock.now()))
        await world.look(controller, like)
        assert await world.has_certificate(like)


async def test_a_revoked_node_is_cordoned_emptied_removed_and_then_its_way_closed(
    world: Gated, native: Cluster
) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        way = await world.way(like)
        await world.approvals.publish(approval(way, world.clock.now()))
        await world.look(controller, like)
        await world.look(controller, like)
        assert "gated-0" in await world.registered()
        await world.approvals.withdraw(approval(way, world.clock.now()))
        await world.look(controller, like)
        node = await world.tenant.get(NODES, "gated-0")
        assert node is not None
        assert node["spec"]["unschedulable"] is True
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}, "its pods still move"
        for _ in range(3):
            status = await world.look(controller, like)
        assert await world.registered() == {"open-0"}
        assert await world.firewall.opened(way.uid) == frozenset()
        # Its successor is another machine and needs another approval.
        assert not await world.has_certificate(like)
        assert next(node.message for node in status.nodes if node.name == "gated-0") == WAITS
        assert "NodeApprovalEnded" in [event.reason.value for event in world.told]


async def test_a_cluster_that_sleeps_holds_no_way_open(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        way = await world.way(like)
        await world.approvals.publish(approval(way, world.clock.now()))
        await world.look(controller, like)
        status = await world.look(controller, like)
        assert status.phase is Phase.READY
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}
        spec = (await world.cluster(like)).spec
        word = spec.hibernation.model_copy(update={"asleep": True, "asked": world.clock.now()})
        await world.ask(like.model_copy(update={"spec": spec.model_copy(update={"hibernation": word})}))
        for _ in range(30):
            status = await controller.reconcile(await world.cluster(like))
            await world.move(await world.cluster(like))
        assert status.phase is Phase.ASLEEP
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_changed_resource_takes_the_node_out(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        await world.approvals.publish(approval(await world.way(like), world.clock.now()))
        await world.look(controller, like)
        await world.look(controller, like)
        wider = DB.model_copy(update={"ports": ("1-65535/tcp",)})
        await world.ask(gated(native, 1, wider))
        for _ in range(4):
            await world.look(controller, like)
        assert await world.registered() == {"open-0"}
        assert await world.firewall.opened((await world.cluster(like)).uid) == frozenset()


async def test_a_node_taken_back_between_look_and_signature_gets_no_certificate(
    world: Gated, native: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        way = await world.way(like)
        await world.approvals.publish(approval(way, world.clock.now()))
        apply = world.firewall.apply

        async def told_and_revoked(owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
            await apply(owner, rules, leaving)
            await world.approvals.withdraw(approval(way, world.clock.now()))

        monkeypatch.setattr(world.firewall, "apply", told_and_revoked)
        await controller.reconcile(await world.cluster(like))
        assert not await world.has_certificate(like)


async def test_a_machine_replaced_between_look_and_signature_gets_no_certificate(
    world: Gated, native: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        cluster = await world.cluster(like)
        await world.approvals.publish(approval(await world.way(like), world.clock.now()))
        apply, announced = world.firewall.apply, {}

        async def told_and_replaced(owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
            await apply(owner, rules, leaving)
            announced.update({machine.name: machine for machine in await world.nodes.observe(cluster)})
            await world.nodes.remove(cluster, "gated-0")

        monkeypatch.setattr(world.firewall, "apply", told_and_replaced)
        await controller.reconcile(cluster)
        assert not await world.certificate("gated-0", announced["gated-0"].instance)


async def test_a_silent_firewall_keeps_new_nodes_out_and_lets_those_that_are_in_stay(
    world: Gated, native: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = gated(native, 2)
    async with world.running(like) as controller:
        await world.approvals.publish(approval(await world.way(like), world.clock.now()))
        await world.look(controller, like)
        await world.look(controller, like)

        async def silent(owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
            raise UnavailableError("the gateway does not answer")

        monkeypatch.setattr(world.firewall, "apply", silent)
        await world.approvals.publish(approval(await world.way(like, "gated-1"), world.clock.now()))
        for _ in range(3):
            status = await world.look(controller, like)
        assert await world.registered() == {"open-0", "gated-0"}
        assert "does not answer" in next(node.message for node in status.nodes if node.name == "gated-1")
        assert next(node.ready for node in status.nodes if node.name == "gated-0")


async def test_a_tenant_s_own_approval_of_the_certificate_request_signs_nothing(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        condition = {"type": "Approved", "status": "True", "reason": "Mine", "message": "me"}
        for csr in await world.tenant.list(CERTIFICATE_REQUESTS):
            if not csr.get("status", {}).get("certificate"):
                name, patch = csr["metadata"]["name"], {"status": {"conditions": [condition]}}
                await world.tenant.patch(CERTIFICATE_REQUESTS, name, patch, subresource="approval")
        await world.look(controller, like)
        assert not await world.has_certificate(like)
        await world.approvals.publish(approval(await world.way(like), world.clock.now()))
        await world.look(controller, like)
        assert await world.has_certificate(like)
        csr_now = await world.tenant.get(CERTIFICATE_REQUESTS, name)
        assert csr_now is not None
        assert csr_now["status"]["conditions"] == [condition], "Kubernetes refuses to change it"


async def test_words_in_the_cluster_s_status_approve_nothing(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        status = (await world.cluster(like)).status.model_dump(mode="json", by_alias=True)
        for node in status["nodes"]:
            node.update(barred="", message="", ready=True)
        namespace = project_namespace(like.project)
        await world.management.patch(CLUSTERS, like.name, {"status": status}, namespace, subresource="status")
        await world.look(controller, like)
        assert not await world.has_certificate(like)


async def test_whoever_goes_on_after_an_end_at_any_call_lets_in_nobody_unapproved(
    images: Images, native: Cluster
) -> None:
    """The process ends at one call after the other, while one of two gated nodes is approved and then revoked."""
    like = gated(native, 2)
    for end in range(1, 60, 7):
        world = Gated(images, VirtualClock(native.created))
        async with world.running(like):
            pass
        way = await world.way(like)
        for withdrawn in (False, True):
            if withdrawn:
                await world.approvals.withdraw(approval(way, world.clock.now()))
            else:
                await world.approvals.publish(approval(way, world.clock.now()))
            await world.ended_at(end, like)
            assert not await world.has_certificate(like, "gated-1")
            async with world.controller() as controller:
                for _ in range(6):
                    await world.look(controller, like)
            assert ("gated-0" in await world.registered()) is not withdrawn
            assert not await world.has_certificate(like, "gated-1")
            assert await world.firewall.opened(way.uid) == (frozenset() if withdrawn else {rule_of(way).key})


def test_the_end_of_an_approval_is_told_of_a_node_that_is_not_ready_yet(native: Cluster) -> None:
    def seen(barred: str, address: str = "10.0.0.9") -> Look:
        node = NodeStatus(name="gated-0", pool="gated", address=address, barred=barred)
        return Look(native.status.model_copy(update={"nodes": (node,)}))

    def reasons(before: Look, after: Look) -> list[str]:
        return [event.reason.value for event in told(before, after)]

    assert reasons(seen(""), seen(WAITS)) == ["NodeApprovalEnded"]
    assert reasons(seen(WAITS), seen(WAITS)) == []
    assert reasons(seen("", address=""), seen(WAITS)) == ["NodeAwaitsApproval"]
    assert reasons(seen(WAITS), seen("")) == ["NodeApproved"]
