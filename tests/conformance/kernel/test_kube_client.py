"""What every Kubernetes client does, whatever API it speaks to: the behaviour suite of the port KubeClient."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, PODS, SERVICES, KubeApiError, KubeClient, Manifest, WatchEvent
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.waiting import wait_for

KUBECONFIG = Path("/var/lib/haneul/admin.kubeconfig")


@dataclass(frozen=True)
class Api:
    """A client and a namespace of the test's own."""

    client: KubeClient
    namespace: str

    def config_map(self, name: str, data: dict[str, str], **labels: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "data": data,
        }


@pytest.fixture(params=["memory", pytest.param("http", marks=pytest.mark.e2e)])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    if request.param == "memory":
        client: KubeClient = MemoryKubeClient()
        await client.create(NAMESPACES, _namespace("conformance"))
        yield Api(client, "conformance")
        return
    if not KUBECONFIG.exists():
        pytest.skip("there is no management cluster")
    async with HttpKubeClient(access_from_kubeconfig(KUBECONFIG)) as real:
        name = f"conformance-{secrets.token_hex(4)}"
        await real.create(NAMESPACES, _namespace(name))
        try:
            yield Api(real, name)
        finally:
            await real.delete(NAMESPACES, name)


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def test_what_is_not_there_is_none(api: Api) -> None:
    assert await api.client.get(CONFIG_MAPS, "absent", api.namespace) is None
    assert await api.client.delete(CONFIG_MAPS, "absent", api.namespace) is False


async def test_created_object_is_read_back_whole(api: Api) -> None:
    created = await api.client.create(CONFIG_MAPS, api.config_map("one", {"a": "1"}, team="red"))
    read = await api.client.get(CONFIG_MAPS, "one", api.namespace)
    assert read == created
    assert (read["apiVersion"], read["kind"], read["data"]) == ("v1", "ConfigMap", {"a": "1"})
    assert all(read["metadata"][name] for name in ("uid", "resourceVersion", "creationTimestamp"))


async def test_second_creation_of_a_name_is_refused(api: Api) -> None:
    await api.client.create(CONFIG_MAPS, api.config_map("one", {"a": "1"}))
    with pytest.raises(KubeApiError) as refusal:
        await api.client.create(CONFIG_MAPS, api.config_map("one", {"a": "2"}))
    assert (refusal.value.status, refusal.value.reason) == (409, "AlreadyExists")
    read = await api.client.get(CONFIG_MAPS, "one", api.namespace)
    assert read is not None and read["data"] == {"a": "1"}


async def test_nothing_is_made_in_a_namespace_that_is_not_there(api: Api) -> None:
    manifest = api.config_map("one", {})
    manifest["metadata"]["namespace"] = "no-such-namespace"
    for write in (api.client.create, api.client.apply):
        with pytest.raises(KubeApiError) as refusal:
            await write(CONFIG_MAPS, manifest)
        assert (refusal.value.status, refusal.value.reason) == (404, "NotFound")


async def test_apply_makes_and_then_changes(api: Api) -> None:
    first = await api.client.apply(CONFIG_MAPS, api.config_map("one", {"a": "1"}))
    second = await api.client.apply(CONFIG_MAPS, api.config_map("one", {"a": "2"}))
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert second["data"] == {"a": "2"}
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


async def test_apply_of_the_same_changes_nothing(api: Api) -> None:
    first = await api.client.apply(CONFIG_MAPS, api.config_map("one", {"a": "1"}))
    second = await api.client.apply(CONFIG_MAPS, api.config_map("one", {"a": "1"}))
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_apply_takes_away_what_it_named_before_and_leaves_what_others_set(api: Api) -> None:
    await api.client.apply(CONFIG_MAPS, api.config_map("one", {"mine": "1", "also-mine": "2"}))
    await api.client.patch(CONFIG_MAPS, "one", {"data": {"theirs": "3"}}, api.namespace)
    applied = await api.client.apply(CONFIG_MAPS, api.config_map("one", {"mine": "1"}))
    assert applied["data"]["mine"] == "1"
    assert "also-mine" not in applied["data"]
    assert applied["data"]["theirs"] == "3"


