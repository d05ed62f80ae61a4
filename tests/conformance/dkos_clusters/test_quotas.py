"""What every store of clusters holds projects to, whoever asks at the same time: the behaviour suite of QuotaStore."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.cluster_store import Admit, ClusterStore, MemoryClusters, QuotaStore
from haneul.dkos.model import CLUSTERS, Cluster, ClusterSpec, Hibernation, NodePool, Phase
from haneul.dkos.quota import MASTERS_MEMORY_MIB, QuotaLimits, counts_for, total, used_by_clusters
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ConflictError, HaneulError, NotFoundError, QuotaExceededError, UnavailableError
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, KubeApiError, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


class Store(ClusterStore, QuotaStore, Protocol):
    """What keeps clusters and quotas."""


def nodes(count: int, cpu: float = 1.0) -> ClusterSpec:
    return ClusterSpec(node_pools=(NodePool(count=count, cpu=cpu, memory_mib=1024),))


def asking(spec: ClusterSpec) -> Admit:
    return lambda _: spec


class Dawdling(MemoryKubeClient):
    """Answers each call after a while, so that calls of several processes meet in every order."""

    def __init__(self, clock: VirtualClock, seed: int = 0) -> None:
        super().__init__(clock=clock)
        self._random = random.Random(seed)  # noqa: S311 - orders of calls, no secret

    async def dawdle(self) -> None:
        for _ in range(self._random.choice((0, 1, 3, 30))):
            await asyncio.sleep(0)

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        await self.dawdle()
        return await super().get(resource, name, namespace)

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        await self.dawdle()
        return await super().list(resource, namespace, labels=labels, fields=fields)

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        await self.dawdle()
        return await super().create(resource, manifest, subresource=subresource)

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        await self.dawdle()
        return await super().patch(resource, name, patch, namespace, subresource=subresource)


async def platform(seed: int = 0) -> tuple[Dawdling, VirtualClock]:
    clock = VirtualClock(NOW)
    client = Dawdling(clock, seed)
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "haneul-system"}})
    return client, clock


@pytest.fixture(params=["memory", "kube"])
async def stores(request: pytest.FixtureRequest) -> tuple[Store, Store]:
    if request.param == "memory":
        store = MemoryClusters(VirtualClock(NOW))
        return store, store
    client, clock = await platform()
    return KubeClusters(client, clock=clock), KubeClusters(client, clock=clock)


async def test_limits_that_were_set_are_seen_by_everyone(stores: tuple[Store, Store]) -> None:
    one, two = stores
    await one.set_quota("shop", QuotaLimits(nodes=3, cpu=1.5))
    await two.set_quota(None, QuotaLimits(clusters=7))
    for store in stores:
        quotas = await store.quotas()
        assert (quotas.own("shop"), quotas.platform) == (QuotaLimits(nodes=3, cpu=1.5), QuotaLimits(clusters=7))
    await two.set_quota("shop", QuotaLimits())
    assert (await one.quotas()).projects == {}


async def test_a_creation_beyond_the_quota_is_refused_and_leaves_nothing(stores: tuple[Store, Store]) -> None:
    one, two = stores
    await one.set_quota("shop", QuotaLimits(nodes=3))
    await one.create("shop", "a", asking(nodes(2)))
    with pytest.raises(QuotaExceededError):
        await two.create("shop", "b", asking(nodes(2)))
    assert [cluster.name for cluster in await one.list()] == ["a"]
    await two.create("shop", "c", asking(nodes(1)))
    await two.create("other", "b", asking(nodes(2)))


async def test_growing_beyond_the_quota_is_refused_and_shrinking_never(stores: tuple[Store, Store]) -> None:
    one, two = stores
    await one.set_quota("shop", QuotaLimits(nodes=4, memory_mib=4 * 1024 + 2 * MASTERS_MEMORY_MIB))
    made = await one.create("shop", "a", asking(nodes(2)))
    await one.create("shop", "b", asking(nodes(1)))
    with pytest.raises(QuotaExceededError):
        await two.replace_spec(made, nodes(4))
    grown = await two.replace_spec(made, nodes(3))
    await two.set_quota("shop", QuotaLimits(nodes=1))
    with pytest.raises(QuotaExceededError):
        await one.replace_spec(grown, nodes(4))
    shrunk = await one.replace_spec(grown, nodes(2))
    assert shrunk.spec.node_count == 2


async def test_what_ends_makes_room(stores: tuple[Store, Store]) -> None:
    one, two = stores
    await one.set_quota("shop", QuotaLimits(clusters=1))
    await one.create("shop", "a", asking(nodes(1)))
    with pytest.raises(QuotaExceededError):
        await two.create("shop", "b", asking(nodes(1)))
    await one.delete("shop", "a")
    await two.create("shop", "b", asking(nodes(1)))


async def test_creations_and_growth_at_once_never_exceed(stores: tuple[Store, Store]) -> None:
    one, two = stores
    await one.set_quota("shop", QuotaLimits(nodes=6))
    made = [await one.create("shop", f"c{number}", asking(nodes(1))) for number in range(3)]
    work: list[Awaitable[Cluster]] = [
        store.replace_spec(cluster, nodes(3)) for cluster, store in zip(made, (one, two, one), strict=True)
    ]
    work += [store.create("shop", f"n{number}", asking(nodes(2))) for number, store in enumerate((one, two))]
    results = await asyncio.gather(*work, return_exceptions=True)
    done = [result for result in results if isinstance(result, Cluster)]
    assert all(isinstance(result, Cluster | QuotaExceededError) for result in results)
    used = total(used_by_clusters("shop", await two.list("shop")).values())
    assert (len(done), used.nodes <= 6) == (1, True)


# What follows is about the claims that stores on Kubernetes make.


class Ledgers:
    """One platform and what its ledger says."""

    def __init__(self, client: MemoryKubeClient) -> None:
        self._client = client

    async def claims(self) -> int:
        ledger = await self._client.get(CONFIG_MAPS, "cluster-claims", "haneul-system")
        assert ledger is not None
        return sum(len(json.loads(ledger["data"][kind])) for kind in ("claims", "changes"))


async def put_to_sleep(client: MemoryKubeClient, store: Store, name: str) -> Cluster:
    """Ask for a cluster's sleep, and write down that it sleeps, as the operator does a moment later."""
    kept = await store.get("shop", name)
    wish = kept.spec.model_copy(update={"hibernation": Hibernation(asleep=True)})
    asked = await store.replace_spec(kept, wish)
    status = {"phase": Phase.ASLEEP.value, "observedGeneration": asked.generation}
    await client.patch(CLUSTERS, name, {"status": status}, "project-shop", subresource="status")
    return asked


