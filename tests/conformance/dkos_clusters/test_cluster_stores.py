"""What every store of clusters does: the behaviour suite of the port ClusterStore."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from haneul.dkos.adapters.claim_ledger import written
from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.admission import admit
from haneul.dkos.cluster_store import Admit, ClusterEvent, ClusterStore, MemoryClusters
from haneul.dkos.model import CLUSTERS, Cluster, ClusterSpec, Network, NodePool, Settings
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, KubeApiError, Manifest, Resource
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.kube_memory import MemoryKubeClient

KUBECONFIG = Path("/var/lib/haneul/admin.kubeconfig")
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
#: What the operator refuses, so that on a real platform nothing is made: it makes no cluster without ranges.
REFUSED = ClusterSpec(node_pools=())


def kept(_: Sequence[Cluster]) -> ClusterSpec:
    return REFUSED


class Stores:
    """Two stores of the same clusters, as two processes have them, and a project of the test's own."""

    def __init__(self, one: ClusterStore, two: ClusterStore, project: str) -> None:
        self.one = one
        self.two = two
        self.project = project

    async def create(self, name: str, admit: Admit = kept) -> Cluster:
        return await self.one.create(self.project, name, admit)


async def _platform() -> tuple[MemoryKubeClient, VirtualClock]:
    clock = VirtualClock(NOW)
    client = MemoryKubeClient(clock=clock)
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "haneul-system"}})
    return client, clock


@pytest.fixture(params=["memory", "kube", pytest.param("http", marks=pytest.mark.e2e)])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        store = MemoryClusters(VirtualClock(NOW))
        yield Stores(store, store, "shop")
    elif request.param == "kube":
        client, clock = await _platform()
        yield Stores(KubeClusters(client, clock=clock), KubeClusters(client, clock=clock), "shop")
    elif not KUBECONFIG.exists():
        pytest.skip("there is no platform")
    else:
        project = f"test-{secrets.token_hex(4)}"
        async with HttpKubeClient(access_from_kubeconfig(KUBECONFIG)) as real:
            try:
                stores = [KubeClusters(real, clock=SystemClock()) for _ in range(2)]
                yield Stores(stores[0], stores[1], project)
            finally:
                await real.delete(NAMESPACES, f"project-{project}")


async def test_a_look_that_was_asked_for_is_seen_and_changes_nothing_else(stores: Stores) -> None:
    made = await stores.create("web")
    asked = await stores.one.request_look(stores.project, "web", "one")
    assert asked.look_requested == "one"
    await stores.two.request_look(stores.project, "web", "two")
    found = await stores.one.get(stores.project, "web")
    assert (found.look_requested, found.generation, found.spec) == ("two", made.generation, made.spec)
    with pytest.raises(NotFoundError):
        await stores.one.request_look(stores.project, "other", "three")


async def test_what_was_created_is_found(stores: Stores) -> None:
    made = await stores.create("web")
    assert (made.project, made.name, made.generation, made.deleting) == (stores.project, "web", 1, False)
    assert made.uid and made.spec == REFUSED
    found = await stores.two.get(stores.project, "web")
    assert (found.uid, found.spec, found.created) == (made.uid, made.spec, made.created)


async def test_what_is_not_there_is_not_found(stores: Stores) -> None:
    for ask in (stores.one.get, stores.one.delete):
        with pytest.raises(NotFoundError) as caught:
            await ask(stores.project, "absent")
        assert caught.value.hint
    assert list(await stores.one.list(stores.project)) == []


async def test_lists_are_sorted_and_of_one_project_or_all(stores: Stores) -> None:
    for name in ("b", "a"):
        await stores.create(name)
    assert [cluster.name for cluster in await stores.one.list(stores.project)] == ["a", "b"]
    everything = [(cluster.project, cluster.name) for cluster in await stores.one.list()]
    assert [entry for entry in everything if entry[0] == stores.project] == [
        (stores.project, "a"),
        (stores.project, "b"),
    ]
    assert everything == sorted(everything)


async def test_who_admits_sees_all_others_and_may_refuse(stores: Stores) -> None:
    await stores.create("web")

    def refuse(others: Sequence[Cluster]) -> ClusterSpec:
        assert "web" in [cluster.name for cluster in others if cluster.project == stores.project]
        raise InvalidInputError("no")

    with pytest.raises(InvalidInputError):
        await stores.create("other", refuse)
    assert [cluster.name for cluster in await stores.one.list(stores.project)] == ["web"]


async def test_a_change_replaces_the_whole_spec(stores: Stores) -> None:
    gates = Settings(feature_gates={"FirstGate": True, "SecondGate": True})
    await stores.create("web", lambda _: REFUSED.model_copy(update={"settings": gates}))
    made = await stores.one.get(stores.project, "web")
    wanted = made.spec.model_copy(update={"settings": Settings(feature_gates={"SecondGate": False})})
    changed = await stores.one.replace_spec(made, wanted)
    assert (changed.spec, changed.generation > made.generation) == (wanted, True)
    assert (await stores.two.get(stores.project, "web")).spec == wanted


