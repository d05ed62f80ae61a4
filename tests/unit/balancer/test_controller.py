"""The controller with a cluster and a balancer in memory: what it serves, what it holds on to, what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from haneul.balancer.adapters.memory import MemoryBalancer
from haneul.balancer.allocation import OUTSIDE
from haneul.balancer.controller import ClusterController, Pace
from haneul.balancer.decisions import BALANCED, NO_MEMBERS, NOT_ACKNOWLEDGED, REFUSED, Site
from haneul.balancer.model import (
    Change,
    Frontend,
    Frontends,
    FrontendsChangedError,
    Listener,
    ListenerRefusedError,
    Member,
    Options,
    Part,
    Protocol,
)
from haneul.balancer.verdicts import CONDITION, FINALIZER
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import ENDPOINT_SLICES, EVENTS, NAMESPACES, SERVICES, KubeApiError, Manifest, Resource
from tests.followed import FollowedCluster, until
from tests.unit.balancer.objects import endpoint, port, service, site, slice_of

PACE = Pace(gather=0.0, resync=3600.0, tend=0.01, first_backoff=0.01, last_backoff=0.02)
WEB = Listener("192.0.2.10", Protocol.TCP, 80)


class Cluster(FollowedCluster):
    """A cluster that may not let itself be marked."""

    refuses_finalizers = False

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        if self.refuses_finalizers and patch.get("metadata", {}).get("finalizers"):
            raise KubeApiError("not allowed", status=403, reason="Forbidden")
        return await super().patch(resource, name, patch, namespace, subresource=subresource)

    async def service(self, name: str = "web") -> Manifest:
        return await self.get(SERVICES, name, "shop") or {}

    async def make(self, *names: str, **more: Any) -> None:
        """Create Services, and a pod for each."""
        for name in names:
            made = service(name, **more)
            del made["status"]
            await self.create(SERVICES, made)
            await self.create(ENDPOINT_SLICES, slice_of(name, endpoint("10.1.0.1")))


class Balancer(MemoryBalancer):
    """A balancer that may be away, cannot listen at some ports, or is changed by somebody in between."""

    away = False
    refuses: frozenset[int] = frozenset()
    batches = 0
    tended = 0
    overtaken = 0

    async def read(self) -> Frontends:
        if self.away:
            raise UnavailableError("the balancer does not answer")
        return await super().read()

    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        if self.overtaken:
            self.overtaken -= 1
            raise FrontendsChangedError("somebody was quicker")
        for change in changes:
            if change.after and change.listener.port in self.refuses:
                raise ListenerRefusedError(f"{change.listener} cannot be opened", listener=change.listener)
        await super().apply(owner, changes)
        self.batches += 1

    async def tend(self) -> None:
        self.tended += 1

    async def frontends(self) -> dict[Listener, Frontend]:
        return {listener: there.frontend for listener, there in (await super().read()).items()}


@pytest.fixture
async def cluster() -> Cluster:
    made = Cluster()
    await made.with_namespaces()
    return made


@pytest.fixture
def balancer() -> Balancer:
    return Balancer()


@contextlib.asynccontextmanager
async def serving(
    cluster: Cluster,
    balancer: Balancer,
    pace: Pace = PACE,
    where: Site | None = None,
    part: Callable[[], Part] = lambda: Part.ALONE,
) -> AsyncIterator[ClusterController]:
    controller = ClusterController(
        cluster, balancer, "first", where or site(), clock=SystemClock(), pace=pace, part=part
    )
    task = asyncio.ensure_future(controller.run())
    try:
        yield controller
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def serves(balancer: Balancer, *listeners: Listener) -> None:
    async def seen() -> bool:
        return set(await balancer.frontends()) == set(listeners)

    await until(seen, f"{listeners} to be served")


async def told(cluster: Cluster, reason: str, name: str = "web") -> Manifest:
    found: Manifest = {}

    async def seen() -> bool:
        nonlocal found
        conditions = (await cluster.service(name)).get("status", {}).get("conditions", [])
        found = next((entry for entry in conditions if entry["type"] == CONDITION), {})
        return found.get("reason") == reason

    await until(seen, f"{name} to be told {reason}")
    return found


def address_of(one: Manifest) -> str:
    return str(one["status"]["loadBalancer"]["ingress"][0]["ip"])


async def test_a_service_comes_changes_and_goes(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer) as controller:
        await cluster.make("web")
        await told(cluster, BALANCED)
        found = await cluster.service()
        assert (address_of(found), found["metadata"]["finalizers"]) == ("192.0.2.10", [FINALIZER])
        assert await balancer.frontends() == {WEB: Frontend(WEB, "shop/web", Options(), (Member("10.1.0.1", 8080),))}
        assert {there.owner for there in (await balancer.read()).values()} == {controller.owner}

        await cluster.apply(ENDPOINT_SLICES, slice_of("web", endpoint("10.1.0.2")))

        async def moved() -> bool:
            return (await balancer.frontends())[WEB].members == (Member("10.1.0.2", 8080),)

        await until(moved, "the member to change")
        await cluster.delete(SERVICES, "web", "shop")
        await serves(balancer)

        async def gone() -> bool:
            return not await cluster.service()

        await until(gone, "the Service to be gone")


async def test_a_service_that_is_balanced_no_more_is_left_as_it_was_found(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
        await cluster.patch(SERVICES, "web", {"spec": {"type": "ClusterIP"}}, "shop")
        await serves(balancer)

        async def clean() -> bool:
            found = await cluster.service()
            status = found.get("status") or {}
            return (
                not found["metadata"].get("finalizers")
                and not (status.get("loadBalancer") or {}).get("ingress")
                and not status.get("conditions")
            )

        await until(clean, "the Service to be as it was")


async def test_what_is_for_the_balancer_of_another_class_is_left_alone(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
    other = {"spec": {"loadBalancerClass": "internal"}}
    marked = await cluster.patch(SERVICES, "web", other, "shop")
    async with serving(cluster, balancer):
        await cluster.make("last")
        await told(cluster, BALANCED, "last")
        found = await cluster.service()
        assert (found["status"], found["metadata"]["finalizers"]) == (
            marked["status"],
            marked["metadata"]["finalizers"],
        )


async def test_the_finalizer_is_there_before_anything_is_served(cluster: Cluster, balancer: Balancer) -> None:
    cluster.refuses_finalizers = True
    quick = Pace(gather=0.0, resync=0.02, tend=1.0, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, balancer, quick):
        await cluster.make("web")
        await cluster.looked_at_again()
        assert await balancer.frontends() == {}
        cluster.refuses_finalizers = False
        await serves(balancer, WEB)


async def test_a_service_deleted_while_nobody_looks_is_gone_at_the_next_start(
    cluster: Cluster, balancer: Balancer
) -> None:
    async with serving(cluster, balancer):
        await cluster.make("web", "other")
        await told(cluster, BALANCED)
        await told(cluster, BALANCED, "other")
    await cluster.delete(SERVICES, "web", "shop")
    kept = address_of(await cluster.service("other"))
    async with serving(cluster, balancer):
        await serves(balancer, Listener(kept, Protocol.TCP, 80))
        await cluster.make("next")
        await told(cluster, BALANCED, "next")
        assert address_of(await cluster.service("other")) == kept


async def test_a_start_with_nothing_to_do_writes_nothing(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
    count, before = balancer.batches, await cluster.service()
    quick = Pace(gather=0.0, resync=0.02, tend=1.0, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, balancer, quick):
        await cluster.looked_at_again()
        assert (balancer.batches, await cluster.service()) == (count, before)


async def test_an_api_that_is_away_at_the_start_takes_nothing_away(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
    cluster.away = True
    await cluster.delete(SERVICES, "web", "shop")
    async with serving(cluster, balancer):
        await cluster.looked_at_again()
        assert list(await balancer.frontends()) == [WEB]
        cluster.away = False
        await serves(balancer)


async def test_another_cluster_behind_the_same_api_changes_nothing(cluster: Cluster, balancer: Balancer) -> None:
    quick = Pace(gather=0.0, resync=0.02, tend=1.0, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, balancer, quick) as controller:
        await cluster.make("web")
        await told(cluster, BALANCED)
        owner = controller.owner
        await cluster.delete(NAMESPACES, "kube-system")
        await cluster.apply(NAMESPACES, {"metadata": {"name": "kube-system"}})
        await cluster.delete(SERVICES, "web", "shop")
        await cluster.make("new")
        await cluster.looked_at_again()
        assert list(await balancer.frontends()) == [WEB]
        assert controller.owner == owner


async def test_a_balancer_that_is_away_is_told_of_and_made_up_for(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
        balancer.away = True
        await cluster.make("next")
        condition = await told(cluster, NOT_ACKNOWLEDGED, "next")
        assert (condition["status"], "does not answer" in condition["message"]) == ("False", True)
        assert address_of(await cluster.service()) == "192.0.2.10"
        balancer.away = False
        await told(cluster, BALANCED, "next")


async def test_one_that_cannot_be_holds_up_no_other_and_comes_when_it_can(cluster: Cluster, balancer: Balancer) -> None:
    balancer.refuses = frozenset({81})
    quick = Pace(gather=0.0, resync=0.05, tend=1.0, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, balancer, quick):
        await cluster.make("bad", ports=[port(81)])
        await cluster.make("outside", annotations={"address": "198.51.100.1"})
        await cluster.make("web")
        await told(cluster, BALANCED)
        assert "cannot be opened" in (await told(cluster, REFUSED, "bad"))["message"]
        await told(cluster, OUTSIDE, "outside")
        balancer.refuses = frozenset()
        await told(cluster, BALANCED, "bad")


async def test_when_another_cluster_was_quicker_it_is_decided_anew(cluster: Cluster, balancer: Balancer) -> None:
    await balancer.apply("second/2", [Change(None, Frontend(WEB, "other/web"))])
    balancer.overtaken = 2
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
        assert address_of(await cluster.service()) == "192.0.2.11"


async def test_what_somebody_took_away_comes_back(cluster: Cluster, balancer: Balancer) -> None:
    quick = Pace(gather=0.0, resync=0.05, tend=1.0, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, balancer, quick) as controller:
        await cluster.make("web")
        await told(cluster, BALANCED)
        [frontend] = (await balancer.frontends()).values()
        await balancer.apply(controller.owner, [Change(frontend, None)])
        await serves(balancer, WEB)


async def test_what_is_news_is_an_event_and_others_conditions_stay(cluster: Cluster, balancer: Balancer) -> None:
    foreign = {"type": "example.com/Other", "status": "True"}
    async with serving(cluster, balancer):
        await cluster.make("web")
        await told(cluster, BALANCED)
        version = (await cluster.service())["metadata"]["resourceVersion"]
        conditions = [*(await cluster.service())["status"]["conditions"], foreign]
        patch = {"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}
        await cluster.patch(SERVICES, "web", patch, "shop", subresource="status")
        await cluster.delete(ENDPOINT_SLICES, "web-1", "shop")
        await told(cluster, NO_MEMBERS)
        assert foreign in (await cluster.service())["status"]["conditions"]
        # It stays where it was: clients get its address before its pods are there.
        assert address_of(await cluster.service()) == "192.0.2.10"
    events = await cluster.list(EVENTS, "shop")
    assert {event["reason"] for event in events} >= {BALANCED, NO_MEMBERS}
    assert {event["regarding"]["name"] for event in events} == {"web"}


async def test_the_balancer_is_tended(cluster: Cluster, balancer: Balancer) -> None:
    async with serving(cluster, balancer):

        async def often() -> bool:
            return balancer.tended > 2

        await until(often, "the balancer to be tended")


async def test_machines_that_share_addresses_serve_the_same_and_one_tells(cluster: Cluster, balancer: Balancer) -> None:
    parts = [Part.STANDBY, Part.STANDBY]
    other = Balancer()
    # The second one has a stranger at the address that the first one gives.
    stranger = Frontend(Listener("192.0.2.11", Protocol.TCP, 80), "x/y")
    await other.apply("another/cluster", [Change(None, stranger)])
    async with (
        serving(cluster, balancer, part=lambda: parts[0]) as first,
        serving(cluster, other, part=lambda: parts[1]) as second,
    ):
        await cluster.make("web")
        both = (balancer, other)

        async def tended() -> bool:
            return all(one.tended > 2 for one in both)

        await until(tended, "both to be at work")
        assert await balancer.frontends() == {}
        assert not (await cluster.service()).get("status")
        parts[0] = Part.ACTIVE
        first.wake()
        await told(cluster, BALANCED)
        await serves(balancer, WEB)
        await serves(other, WEB, stranger.listener)
        # The other way round: what is served stays, what is new is what the other one says.
        parts[:] = [Part.STANDBY, Part.ACTIVE]
        first.wake()
        second.wake()
        await cluster.make("next")
        await told(cluster, BALANCED, "next")
        assert address_of(await cluster.service()) == WEB.address
        next_one = Listener("192.0.2.12", Protocol.TCP, 80)
        assert address_of(await cluster.service("next")) == next_one.address
        await serves(other, WEB, next_one, stranger.listener)
        await serves(balancer, WEB, next_one)
        await cluster.delete(SERVICES, "next", "shop")
        await serves(balancer, WEB)
        await serves(other, WEB, stranger.listener)

        async def gone() -> bool:
            return not await cluster.service("next")

        await until(gone, "the Service to be let go")