async def test_what_was_seen_falling_asleep_wakes_only_where_there_still_is_room() -> None:
    client, clock = await platform()
    store = KubeClusters(client, clock=clock)
    await store.set_quota("shop", QuotaLimits(nodes=2))
    await store.create("shop", "a", asking(nodes(2)))
    seen = await put_to_sleep(client, store, "a")
    assert seen.status.phase is not Phase.ASLEEP
    await store.create("shop", "b", asking(nodes(1)))
    awake = seen.spec.model_copy(update={"hibernation": Hibernation()})
    with pytest.raises(QuotaExceededError, match="nodes: 1 used of 2, 2 more asked for"):
        await store.replace_spec(seen, awake)
    await store.delete("shop", "b")
    assert not (await store.replace_spec(seen, awake)).spec.hibernation.asleep


operations = st.lists(
    st.tuples(
        st.sampled_from(["create", "scale", "scale", "resize", "delete", "sleep", "sleep", "wake", "wake"]),
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.integers(1, 4),
        st.integers(0, 1),
    ),
    min_size=4,
    max_size=10,
)


@settings(max_examples=40, deadline=None)
@given(operations=operations, seed=st.integers(0, 1 << 16))
def test_whatever_is_done_at_once_never_exceeds(operations: Sequence[tuple[str, str, int, int]], seed: int) -> None:
    asyncio.run(_never_exceeds(operations, seed))