async def test_a_change_of_an_older_state_is_refused(stores: Stores) -> None:
    made = await stores.create("web")
    wanted = [REFUSED.model_copy(update={"settings": Settings(max_pods_per_node=most)}) for most in (50, 60)]
    await stores.one.replace_spec(made, wanted[0])
    with pytest.raises(ConflictError) as caught:
        await stores.two.replace_spec(made, wanted[1])
    assert caught.value.hint
    assert (await stores.one.get(stores.project, "web")).spec == wanted[0]


async def test_a_change_of_another_cluster_of_the_name_is_refused(stores: Stores) -> None:
    made = await stores.create("web")
    await _delete(stores, "web")
    with pytest.raises(NotFoundError):
        await stores.one.replace_spec(made, REFUSED)
    again = await stores.create("web")
    assert again.uid != made.uid
    with pytest.raises(ConflictError):
        await stores.one.replace_spec(made, REFUSED.model_copy(update={"node_pools": (NodePool(),)}))


async def test_watching_shows_what_is_there_and_then_changes(stores: Stores) -> None:
    made = await stores.create("web")
    events = stores.two.watch(stores.project)
    await _next(events, "added", lambda cluster: cluster.uid == made.uid)
    settings = Settings(max_pods_per_node=50)
    await stores.one.replace_spec(
        await stores.one.get(stores.project, "web"), REFUSED.model_copy(update={"settings": settings})
    )
    await _next(events, "modified", lambda cluster: cluster.spec.settings == settings)
    await stores.create("other")
    await _next(events, "added", lambda cluster: cluster.name == "other")
    await _delete(stores, "web")
    await _next(events, "deleted", lambda cluster: cluster.uid == made.uid)


async def test_of_one_name_only_one_is_made(stores: Stores) -> None:
    results = await asyncio.gather(
        *(store.create(stores.project, "web", kept) for store in (stores.one, stores.two)), return_exceptions=True
    )
    made = [result for result in results if isinstance(result, Cluster)]
    refused = [result for result in results if isinstance(result, ConflictError)]
    if isinstance(stores.one, MemoryClusters):
        return  # Whether a name is taken is for admission to say; here nobody asked it.
    assert (len(made), len(refused)) == (1, 1)


async def test_in_a_closed_project_nothing_is_created_and_afterwards_everything_again(stores: Stores) -> None:
    await stores.create("web")
    async with stores.one.closed(stores.project) as there:
        assert [cluster.name for cluster in there] == ["web"]
        with pytest.raises(ConflictError, match="being deleted") as caught:
            await stores.two.create(stores.project, "late", kept)
        assert caught.value.hint
        assert [cluster.name for cluster in await stores.one.list(stores.project)] == ["web"]
    await stores.two.create(stores.project, "later", kept)


async def test_a_project_in_which_a_cluster_is_being_created_is_not_closed(stores: Stores) -> None:
    async def confirm() -> None:
        with pytest.raises(ConflictError, match="being created"):
            async with stores.two.closed(stores.project):
                pytest.fail("it was closed")

    await stores.one.create(stores.project, "web", kept, confirm)
    async with stores.two.closed(stores.project) as there:
        assert [cluster.name for cluster in there] == ["web"]


async def test_what_is_not_confirmed_is_not_created_and_leaves_no_claim(stores: Stores) -> None:
    async def gone() -> None:
        raise NotFoundError("there is no such project any more")

    with pytest.raises(NotFoundError):
        await stores.one.create(stores.project, "web", kept, gone)
    async with stores.two.closed(stores.project) as there:
        assert list(there) == []


async def _delete(stores: Stores, name: str) -> None:
    assert (await stores.one.delete(stores.project, name)).deleting
    async with asyncio.timeout(60):
        while True:
            try:
                await stores.two.get(stores.project, name)
            except NotFoundError:
                return
            await asyncio.sleep(0.05)


async def _next(events: AsyncIterator[ClusterEvent], kind: str, fits: Callable[[Cluster], bool]) -> None:
    """Wait for an event; on a real platform the operator's own writes come between."""
    async with asyncio.timeout(60):
        async for event in events:
            if event.type == kind and fits(event.cluster):
                return
    raise AssertionError("the watch ended")


# What follows is about the claims that stores on Kubernetes make; nothing real is created with ranges that it admits.


def _admit(project: str, name: str, network: Network | None = None) -> Admit:
    spec = ClusterSpec(network=network or Network())
    return lambda others: admit(name, spec, project=project, others=others, reserved=())