async def test_services_keep_the_addresses_they_were_given(api: Api) -> None:
    service: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": api.namespace},
        "spec": {"type": "NodePort", "ports": [{"name": "https", "port": 443, "targetPort": 443}]},
    }
    first = await api.client.apply(SERVICES, service)
    assert first["spec"]["clusterIP"] and first["spec"]["ports"][0]["nodePort"] >= 30000
    service["metadata"]["labels"] = {"changed": "yes"}
    second = await api.client.apply(SERVICES, service)
    assert second["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    assert second["spec"]["ports"][0]["nodePort"] == first["spec"]["ports"][0]["nodePort"]


async def test_patch_merges_and_null_removes(api: Api) -> None:
    await api.client.create(CONFIG_MAPS, api.config_map("one", {"a": "1", "b": "2"}))
    patched = await api.client.patch(CONFIG_MAPS, "one", {"data": {"a": None, "c": "3"}}, api.namespace)
    assert patched["data"] == {"b": "2", "c": "3"}


async def test_patch_of_what_is_not_there_is_refused(api: Api) -> None:
    with pytest.raises(KubeApiError) as refusal:
        await api.client.patch(CONFIG_MAPS, "absent", {"data": {"a": "1"}}, api.namespace)
    assert (refusal.value.status, refusal.value.reason) == (404, "NotFound")


async def test_write_against_an_old_version_is_refused(api: Api) -> None:
    created = await api.client.create(CONFIG_MAPS, api.config_map("one", {"a": "1"}))
    old = {"resourceVersion": created["metadata"]["resourceVersion"]}
    await api.client.patch(CONFIG_MAPS, "one", {"data": {"a": "2"}}, api.namespace)
    with pytest.raises(KubeApiError) as refusal:
        await api.client.patch(CONFIG_MAPS, "one", {"metadata": old, "data": {"a": "3"}}, api.namespace)
    assert (refusal.value.status, refusal.value.reason) == (409, "Conflict")


async def test_status_is_written_through_its_subresource_only(api: Api) -> None:
    service: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": api.namespace},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "https", "port": 443}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    }
    created = await api.client.create(SERVICES, service)
    assert not created.get("status", {}).get("loadBalancer")
    status = {"status": service["status"], "spec": {"ports": []}}
    patched = await api.client.patch(SERVICES, "web", status, api.namespace, subresource="status")
    assert patched["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1"
    assert patched["spec"]["ports"][0]["port"] == 443


async def test_lists_are_whole_and_select_by_label(api: Api) -> None:
    await api.client.create(CONFIG_MAPS, api.config_map("two", {}, team="red", tier="web"))
    await api.client.create(CONFIG_MAPS, api.config_map("one", {}, team="red"))
    await api.client.create(CONFIG_MAPS, api.config_map("three", {}, team="blue"))

    async def names(selector: str) -> list[str]:
        found = await api.client.list(CONFIG_MAPS, api.namespace, labels=selector)
        assert all(entry["kind"] == "ConfigMap" and entry["apiVersion"] == "v1" for entry in found)
        return [entry["metadata"]["name"] for entry in found]

    assert await names("team=red") == ["one", "two"]
    assert await names("team=red,tier=web") == ["two"]
    assert await names("team,!tier,team!=blue") == ["one"]
    everywhere = await api.client.list(CONFIG_MAPS, labels="team=blue")
    assert [entry["metadata"]["name"] for entry in everywhere if entry["metadata"]["namespace"] == api.namespace]


async def test_selector_that_is_none_is_refused(api: Api) -> None:
    with pytest.raises(KubeApiError) as refusal:
        await api.client.list(CONFIG_MAPS, api.namespace, labels="team=(")
    assert refusal.value.status == 400


async def test_watch_yields_what_is_and_what_changes(api: Api) -> None:
    await api.client.create(CONFIG_MAPS, api.config_map("old", {}, watched="yes"))
    seen: asyncio.Queue[WatchEvent] = asyncio.Queue()

    async def follow() -> None:
        async for event in api.client.watch(CONFIG_MAPS, api.namespace, labels="watched=yes"):
            seen.put_nowait(event)

    async def next_event() -> tuple[str, str]:
        event = await asyncio.wait_for(seen.get(), 60)
        return event.type, event.object["metadata"]["name"]

    task = asyncio.create_task(follow())
    try:
        assert await next_event() == ("ADDED", "old")
        await api.client.create(CONFIG_MAPS, api.config_map("unlabelled", {}))
        await api.client.create(CONFIG_MAPS, api.config_map("new", {}, watched="yes"))
        assert await next_event() == ("ADDED", "new")
        await api.client.patch(CONFIG_MAPS, "new", {"data": {"a": "1"}}, api.namespace)
        assert await next_event() == ("MODIFIED", "new")
        await api.client.patch(CONFIG_MAPS, "unlabelled", {"metadata": {"labels": {"watched": "yes"}}}, api.namespace)
        assert await next_event() == ("ADDED", "unlabelled")
        await api.client.patch(CONFIG_MAPS, "unlabelled", {"metadata": {"labels": {"watched": None}}}, api.namespace)
        assert await next_event() == ("DELETED", "unlabelled")
        assert await api.client.delete(CONFIG_MAPS, "new", api.namespace)
        assert await next_event() == ("DELETED", "new")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_list_is_of_the_fields_that_are_asked_for(api: Api) -> None:
    for name in ("one", "two"):
        await api.client.create(CONFIG_MAPS, api.config_map(name, {}))
    found = await api.client.list(CONFIG_MAPS, api.namespace, fields="metadata.name=two")
    assert [entry["metadata"]["name"] for entry in found] == ["two"]
    assert await api.client.list(CONFIG_MAPS, api.namespace, fields="metadata.name=three") == []


async def test_evicted_pod_goes_and_only_the_one_that_is_meant(api: Api) -> None:
    pod = await _idle_pod(api)
    eviction: Manifest = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "idle", "namespace": api.namespace},
        "deleteOptions": {"preconditions": {"uid": "another"}},
    }
    with pytest.raises(KubeApiError) as refusal:
        await api.client.create(PODS, eviction, subresource="eviction")
    assert (refusal.value.status, refusal.value.reason) == (409, "Conflict")
    eviction["deleteOptions"] = {"preconditions": {"uid": pod["metadata"]["uid"]}, "dryRun": ["All"]}
    await api.client.create(PODS, eviction, subresource="eviction")
    kept = await api.client.get(PODS, "idle", api.namespace)
    assert kept is not None and "deletionTimestamp" not in kept["metadata"], "to try is not to do"
    del eviction["deleteOptions"]["dryRun"]
    await api.client.create(PODS, eviction, subresource="eviction")

    async def gone() -> bool:
        return await api.client.get(PODS, "idle", api.namespace) is None

    await wait_for(gone, what="the pod to end", timeout=60, clock=SystemClock())
    with pytest.raises(KubeApiError) as absent:
        await api.client.create(PODS, eviction, subresource="eviction")
    assert absent.value.reason == "NotFound"


