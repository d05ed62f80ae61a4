"""A real API server that somebody fills: what is kept of it is bounded, and nobody else is touched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import pytest

from haneul.app.balancer_worker import BalancerWork
from haneul.app.record_worker import Patience, RecordWorker
from haneul.balancer.adapters.memory import MemoryBalancer
from haneul.balancer.controller import Pace
from haneul.balancer.model import Pool, parse_range
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.readers import BALANCER
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import ENDPOINT_SLICES, NAMESPACES, SERVICES, KubeAccess, KubeClient, Manifest
from haneul.kernel.kube_budget import Budget, Ledger, OverBudgetError
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from tests.followed import FollowedCluster, until
from tests.functional import kubernetes
from tests.unit.balancer.objects import port, service

#: Who is over the budget is cancelled also while it connects; Python leaves such a socket to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
#: Small ones, and pages that take several questions.
BUDGET = Budget(objects=60, octets=1 << 20, shared=2 << 20, page=7, page_octets=1 << 20)
PACE = Pace(gather=0.0, resync=3600.0, tend=0.01, first_backoff=0.01, last_backoff=0.1)
PATIENCE = Patience(first=0.2, last=0.5, within=1.0)
POOL = Pool("public", (parse_range("192.0.2.10-192.0.2.99"),))
NEIGHBOUR = "https://neighbour"


def piece(name: str, **annotations: str) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [],
    }


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeAccess]:
    folder = tmp_path_factory.mktemp("api")
    server = kubernetes.ApiServer(folder, arguments={"disable-admission-plugins": "ServiceAccount"}, files={})
    with kubernetes.running(server):
        yield access_from_kubeconfig(server.kubeconfig())
    # Here, where the mark above holds.
    gc.collect()


class Ground:
    """A cluster with a real API, one in memory, and one worker for both."""

    def __init__(self, access: KubeAccess) -> None:
        self.access = access
        self.ledger = Ledger(BUDGET)
        self.neighbour = FollowedCluster()
        self.balancer = MemoryBalancer()
        self.troubles: dict[str, list[str]] = defaultdict(list)
        clock = SystemClock()
        work = BalancerWork(self.balancer, lambda _: (POOL,), self.connect, clock, pace=PACE)
        self.worker = RecordWorker(work, self, clock=clock, patience=PATIENCE)

    @contextlib.asynccontextmanager
    async def connect(self, access: KubeAccess, project: str) -> AsyncIterator[KubeClient]:
        if access.server == NEIGHBOUR:
            yield self.neighbour
        else:
            async with self.client(project) as client:
                yield client

    def client(self, project: str = "team") -> HttpKubeClient:
        return HttpKubeClient(self.access, account=self.ledger.open(project, BALANCER.annotations))

    async def forget(self, uid: str) -> None:
        """No cluster goes here."""

    async def tell(self, uid: str, trouble: str) -> None:
        self.troubles[uid].append(trouble)

    async def services(self, name: str) -> set[str]:
        present = await self.balancer.read()
        return {one.frontend.service for one in present.values() if one.owner.startswith(f"team-{name}/")}

    async def serves(self, name: str, *services: str) -> None:
        async def probe() -> bool:
            return await self.services(name) == {f"shop/{service}" for service in services}

        await until(probe, f"{services} of {name} to be served")

    def record(self, name: str, access: KubeAccess) -> ClusterRecord:
        return ClusterRecord(f"uid-of-{name}", f"team-{name}", "one", "", Standing.FOLLOWED, access)


def balanced(name: str) -> Manifest:
    made = service(name, ports=[port()])
    del made["status"]
    del made["metadata"]["uid"]
    return made


async def test_who_fills_a_cluster_ends_its_own_following_and_nobody_elses(access: KubeAccess) -> None:
    async with HttpKubeClient(access) as root:
        await root.create(NAMESPACES, {"metadata": {"name": "shop"}})
        await root.create(SERVICES, balanced("web"))

        async def has_identity() -> bool:
            return await root.get(NAMESPACES, "kube-system") is not None

        await until(has_identity, "the cluster to have its own namespace")
        ground = Ground(access)
        await ground.neighbour.with_namespaces()
        await ground.neighbour.create(SERVICES, balanced("web"))
        try:
            await ground.worker.know(ground.record("hostile", ground.access))
            await ground.worker.know(ground.record("quiet", KubeAccess(NEIGHBOUR, b"", b"", b"")))
            await ground.serves("hostile", "web")
            await ground.serves("quiet", "web")
            # Four megabytes of what nobody reads: more than its budget, and more than any page may have.
            for number in range(20):
                await root.create(ENDPOINT_SLICES, piece(f"large-{number}", note="x" * 200_000))
            async with ground.client() as client:
                listed = await client.list(ENDPOINT_SLICES)
            large = [one for one in listed if one["metadata"]["name"].startswith("large-")]
            assert len(large) == 20
            assert all(not {"annotations", "managedFields"} & set(one["metadata"]) for one in large)
            await root.create(SERVICES, balanced("more"))
            await ground.serves("hostile", "web", "more")
            assert not any(ground.troubles["uid-of-hostile"])
            # As many as that are too many.
            for number in range(60):
                await root.create(ENDPOINT_SLICES, piece(f"many-{number}"))
            await until(lambda: any(ground.troubles["uid-of-hostile"]), "the cluster to be told")
            told = next(filter(None, ground.troubles["uid-of-hostile"]))
            assert "more than 60 objects" in told and "endpointslices" in told
            # What it has stays; what it asks for now waits; the neighbour is served as ever.
            await root.create(SERVICES, balanced("late"))
            await ground.neighbour.create(SERVICES, balanced("next"))
            await ground.serves("quiet", "web", "next")
            assert await ground.services("hostile") == {"shop/web", "shop/more"}
            with pytest.raises(OverBudgetError):
                async with ground.client() as client:
                    await client.list(ENDPOINT_SLICES)
            # It is gone on with by itself once there are few again.
            for number in range(60):
                await root.delete(ENDPOINT_SLICES, f"many-{number}", "shop")
            await ground.serves("hostile", "web", "more", "late")
            await until(lambda: ground.troubles["uid-of-hostile"][-1] == "", "the cluster to be told that all is well")
            assert not any(ground.troubles["uid-of-quiet"])
        finally:
            await ground.worker.close()
        # Of no connection there ever was anything is counted any more.
        assert ground.ledger.octets == 0


async def test_lists_of_many_pages_are_whole_and_watches_go_on_from_them(access: KubeAccess) -> None:
    async with HttpKubeClient(access) as root:
        await root.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pages"}})
        names = [f"page-{number:02}" for number in range(23)]
        for name in names:
            await root.create(ENDPOINT_SLICES, {**piece(name), "metadata": {"name": name, "namespace": "pages"}})
        ledger = Ledger(Budget(objects=200, page=5))
        client = HttpKubeClient(access, account=ledger.open("team"))
        async with client:
            listed = await client.list(ENDPOINT_SLICES, "pages")
            assert sorted(one["metadata"]["name"] for one in listed) == names
            seen: list[tuple[str, str]] = []

            async def watch() -> None:
                async for event in client.watch(ENDPOINT_SLICES, "pages"):
                    seen.append((event.type, event.object["metadata"]["name"]))

            watching = asyncio.create_task(watch())
            try:
                await until(lambda: len(seen) == len(names), "all to be seen")
                assert sorted(seen) == [("ADDED", name) for name in names]
                await root.delete(ENDPOINT_SLICES, "page-07", "pages")
                await until(lambda: seen[-1] == ("DELETED", "page-07"), "one to be seen going")
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)


async def test_one_object_that_no_page_has_room_for_is_too_much(access: KubeAccess) -> None:
    async with HttpKubeClient(access) as root:
        await root.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        await root.apply(ENDPOINT_SLICES, piece("huge", note="x" * 200_000))
        ledger = Ledger(Budget(page_octets=100_000))
        async with HttpKubeClient(access, account=ledger.open("team")) as client:
            with pytest.raises(OverBudgetError, match="one of its endpointslices has more than 97 KiB"):
                await client.list(ENDPOINT_SLICES)
