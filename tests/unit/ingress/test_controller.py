"""The controller with a cluster and a proxy in memory: what it serves, what it holds on to, what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from haneul.ingress.adapters.allowed_hosts import AllowedHosts
from haneul.ingress.adapters.memory import MemoryProxy
from haneul.ingress.annotations import PREFIX
from haneul.ingress.controller import ClusterController, Pace
from haneul.ingress.exclusions import culprits
from haneul.ingress.model import Certificate
from haneul.ingress.observed import GATEWAY_RESOURCES
from haneul.ingress.options import Options
from haneul.ingress.ports import Configuration
from haneul.ingress.reach import OPENING_LABEL, NodePorts
from haneul.ingress.rendering import render_configuration
from haneul.ingress.table import Table
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    ENDPOINT_SLICES,
    EVENTS,
    GATEWAYS,
    HTTP_ROUTES,
    INGRESS_CLASSES,
    INGRESSES,
    NAMESPACES,
    SERVICES,
    KubeApiError,
    KubeClient,
    Manifest,
    Resource,
    resource_of,
)
from haneul.kernel.kube_objects import Place
from tests.followed import FollowedCluster, until
from tests.unit.ingress.gateway_objects import gateway, gateway_class, http_route, rule
from tests.unit.ingress.objects import (
    HOST,
    certificate,
    endpoint,
    ingress,
    ingress_class,
    path,
    service,
    slice_of,
    tls_secret,
)
from tests.unit.ingress.test_rendering import SITE

PACE = Pace(gather=0.0, between_reloads=0.0, resync=3600.0, look=3600.0, first_backoff=0.01, last_backoff=0.02)
ADDRESS = "192.0.2.10"


class Cluster(FollowedCluster):
    """A cluster that takes objects of any kind."""

    async def put(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            await self.apply(resource_of(manifest), manifest)


class Proxy(MemoryProxy):
    """A proxy that may be away."""

    away = False
    points = 0
    checks = 0

    async def check(self, configuration: Configuration) -> None:
        self.checks += 1
        await super().check(configuration)

    async def route(self, configuration: Configuration, table: Table) -> None:
        if self.away:
            raise UnavailableError("the proxy does not answer")
        await super().route(configuration, table)

    async def point(self, table: Table) -> None:
        if self.away:
            raise UnavailableError("the proxy does not answer")
        self.points += 1
        await super().point(table)

    def has(self, host: str) -> bool:
        return self.configuration is not None and f'"{host}"' in self.configuration.text

    def peers(self) -> list[str]:
        return [peer[0] for entry in self.table.entries.values() for peer in entry["peers"]]


@pytest.fixture
async def cluster() -> Cluster:
    made = Cluster()
    await made.with_namespaces()
    await made.put(ingress_class(), service(), slice_of("web", endpoint("10.0.0.1")))
    return made


@contextlib.asynccontextmanager
async def serving(
    client: KubeClient, proxy: Proxy, *hosts: str, pace: Pace = PACE, **more: Any
) -> AsyncIterator[ClusterController]:
    controller = ClusterController(
        client,
        proxy,
        AllowedHosts(hosts),
        partial(render_configuration, site=SITE),
        cluster="first",
        options=Options(),
        addresses=[ADDRESS, "lb.example.com"],
        clock=SystemClock(),
        pace=pace,
        **more,
    )
    working = asyncio.ensure_future(controller.run())
    try:
        yield controller
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def events(cluster: Cluster) -> list[tuple[str, str]]:
    return [(found["reason"], found["regarding"]["name"]) for found in await cluster.list(EVENTS)]


async def balancer(cluster: Cluster, name: str = "web") -> list[dict[str, str]]:
    found = await cluster.get(INGRESSES, name, "shop")
    assert found
    entries: list[dict[str, str]] = found.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return entries


def fresh(manifest: Manifest) -> Manifest:
    """Return a manifest without what an API gives itself."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in ("uid", "creationTimestamp")}
    return {**manifest, "metadata": metadata}