def _overlaps(clusters: Sequence[Cluster]) -> bool:
    used = [IPv4Network(text or "") for c in clusters for text in (c.spec.network.pods, c.spec.network.services)]
    return any(network.overlaps(other) for index, network in enumerate(used) for other in used[:index])


async def test_creations_at_once_never_get_overlapping_ranges() -> None:
    client, clock = await _platform()
    stores = [KubeClusters(client, clock=clock) for _ in range(2)]
    results = await asyncio.gather(
        *(
            stores[number % 2].create(f"p{number % 3}", f"c{number}", _admit(f"p{number % 3}", f"c{number}"))
            for number in range(12)
        ),
        return_exceptions=True,
    )
    made = [result for result in results if isinstance(result, Cluster)]
    assert len(made) >= 2
    assert all(isinstance(result, Cluster | ConflictError) for result in results)
    assert not _overlaps(await stores[0].list())
    assert await _claims(client) == 0


async def test_of_one_explicit_range_only_one_cluster_is_made() -> None:
    client, clock = await _platform()
    network = Network(pods="172.20.0.0/18", services="172.21.0.0/20")
    results = await asyncio.gather(
        *(
            KubeClusters(client, clock=clock).create("shop", name, _admit("shop", name, network))
            for name in ("a", "b", "c")
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in results].count(Cluster) == 1
    assert [type(result) for result in results].count(InvalidInputError) == 2


async def test_a_name_is_free_again_as_soon_as_its_cluster_is_gone() -> None:
    client, clock = await _platform()
    store = KubeClusters(client, clock=clock)
    first = await store.create("shop", "web", _admit("shop", "web"))
    await store.delete("shop", "web")
    again = await store.create("shop", "web", _admit("shop", "web"))
    assert again.spec.network == first.spec.network


class Failing(MemoryKubeClient):
    """Refuses to create clusters, or to take claims back, as long as it is told to."""

    refuses_clusters = False
    refuses_patches = False

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        if self.refuses_clusters and resource == CLUSTERS:
            raise KubeApiError("no", status=422, reason="Invalid")
        return await super().create(resource, manifest)

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        if self.refuses_patches:
            raise UnavailableError("nobody answers")
        return await super().patch(resource, name, patch, namespace, subresource=subresource)


async def _failing() -> tuple[Failing, KubeClusters, VirtualClock]:
    clock = VirtualClock(NOW)
    client = Failing(clock=clock)
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "haneul-system"}})
    return client, KubeClusters(client, clock=clock), clock


async def test_what_a_failed_creation_claimed_is_free_again() -> None:
    client, store, _ = await _failing()
    client.refuses_clusters = True
    with pytest.raises(KubeApiError):
        await store.create("shop", "web", _admit("shop", "web"))
    assert await _claims(client) == 0


async def test_a_claim_that_could_not_be_taken_back_holds_its_ranges_until_it_expires() -> None:
    client, store, clock = await _failing()
    client.refuses_clusters = client.refuses_patches = True
    with pytest.raises(KubeApiError):
        await store.create("shop", "lost", _admit("shop", "lost"))
    client.refuses_clusters = client.refuses_patches = False
    other = await store.create("shop", "other", _admit("shop", "other"))
    assert other.spec.network.pods == "10.0.64.0/18"
    # Whoever tries again need not wait.
    assert (await store.create("shop", "lost", _admit("shop", "lost"))).spec.network.pods == "10.0.0.0/18"
    await store.delete("shop", "lost")
    clock.advance(timedelta(seconds=61).total_seconds())
    late = await store.create("shop", "late", _admit("shop", "late"))
    assert late.spec.network.pods == "10.0.0.0/18"
    assert await _claims(client) == 0


async def test_a_project_that_was_closed_by_a_process_that_ended_opens_by_itself() -> None:
    client, store, clock = await _failing()
    with contextlib.suppress(UnavailableError):
        async with store.closed("shop"):
            client.refuses_patches = True
    client.refuses_patches = False
    with pytest.raises(ConflictError):
        await store.create("shop", "web", _admit("shop", "web"))
    clock.advance(61)
    assert (await store.create("shop", "web", _admit("shop", "web"))).name == "web"


async def test_a_status_that_changes_meanwhile_does_not_stop_a_change() -> None:
    client, clock = await _platform()
    store = KubeClusters(client, clock=clock)
    made = await store.create("shop", "web", _admit("shop", "web"))
    await client.patch(CLUSTERS, "web", {"status": {"phase": "Ready"}}, "project-shop", subresource="status")
    changed = await store.replace_spec(made, made.spec.model_copy(update={"node_pools": (NodePool(count=2),)}))
    assert (changed.spec.node_count, changed.status.phase) == (2, "Ready")


async def _claims(client: MemoryKubeClient) -> int:
    ledger = await client.get(CONFIG_MAPS, "cluster-claims", "haneul-system")
    entries = written(ledger)
    return len(entries.claims) + len(entries.changes)
