"""What every store of machines does, and every keeper of their keys: the behaviour suite of both ports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from haneul.dkos.adapters.kube_machines import KEYS_NAMESPACE, KubeKeys, KubeMachines
from haneul.dkos.machine_store import MachineStore, MemoryMachines, PrivateKeys, PublicKeys
from haneul.dkos.machines import Claim, InstalledNode, MachineSpec, MachineStatus
from haneul.kernel.errors import ConflictError, NotFoundError
from haneul.kernel.kube import NAMESPACES, SECRETS
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.ssh_keys import new_ssh_key

SPEC = MachineSpec(address="192.0.2.11", host_key="SHA256:" + "A" * 43)
CLAIM = Claim(cluster_uid="u", cluster="shop/metal", node="default-rack1")


@dataclass(frozen=True)
class Stores:
    """A store of machines and what keeps their keys, seen by the API and by the operator."""

    machines: MachineStore
    public: PublicKeys
    private: PrivateKeys


@pytest.fixture(params=["memory", "kubernetes"])
async def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        memory = MemoryMachines()
        return Stores(memory, memory, memory)
    client = MemoryKubeClient()
    await client.apply(NAMESPACES, {"metadata": {"name": KEYS_NAMESPACE}})
    return Stores(KubeMachines(client), KubeKeys(client), KubeKeys(client))


async def test_machine_is_kept_as_it_was_added(stores: Stores) -> None:
    made = await stores.machines.add("shop", "rack1", SPEC)
    assert await stores.machines.get("shop", "rack1") == made
    assert (made.spec, made.status) == (SPEC, MachineStatus())
    assert [machine.name for machine in await stores.machines.list("shop")] == ["rack1"]
    assert await stores.machines.list("lab") == []
    assert [machine.project for machine in await stores.machines.list()] == ["shop"]


async def test_name_is_taken_once_in_a_project(stores: Stores) -> None:
    await stores.machines.add("shop", "rack1", SPEC)
    with pytest.raises(ConflictError):
        await stores.machines.add("shop", "rack1", SPEC)
    await stores.machines.add("lab", "rack1", SPEC)


async def test_what_was_seen_of_a_machine_s_node_is_kept_until_it_is_forgotten(stores: Stores) -> None:
    node = InstalledNode(revision="abc", era=2, instance="one", started=datetime(2026, 11, 24, 9, tzinfo=UTC))
    machine = await stores.machines.add("shop", "rack1", SPEC)
    machine = await stores.machines.report(machine, MachineStatus(claim=CLAIM, node=node))
    assert (await stores.machines.get("shop", "rack1")).status.node == node
    being_made = InstalledNode(revision="def")
    machine = await stores.machines.report(machine, machine.status.model_copy(update={"node": being_made}))
    assert (await stores.machines.get("shop", "rack1")).status.node == being_made
    await stores.machines.report(machine, MachineStatus())
    assert (await stores.machines.get("shop", "rack1")).status == MachineStatus()


async def test_two_who_claim_a_machine_at_once_do_not_both_get_it(stores: Stores) -> None:
    seen = await stores.machines.add("shop", "rack1", SPEC)
    claimed = await stores.machines.report(seen, seen.status.model_copy(update={"claim": CLAIM}))
    with pytest.raises(ConflictError):
        await stores.machines.report(seen, seen.status.model_copy(update={"claim": CLAIM}))
    assert (await stores.machines.get("shop", "rack1")).status.claim == CLAIM
    free = await stores.machines.report(claimed, claimed.status.model_copy(update={"claim": None}))
    assert free.status.claim is None
    assert (await stores.machines.get("shop", "rack1")).status.claim is None


async def test_spec_and_status_change_apart(stores: Stores) -> None:
    seen = await stores.machines.add("shop", "rack1", SPEC)
    claimed = await stores.machines.report(seen, seen.status.model_copy(update={"claim": CLAIM}))
    moved = await stores.machines.change(claimed, SPEC.model_copy(update={"address": "192.0.2.12"}))
    assert moved.spec.address == "192.0.2.12" and moved.status.claim == CLAIM


async def test_removed_machine_is_gone(stores: Stores) -> None:
    seen = await stores.machines.add("shop", "rack1", SPEC)
    await stores.machines.remove(seen)
    with pytest.raises(NotFoundError):
        await stores.machines.get("shop", "rack1")


async def test_machine_that_was_claimed_meanwhile_is_not_removed(stores: Stores) -> None:
    seen = await stores.machines.add("shop", "rack1", SPEC)
    await stores.machines.report(seen, seen.status.model_copy(update={"claim": CLAIM}))
    with pytest.raises(ConflictError):
        await stores.machines.remove(seen)


async def test_key_is_made_once_for_each_project(stores: Stores) -> None:
    with pytest.raises(NotFoundError):
        await stores.private.private("shop")
    public = await stores.public.public("shop")
    assert await stores.public.public("shop") == public
    assert await stores.public.public("lab") != public
    assert b"PRIVATE KEY" in await stores.private.private("shop")


async def test_given_key_replaces_the_made_one(stores: Stores) -> None:
    await stores.public.public("shop")
    given = new_ssh_key("given")
    await stores.public.replace("shop", given)
    assert await stores.public.public("shop") == given.public
    assert await stores.private.private("shop") == given.private


async def test_forgotten_key_is_gone(stores: Stores) -> None:
    await stores.public.public("shop")
    await stores.public.forget("shop")
    with pytest.raises(NotFoundError):
        await stores.private.private("shop")
    await stores.public.forget("shop")


async def test_no_secret_is_left_of_replaced_and_forgotten_keys() -> None:
    client = MemoryKubeClient()
    await client.apply(NAMESPACES, {"metadata": {"name": KEYS_NAMESPACE}})
    keys = KubeKeys(client)
    await keys.public("shop")
    await keys.replace("shop", new_ssh_key("given"))
    assert len(await client.list(SECRETS, KEYS_NAMESPACE)) == 1
    await keys.forget("shop")
    assert await client.list(SECRETS, KEYS_NAMESPACE) == []
