"""What every log of events does: the behaviour suite of the port EventLog."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haneul.dkos.adapters.kube_events import READER, KubeEvents, event_manifest
from haneul.dkos.event_log import EventLog, MemoryEvents
from haneul.dkos.events import LONGEST_MESSAGE, EventType, Reason, event
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import EVENTS, NAMESPACES, ROLE_BINDINGS, KubeApiError, Manifest, Resource
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.kube_memory import MemoryKubeClient

KUBECONFIG = Path("/var/lib/haneul/admin.kubeconfig")
NOW = datetime(2026, 11, 24, 9, 0, 0, 123456, tzinfo=UTC)
READY = event(Reason.CLUSTER_READY, "the cluster is ready for the first time")
SILENT = event(Reason.API_SILENT, "waiting for the API server to answer")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_cluster(project: str = "shop", uid: str = "uid-1", name: str = "web") -> Cluster:
    return Cluster(project=project, name=name, uid=uid, generation=1, created=NOW, spec=ClusterSpec())


class Logs:
    """Two logs of the same events, as two processes have them, and a cluster."""

    def __init__(self, one: EventLog, two: EventLog, project: str) -> None:
        self.one = one
        self.two = two
        self.cluster = a_cluster(project, uid=secrets.token_hex(8))


async def _namespace(client: MemoryKubeClient | HttpKubeClient, project: str) -> None:
    metadata = {"name": f"project-{project}"}
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


@pytest.fixture(params=["memory", "kube", pytest.param("http", marks=pytest.mark.e2e)])
async def logs(request: pytest.FixtureRequest) -> AsyncIterator[Logs]:
    if request.param == "memory":
        log = MemoryEvents()
        yield Logs(log, log, "shop")
    elif request.param == "kube":
        client = MemoryKubeClient()
        await _namespace(client, "shop")
        yield Logs(KubeEvents(client), KubeEvents(client), "shop")
    elif not KUBECONFIG.exists():
        pytest.skip("there is no platform")
    else:
        project = f"test-{secrets.token_hex(4)}"
        async with HttpKubeClient(access_from_kubeconfig(KUBECONFIG)) as real:
            await _namespace(real, project)
            try:
                yield Logs(KubeEvents(real), KubeEvents(real), project)
            finally:
                await real.delete(NAMESPACES, f"project-{project}")


async def test_nothing_is_known_of_a_cluster_to_which_nothing_happened(logs: Logs) -> None:
    assert list(await logs.one.of(logs.cluster)) == []


async def test_what_was_recorded_is_found_word_for_word(logs: Logs) -> None:
    await logs.one.record(logs.cluster, SILENT, times=1, last=NOW)
    (found,) = await logs.two.of(logs.cluster)
    assert (found.type, found.reason, found.message) == (EventType.WARNING, "ApiSilent", SILENT.message)
    assert (found.count, found.first_seen, found.last_seen) == (1, NOW, NOW)


async def test_the_same_again_is_counted_also_by_another_process(logs: Logs) -> None:
    await logs.one.record(logs.cluster, SILENT, times=1, last=NOW)
    await logs.one.record(logs.cluster, SILENT, times=1, last=after(1))
    await logs.two.record(logs.cluster, SILENT, times=3, last=after(2.5))
    (found,) = await logs.one.of(logs.cluster)
    assert (found.count, found.first_seen, found.last_seen) == (5, NOW, after(2.5))
    assert found.name


async def test_what_happened_often_before_it_was_written_is_counted(logs: Logs) -> None:
    await logs.one.record(logs.cluster, SILENT, times=7, last=NOW)
    assert [found.count for found in await logs.one.of(logs.cluster)] == [7]


async def test_newest_come_last(logs: Logs) -> None:
    await logs.one.record(logs.cluster, SILENT, times=1, last=NOW)
    await logs.one.record(logs.cluster, READY, times=1, last=after(1))
    assert [found.reason for found in await logs.one.of(logs.cluster)] == ["ApiSilent", "ClusterReady"]
    await logs.one.record(logs.cluster, SILENT, times=1, last=after(2))
    assert [found.reason for found in await logs.one.of(logs.cluster)] == ["ClusterReady", "ApiSilent"]


async def test_other_clusters_and_earlier_ones_of_the_name_are_kept_apart(logs: Logs) -> None:
    project = logs.cluster.project
    await logs.one.record(logs.cluster, SILENT, times=1, last=NOW)
    await logs.one.record(a_cluster(project, uid="uid-of-another", name="other"), READY, times=1, last=NOW)
    assert [found.reason for found in await logs.one.of(logs.cluster)] == ["ApiSilent"]
    assert list(await logs.one.of(a_cluster(project, uid="uid-of-the-next", name=logs.cluster.name))) == []


async def test_the_longest_message_is_kept(logs: Logs) -> None:
    long = event(Reason.NODE_CERTIFICATE_REFUSED, "ü" * 2000)
    assert len(long.message.encode()) <= LONGEST_MESSAGE
    await logs.one.record(logs.cluster, long, times=1, last=NOW)
    assert [found.message for found in await logs.one.of(logs.cluster)] == [long.message]


# What follows is about events as Kubernetes keeps them.


async def test_an_event_is_about_the_cluster_and_beside_it() -> None:
    manifest = event_manifest(a_cluster(), SILENT, times=1, last=NOW)
    assert manifest["regarding"] == {
        "apiVersion": "dkos.haneul.dev/v1alpha1",
        "kind": "Cluster",
        "name": "web",
        "namespace": "project-shop",
        "uid": "uid-1",
    }
    assert manifest["metadata"]["namespace"] == "project-shop"
    assert manifest["eventTime"] == "2026-11-24T09:00:00.123456Z"
    # A series is of two at least.
    assert "series" not in manifest


async def test_the_api_may_read_events_from_the_first_one_on() -> None:
    client = MemoryKubeClient()
    await _namespace(client, "shop")
    await KubeEvents(client).record(a_cluster(), READY, times=1, last=NOW)
    (binding,) = await client.list(ROLE_BINDINGS)
    assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) == ("project-shop", READER)
    assert [subject["name"] for subject in binding["subjects"]] == ["haneul-api"]


class Hostile(MemoryKubeClient):
    """Refuses what it is told to, and may forget an event between two calls."""

    refuses: tuple[Resource, ...] = ()
    reason = "Forbidden"
    forgets = 0

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "") -> list[Manifest]:
        self._refuse(resource)
        return await super().list(resource, namespace, labels=labels)

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        self._refuse(resource)
        return await super().apply(resource, manifest, subresource=subresource)

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        if self.forgets:
            self.forgets -= 1
            await self.delete(resource, name, namespace)
        return await super().patch(resource, name, patch, namespace, subresource=subresource)

    def _refuse(self, resource: Resource) -> None:
        if resource in self.refuses:
            raise KubeApiError("no", status=403, reason=self.reason)


async def test_an_event_that_is_forgotten_while_it_is_counted_is_written_anew() -> None:
    client = Hostile()
    await _namespace(client, "shop")
    log = KubeEvents(client)
    await log.record(a_cluster(), SILENT, times=4, last=NOW)
    client.forgets = 1
    await log.record(a_cluster(), SILENT, times=1, last=after(5))
    (found,) = await log.of(a_cluster())
    assert (found.count, found.first_seen) == (1, after(5))


async def test_a_right_that_cannot_be_given_keeps_no_event_from_being_written() -> None:
    client = Hostile()
    await _namespace(client, "shop")
    client.refuses = (ROLE_BINDINGS,)
    log = KubeEvents(client)
    await log.record(a_cluster(), READY, times=1, last=NOW)
    client.refuses = ()
    assert len(await log.of(a_cluster())) == 1
    await log.record(a_cluster(), SILENT, times=1, last=NOW)
    assert len(await client.list(ROLE_BINDINGS)) == 1


async def test_who_may_not_read_yet_reads_nothing_and_other_errors_are_told() -> None:
    client = Hostile()
    client.refuses = (EVENTS,)
    log = KubeEvents(client)
    assert list(await log.of(a_cluster())) == []
    client.reason = "InternalError"
    with pytest.raises(KubeApiError):
        await log.of(a_cluster())


async def test_in_memory_the_oldest_go_first() -> None:
    log = MemoryEvents()
    for number in range(1100):
        await log.record(
            a_cluster(), event(Reason.NODE_READY, f"node a-{number} is ready"), times=1, last=after(number)
        )
    found = await log.of(a_cluster())
    assert (len(found), found[-1].message) == (1000, "node a-1099 is ready")
    assert len({entry.name for entry in found}) == 1000


async def test_recording_at_once_loses_no_object() -> None:
    client = MemoryKubeClient()
    await _namespace(client, "shop")
    await asyncio.gather(*(KubeEvents(client).record(a_cluster(), READY, times=1, last=NOW) for _ in range(5)))
    assert len(await KubeEvents(client).of(a_cluster())) == 1


async def test_where_nobody_answers_the_error_is_told() -> None:
    class Silent(MemoryKubeClient):
        async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
            raise UnavailableError("nobody answers")

    with pytest.raises(UnavailableError):
        await KubeEvents(Silent()).record(a_cluster(), READY, times=1, last=NOW)