async def test_serves_what_there_is_and_what_comes(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(fresh(ingress("web")))
    async with serving(cluster, proxy):
        await until(lambda: proxy.has(HOST), "the first to be served")
        assert proxy.peers() == ["10.0.0.1"]
        await cluster.put(fresh(ingress("late", host="late.example.com")))
        await until(lambda: proxy.has("late.example.com"), "the late one to be served")
        await cluster.delete(INGRESSES, "late", "shop")
        await until(lambda: not proxy.has("late.example.com"), "it to go")
        assert proxy.has(HOST)

        async def told() -> bool:
            return await balancer(cluster) == [{"ip": ADDRESS}, {"hostname": "lb.example.com"}]

        await until(told, "the status")


async def test_endpoints_alone_change_no_route(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(fresh(ingress("web")))
    async with serving(cluster, proxy):
        await until(lambda: proxy.peers() == ["10.0.0.1"], "the first endpoint")
        await cluster.put(slice_of("web", endpoint("10.0.0.2")))
        await until(lambda: proxy.peers() == ["10.0.0.2"], "the other endpoint")
        await cluster.delete(ENDPOINT_SLICES, "web-1", "shop")
        await until(lambda: proxy.peers() == [], "no endpoint")
        assert proxy.reloads == 1


async def test_what_is_wrong_is_told_once_and_breaks_nobody(cluster: Cluster) -> None:
    proxy = Proxy()
    wrong = fresh(ingress("wrong", path("/", service="none"), host="w.example.com"))
    theirs = fresh(ingress("theirs", host="their.example.org"))
    await cluster.put(fresh(ingress("web")), wrong, theirs)
    async with serving(cluster, proxy, "*.example.com"):

        async def told() -> bool:
            return sorted(await events(cluster)) == [("BackendMissing", "wrong"), ("HostRefused", "theirs")]

        await until(told, "both to be told")
        assert proxy.has(HOST)
        assert not proxy.has("their.example.org")
        await cluster.put(service("none"))
        await until(lambda: len(proxy.table.entries) == 2, "the backend to come")
        assert await balancer(cluster, "theirs") == []
    async with serving(cluster, Proxy(), "*.example.com"):

        async def counted() -> bool:
            return [(found.get("series") or {}).get("count", 1) for found in await cluster.list(EVENTS)].count(2) == 1

        await until(counted, "what is still wrong to be counted up by whoever comes later")
    assert len(await events(cluster)) == 2


async def test_one_that_the_proxy_does_not_take_is_left_out(cluster: Cluster) -> None:
    proxy = Proxy(refuses="bad.example.com")
    for number in range(5):
        await cluster.put(fresh(ingress(f"good-{number}", host=f"good-{number}.example.com")))
    await cluster.put(fresh(ingress("bad", host="bad.example.com")))
    async with serving(cluster, proxy):
        await until(lambda: all(proxy.has(f"good-{number}.example.com") for number in range(5)), "all others")

        async def told() -> bool:
            return await events(cluster) == [("ConfigurationRefused", "bad")]

        await until(told, "the bad one to be told")
        reloads = proxy.reloads
        await cluster.put(fresh(ingress("new", host="new.example.com")))
        await until(lambda: proxy.has("new.example.com"), "another one to be served")
        assert proxy.reloads == reloads + 1


async def test_one_whose_wishes_the_proxy_does_not_take_is_closed_and_keeps_its_paths(cluster: Cluster) -> None:
    proxy = Proxy(refuses="X-Odd")
    annotations = {f"{PREFIX}enable-cors": "true", f"{PREFIX}cors-allow-headers": "X-Odd"}
    await cluster.put(fresh(ingress("open", host="one.example.com")))
    await cluster.put(fresh(ingress("odd", path("/admin"), host="one.example.com", annotations=annotations)))
    async with serving(cluster, proxy):
        await until(lambda: proxy.has("one.example.com"), "the other one to be served")
        assert proxy.configuration is not None
        # Were it left out, the other one's path "/" would answer for it.
        assert '"/admin/"' in proxy.configuration.text

        async def told() -> bool:
            return await events(cluster) == [("ConfigurationRefused", "odd")]

        await until(told, "it to be told")


async def test_a_proxy_that_takes_nothing_at_all_makes_nobody_guilty(cluster: Cluster) -> None:
    proxy = Proxy(refuses="server")
    await cluster.put(fresh(ingress("web")))
    async with serving(cluster, proxy):
        await until(lambda: proxy.checks >= 3, "the proxy to be asked again")
        assert await events(cluster) == []
        proxy.refuses = ""
        await until(lambda: proxy.has(HOST), "it to be served")


async def test_what_is_served_stays_while_the_api_is_away(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(fresh(ingress("web")))
    async with serving(cluster, proxy, pace=Pace(0.0, 0.0, 0.01, 3600.0, 0.01, 0.02)):
        await until(lambda: proxy.has(HOST), "it to be served")
        cluster.away = True
        await cluster.looked_at_again()
        assert proxy.has(HOST)
        assert proxy.peers() == ["10.0.0.1"]


async def test_another_cluster_behind_the_same_address_changes_nothing(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(fresh(ingress("web")))
    async with serving(cluster, proxy):
        await until(lambda: proxy.has(HOST), "it to be served")
        await cluster.delete(NAMESPACES, "kube-system")
        await cluster.apply(NAMESPACES, {"metadata": {"name": "kube-system"}})
        looks = cluster.looks
        await cluster.delete(INGRESSES, "web", "shop")
        await until(lambda: cluster.looks >= looks + 3, "the cluster to be looked at again")
        assert proxy.has(HOST)


async def test_a_proxy_that_comes_back_is_told_all(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(fresh(ingress("web")))
    async with serving(cluster, proxy, pace=Pace(0.0, 0.0, 3600.0, 0.01, 0.01, 0.02)):
        await until(lambda: proxy.has(HOST), "it to be served")
        proxy.away = True
        await cluster.put(slice_of("web", endpoint("10.0.0.2")))
        proxy.configuration, proxy.table = None, Table()
        proxy.away = False
        await until(lambda: proxy.has(HOST) and proxy.peers() == ["10.0.0.2"], "it to be served again")


async def test_a_class_that_becomes_ours_brings_its_objects(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(fresh(ingress("web", class_name="nginx")))
    async with serving(cluster, proxy):
        await until(lambda: proxy.configuration is not None, "the proxy to be told")
        assert not proxy.has(HOST)
        await cluster.put(ingress_class("nginx"))
        await until(lambda: proxy.has(HOST), "it to be served")
        await cluster.delete(INGRESS_CLASSES, "nginx")
        await until(lambda: not proxy.has(HOST), "it to go")
        await cluster.delete(SERVICES, "web", "shop")


@pytest.mark.parametrize("bad", [set(), {0}, {7}, {2, 3, 5}, set(range(8))])
async def test_culprits_are_found_by_halves(bad: set[int]) -> None:
    objects = [Place("Ingress", "shop", str(number)) for number in range(8)]
    asked = 0

    async def takes(some: frozenset[Place]) -> str:
        nonlocal asked
        asked += 1
        return "no" if any(int(place.name) in bad for place in some) else ""

    assert set(await culprits(objects, takes)) == {objects[number] for number in bad}
    assert asked <= 15


async def test_of_two_that_do_not_go_together_the_first_stays() -> None:
    objects = [Place("Ingress", "shop", str(number)) for number in range(4)]

    async def takes(some: frozenset[Place]) -> str:
        return "no" if {objects[1], objects[2]} <= some else ""

    assert await culprits(objects, takes) == {objects[2]: "no"}


async def test_hosts_of_a_list() -> None:
    hosts = AllowedHosts(["shop.example.com", "*.web.example.com"])
    asked = ["shop.example.com", "a.web.example.com", "a.b.web.example.com", "*.web.example.com", "web.example.com"]
    assert set(await hosts.refused([*asked, "xweb.example.com"])) == {"web.example.com", "xweb.example.com"}
    assert await AllowedHosts([]).refused(asked) == {}


class LateCluster(Cluster):
    """A cluster that knows the Gateway API only from a moment on, or does not let it be read."""

    refusal = 404

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        if self.refusal and resource in GATEWAY_RESOURCES:
            raise KubeApiError(f"no {resource.plural}", status=self.refusal, reason="")
        return await super().list(resource, namespace, labels=labels, fields=fields)


@pytest.fixture
async def late() -> LateCluster:
    made = LateCluster()
    await made.with_namespaces()
    await made.put(ingress_class(), service(), slice_of("web", endpoint("10.0.0.1")))
    return made


def conditions(found: Manifest | None) -> dict[str, str]:
    parents = (found or {}).get("status", {}).get("parents") or [{}]
    return {one["type"]: one["status"] for one in parents[0].get("conditions", [])}


async def test_a_cluster_without_the_gateway_api_is_served_and_so_is_what_comes_of_it(late: LateCluster) -> None:
    proxy = Proxy()
    await late.put(fresh(ingress("web")))
    async with serving(late, proxy, pace=Pace(0.0, 0.0, 0.01, 3600.0, 0.01, 0.02)):
        await until(lambda: proxy.has(HOST), "the Ingress to be served")
        late.refusal = 0
        await late.put(gateway_class(), fresh(gateway()), fresh(http_route(hosts=["r.example.com"])))
        await until(lambda: proxy.has("r.example.com"), "the route to be served")

        async def told() -> bool:
            return conditions(await late.get(HTTP_ROUTES, "web", "shop")) == {
                "Accepted": "True",
                "ResolvedRefs": "True",
            }

        await until(told, "the route to be told")

        async def programmed() -> bool:
            found = await late.get(GATEWAYS, "web", "shop") or {}
            return [one["status"] for one in found.get("status", {}).get("conditions", [])] == ["True", "True"]

        await until(programmed, "the Gateway to be told")
        late.refusal = 403
        await late.looked_at_again()
        assert proxy.has("r.example.com")
        late.refusal = 404
        await until(lambda: not proxy.has("r.example.com"), "it to go with the definitions")
        assert proxy.has(HOST)


async def test_a_route_is_told_what_is_wrong_and_left_alone_when_its_gateway_goes(late: LateCluster) -> None:
    late.refusal = 0
    proxy = Proxy()
    route = http_route("web", rule(to=["web", "none"]), hosts=["r.example.com"])
    await late.put(gateway_class(), fresh(gateway()), fresh(route))
    async with serving(late, proxy):

        async def told() -> bool:
            found = await late.get(HTTP_ROUTES, "web", "shop")
            return conditions(found) == {"Accepted": "True", "ResolvedRefs": "False"}

        await until(told, "the route to be told")

        async def has_event() -> bool:
            return await events(late) == [("BackendMissing", "web")]

        await until(has_event, "the event")
        [event] = await late.list(EVENTS)
        assert event["regarding"]["kind"] == "HTTPRoute"
        await late.delete(GATEWAYS, "web", "shop")

        async def forgotten() -> bool:
            found = await late.get(HTTP_ROUTES, "web", "shop") or {}
            return bool(found["status"]["parents"] == [])

        await until(forgotten, "its status to be cleared")
        assert not proxy.has("r.example.com")


async def test_a_route_that_the_proxy_does_not_take_is_found_and_told(late: LateCluster) -> None:
    late.refusal = 0
    proxy = Proxy(refuses="bad.example.com")
    good, bad = http_route("good", hosts=["good.example.com"]), http_route("bad", hosts=["bad.example.com"])
    await late.put(gateway_class(), fresh(gateway()), fresh(good), fresh(bad))
    async with serving(late, proxy):
        await until(lambda: proxy.has("good.example.com"), "the good one to be served")

        async def told() -> bool:
            return await events(late) == [("ConfigurationRefused", "bad")]

        await until(told, "the bad one to be told")


async def test_a_service_is_opened_as_long_as_a_path_leads_to_it(cluster: Cluster) -> None:
    proxy = Proxy()
    await cluster.put(service(selector={"app": "web"}), fresh(ingress("web")))

    async def openings() -> int:
        return len(await cluster.list(SERVICES, labels=OPENING_LABEL))

    async with serving(cluster, proxy, reach=NodePorts(("10.192.0.11",))):
        await until(openings, "the opening")
        await until(lambda: proxy.peers() == ["10.192.0.11"], "the node to be a peer")
        await cluster.delete(INGRESSES, "web", "shop")

        async def closed() -> bool:
            return await openings() == 0

        await until(closed, "the opening to go")


class Issued:
    """Gives hosts certificates, one after the other."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.number = 0

    async def certificates(self, hosts: Sequence[str]) -> Mapping[str, Certificate]:
        self.asked.append(list(hosts))
        return {host: Certificate(f"chain {self.number} of {host}".encode(), b"key") for host in hosts}


async def test_hosts_that_bring_no_certificate_get_one_and_then_another(cluster: Cluster) -> None:
    proxy, issued = Proxy(), Issued()
    pair = certificate("own.example.com")
    await cluster.put(fresh(ingress("web")), fresh(ingress("theirs", host="www.example.org")))
    await cluster.put(tls_secret("own", pair))
    tls = [{"hosts": ["own.example.com"], "secretName": "own"}]
    await cluster.put(fresh(ingress("own", host="own.example.com", tls=tls)))
    async with serving(cluster, proxy, "*.example.com", certificates=issued) as controller:
        await until(lambda: proxy.has("own.example.com"), "the hosts to be served")
        assert issued.asked[0] == ["own.example.com", HOST]
        assert proxy.configuration is not None
        chains = {content for name, content in proxy.configuration.files.items() if name.endswith(".crt")}
        assert f"chain 0 of {HOST}".encode() in chains
        assert pair.certificate in chains
        issued.number = 1
        controller.renew()

        def renewed() -> bool:
            assert proxy.configuration is not None
            return f"chain 1 of {HOST}".encode() in proxy.configuration.files.values()

        await until(renewed, "another certificate")