async def _idle_pod(api: Api) -> Manifest:
    """Return a pod that finds no node; a new namespace takes pods only once it has its service account."""
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "idle", "namespace": api.namespace},
        "spec": {
            "nodeSelector": {"conformance.haneul.dev/nowhere": "true"},
            "containers": [{"name": "idle", "image": "haneul.local/none:v1"}],
        },
    }

    async def created() -> Manifest | None:
        try:
            return await api.client.create(PODS, manifest)
        except KubeApiError as error:
            assert error.status == 403, error
            return None

    return await wait_for(created, what="the namespace to take pods", timeout=30, clock=SystemClock())


async def test_finalizer_keeps_a_deleted_object_until_it_is_taken_off(api: Api) -> None:
    manifest = api.config_map("one", {})
    manifest["metadata"]["finalizers"] = ["conformance.haneul.dev/hold"]
    await api.client.create(CONFIG_MAPS, manifest)
    assert await api.client.delete(CONFIG_MAPS, "one", api.namespace)
    held = await api.client.get(CONFIG_MAPS, "one", api.namespace)
    assert held is not None and held["metadata"]["deletionTimestamp"]
    await api.client.patch(CONFIG_MAPS, "one", {"metadata": {"finalizers": None}}, api.namespace)
    assert await api.client.get(CONFIG_MAPS, "one", api.namespace) is None


async def test_deleted_namespace_takes_its_contents_along(api: Api) -> None:
    await api.client.create(CONFIG_MAPS, api.config_map("one", {}))
    assert await api.client.delete(NAMESPACES, api.namespace)

    async def gone() -> bool:
        return await api.client.get(NAMESPACES, api.namespace) is None

    await wait_for(gone, what="the namespace to end", timeout=60, clock=SystemClock())
    assert await api.client.get(CONFIG_MAPS, "one", api.namespace) is None
    assert await api.client.list(CONFIG_MAPS, api.namespace) == []


async def test_health_is_answered_and_unknown_paths_are_not(api: Api) -> None:
    assert await api.client.raw_get("/readyz") == "ok"
    with pytest.raises(KubeApiError) as refusal:
        await api.client.raw_get("/no-such-path")
    assert refusal.value.status == 404


async def test_answers_are_copies(api: Api) -> None:
    created = await api.client.create(CONFIG_MAPS, api.config_map("one", {"a": "1"}))
    created["data"]["a"] = "changed by the caller"
    read = await api.client.get(CONFIG_MAPS, "one", api.namespace)
    assert read is not None and read["data"] == {"a": "1"}