async def _never_exceeds(operations: Sequence[tuple[str, str, int, int]], seed: int) -> None:
    client, clock = await platform(seed)
    stores = [KubeClusters(client, clock=clock) for _ in range(2)]
    limits = QuotaLimits(clusters=4, nodes=6, cpu=8.4, memory_mib=9 * 1024)
    await stores[0].set_quota("shop", limits)
    allowed = (await stores[0].quotas()).of("shop")
    for name in ("a", "b", "c"):
        await stores[0].create("shop", name, asking(nodes(1)))

    async def one(kind: str, name: str, count: int, which: int) -> None:
        store = stores[which]
        if kind == "create":
            await store.create("shop", name, asking(nodes(count)))
        elif kind == "delete":
            await store.delete("shop", name)
        elif kind == "sleep":
            try:
                await put_to_sleep(client, store, name)
            except KubeApiError as error:
                # It may be deleted before its status is written.
                assert error.reason == "NotFound"
        elif kind == "wake":
            cluster = await store.get("shop", name)
            await store.replace_spec(cluster, cluster.spec.model_copy(update={"hibernation": Hibernation()}))
        else:
            spec = nodes(count) if kind == "scale" else nodes(1, cpu=float(count + 1))
            await store.replace_spec(await store.get("shop", name), spec)

    async def watch() -> None:
        async for _ in client.watch(CLUSTERS):
            found = [counts_for(cluster) for cluster in await KubeClusters(client, clock=clock).list("shop")]
            assert not allowed.grows_to(total(found))

    watching = asyncio.create_task(watch())
    results = await asyncio.gather(*(one(*operation) for operation in operations), return_exceptions=True)
    unexpected = [
        result
        for result in results
        if result is not None and not isinstance(result, QuotaExceededError | ConflictError | NotFoundError)
    ]
    assert unexpected == []
    for _ in range(100):
        await asyncio.sleep(0)
    assert not watching.done() or watching.exception() is None
    watching.cancel()
    used = total(used_by_clusters("shop", await stores[0].list("shop")).values())
    assert not allowed.grows_to(used)
    assert await Ledgers(client).claims() == 0


class Failing(MemoryKubeClient):
    """Does or does not do what it is asked with clusters, and fails to say so."""

    error: HaneulError | None = None
    before_patch: Callable[[], None] | None = None

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        if resource == CLUSTERS and self.error is not None:
            raise self.error
        return await super().patch(resource, name, patch, namespace, subresource=subresource)

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        if resource == CLUSTERS and self.before_patch is not None:
            self.before_patch()
        return await super().get(resource, name, namespace)


async def failing() -> tuple[Failing, KubeClusters, VirtualClock, Cluster]:
    clock = VirtualClock(NOW)
    client = Failing(clock=clock)
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "haneul-system"}})
    store = KubeClusters(client, clock=clock)
    await store.set_quota("shop", QuotaLimits(nodes=3))
    return client, store, clock, await store.create("shop", "a", asking(nodes(1)))


@pytest.mark.parametrize(
    ("error", "held"),
    [
        (UnavailableError("nobody answers"), True),
        (KubeApiError("timeout", status=504, reason="Timeout"), True),
        (KubeApiError("no", status=422, reason="Invalid"), False),
    ],
)
async def test_growth_of_which_nobody_knows_counts_until_its_claim_expires(error: HaneulError, held: bool) -> None:
    client, store, clock, made = await failing()
    client.error = error
    with pytest.raises(type(error)):
        await store.replace_spec(made, nodes(3))
    client.error = None
    if held:
        with pytest.raises(QuotaExceededError):
            await store.create("shop", "b", asking(nodes(2)))
        # Whoever tries again is not in their own way.
        await store.replace_spec(made, nodes(2))
        clock.advance(61)
        await store.create("shop", "b", asking(nodes(1)))
    else:
        await store.create("shop", "b", asking(nodes(2)))


async def test_growth_that_was_claimed_long_ago_is_not_begun_any_more() -> None:
    client, store, clock, made = await failing()
    client.before_patch = lambda: clock.advance(31)
    with pytest.raises(ConflictError):
        await store.replace_spec(made, nodes(3))
    client.before_patch = None
    assert (await store.get("shop", "a")).spec == nodes(1)


async def test_what_is_stored_of_quotas_may_be_nonsense() -> None:
    client, store, _, _ = await failing()
    patch = {"data": {"quotas": '{"platform": {"clusters": -1}}'}}
    await client.patch(CONFIG_MAPS, "cluster-claims", patch, "haneul-system")
    for doing in (store.quotas(), store.create("shop", "b", asking(nodes(1)))):
        with pytest.raises(HaneulError) as caught:
            await doing
        assert "cluster-claims" in caught.value.hint
