"""What the platform renders, held against the benchmark: what fails is what is known to, no more and no less."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from haneul.app.benchmark_checks import ClusterExaminer
from haneul.compliance.accepted import ACCEPTED
from haneul.compliance.adapters.memory_looks import MemoryLooks
from haneul.compliance.benchmark import findings, unexplained
from haneul.compliance.model import Finding, Result
from haneul.dkos import control_plane, tenant_objects
from haneul.dkos.adapters.sandbox_nodes import node_manifests
from haneul.dkos.authentication import IssuerTrust
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints, component_data, component_profiles, secret_manifest
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.dkos.model import Cluster, ClusterSpec, ClusterStatus, Network, NetworkPlugin, NodePool, NodeProviderName
from haneul.dkos.node_files import node_files
from haneul.dkos.ports import NodeAnnouncement
from haneul.dkos.rotation import Record
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    KubeApiError,
    KubeClient,
    Manifest,
    resource_of,
)
from haneul.kernel.kube_manifests import cluster_role, rule
from haneul.kernel.kube_memory import MemoryKubeClient

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ENDPOINTS = Endpoints(("10.193.0.20",), "10.193.0.21", "10.128.16.1", "192.0.2.10", 31234)
IMAGES = Images("etcd", "apiserver", "manager", "scheduler", "toolbox", "node", "cilium")
ISSUER = IssuerTrust("https://192.0.2.10:7443/oidc", "authority")
#: What fails whatever a cluster's network and nodes are, as long as people have certificates.
ALWAYS = {"1.2.11", "1.2.19", "1.3.7", "1.4.2", "3.1.1", "4.2.7"}


_MARK = {"kubernetes.io/bootstrapping": "rbac-defaults"}
#: Roles that Kubernetes brings, as far as this test is about them.
BUILT_IN = (
    cluster_role("cluster-admin", [rule("*", ["*"], ["*"])], _MARK),
    cluster_role("edit", [rule("", ["secrets", "pods", "serviceaccounts/token"], ["get", "list", "create"])], _MARK),
    cluster_role("view", [rule("", ["pods"], ["get", "list"])], _MARK),
    cluster_role("system:kubelet-api-admin", [rule("", ["nodes/proxy"], ["*"])], _MARK),
)


class Tenant(MemoryKubeClient):
    """A tenant's API with kubelets behind it."""

    def __init__(self, kubelets: Mapping[str, Manifest]) -> None:
        super().__init__()
        self._kubelets = kubelets

    async def raw_get(self, path: str) -> str:
        parts = path.split("/")
        if parts[-1] != "configz":
            return await super().raw_get(path)
        return json.dumps({"kubeletconfig": self._kubelets[parts[4]]})


def a_cluster(plugin: NetworkPlugin, provider: NodeProviderName = NodeProviderName.SANDBOX) -> Cluster:
    machines = ("rack1",) if provider is NodeProviderName.SSH else ()
    pool = NodePool(name="default", count=1, provider=provider, machines=machines)
    network = Network(plugin=plugin, pods="10.0.64.0/18", services="10.128.16.0/20")
    return Cluster(
        project="shop",
        name="web",
        uid="uid-of-web",
        generation=1,
        created=NOW,
        look_requested="now with examination",
        spec=ClusterSpec(network=network, node_pools=(pool,)),
        status=ClusterStatus(milestones={"ready": 9.0}),
    )


def announcement(cluster: Cluster) -> NodeAnnouncement:
    pool = cluster.spec.node_pools[0]
    name = pool.node_names[0]
    files = node_files(cluster, pool, name, pause_image="pause")
    return NodeAnnouncement(name, pool, files, b"kubeconfig", b"authority", cluster.spec.version)


async def put(client: MemoryKubeClient, manifest: Manifest) -> None:
    await client.apply(resource_of(manifest), manifest)


async def running(client: MemoryKubeClient, program: Manifest) -> None:
    """Let a program's pod run."""
    template = program["spec"]["template"]
    metadata = {**template["metadata"], "name": f"{program['metadata']['name']}-0"}
    metadata["namespace"] = program["metadata"]["namespace"]
    await client.apply(PODS, {"metadata": metadata, "spec": template["spec"]})
    await client.patch(
        PODS, metadata["name"], {"status": {"phase": "Running"}}, metadata["namespace"], subresource="status"
    )


async def management_of(cluster: Cluster, trust: IssuerTrust | None = None) -> MemoryKubeClient:
    client = MemoryKubeClient()
    for manifest in (*control_plane.namespaces(cluster), *control_plane.configurations(cluster, trust).values()):
        await put(client, manifest)
    keyring = Keyring(new_authorities("shop/web", NOW), record=Record(revision=0))
    profiles = component_profiles(ENDPOINTS, cilium=False)["kube-apiserver"]
    data = component_data("kube-apiserver", profiles, keyring, ENDPOINTS, NOW)
    await client.apply(SECRETS, secret_manifest(cluster.masters_namespace, "kube-apiserver", data, {}))
    digests = dict.fromkeys(("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"), "digest")
    for program in (
        control_plane.etcd(cluster, ENDPOINTS, IMAGES, digests),
        control_plane.apiserver(cluster, ENDPOINTS, IMAGES, digests),
        control_plane.controller_manager(cluster, IMAGES, digests),
        control_plane.scheduler(cluster, IMAGES, digests),
    ):
        await running(client, program)
    if not cluster.spec.outside:
        await running(client, node_manifests(cluster, announcement(cluster), IMAGES)[2])
    return client


async def tenant_of(cluster: Cluster) -> Tenant:
    node = announcement(cluster)
    # What a kubelet has in effect is what it was told, and its defaults.
    configuration = {"eventRecordQPS": 50, "streamingConnectionIdleTimeout": "4h0m0s", "makeIPTablesUtilChains": True}
    configuration |= yaml.safe_load(node.files["kubelet.yaml"])
    client = Tenant({node.name: configuration})
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        await client.apply(NAMESPACES, {"metadata": {"name": name}})
    for manifest in tenant_objects.base_objects(cluster, ENDPOINTS):
        await put(client, manifest)
    for role in BUILT_IN:
        await put(client, role)
    await client.apply(SERVICES, {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {}})
    await put(client, tenant_objects.bootstrap_token("abcdef.0123456789abcdef", node.name, NOW))
    await client.apply(NODES, {"metadata": {"name": node.name}})
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(NODES, node.name, {"status": ready}, subresource="status")
    return client


async def examined(cluster: Cluster, management: KubeClient, tenant: KubeClient | None) -> dict[str, Finding]:
    looks = MemoryLooks()
    node = announcement(cluster)
    await ClusterExaminer(management, looks, clock=VirtualClock(NOW)).examine(cluster, {node.name: node}, tenant)
    look = await looks.read(cluster.masters_namespace)
    assert look is not None
    assert (look.asked, look.examined) == (cluster.look_requested, NOW)
    return {finding.id: finding for finding in findings("tenant", look.outcomes)}


def failing(found: Mapping[str, Finding]) -> set[str]:
    return {number for number, finding in found.items() if finding.result is Result.FAIL}


@pytest.mark.parametrize(
    ("plugin", "provider", "more"),
    [
        (NetworkPlugin.NATIVE, NodeProviderName.SANDBOX, {"5.3.1"}),
        (NetworkPlugin.CILIUM, NodeProviderName.SANDBOX, set()),
        (NetworkPlugin.NATIVE, NodeProviderName.SSH, {"4.2.6", "5.3.1"}),
    ],
)
async def test_a_cluster_fails_what_is_known_and_nothing_else(
    plugin: NetworkPlugin, provider: NodeProviderName, more: set[str]
) -> None:
    cluster = a_cluster(plugin, provider)
    found = await examined(cluster, await management_of(cluster), await tenant_of(cluster))
    assert failing(found) == ALWAYS | more
    assert unexplained(found.values()) == []
    # Everything could be seen.
    assert [one.id for one in found.values() if "could not be seen" in one.seen] == []
    assert found["1.2.1"].result is Result.PASS and "/livez" in found["1.2.1"].seen
    assert found["2.7"].result is Result.PASS
    assert found["5.1.10"].result is Result.PASS
    assert found["5.1.10"].seen == "besides Kubernetes itself only haneul:kubelet-clients, haneul:owners"
    assert "haneul:developers" in found["5.1.2"].seen and "haneul:viewers" not in found["5.1.2"].seen


async def test_every_reason_of_a_tenant_s_cluster_is_still_one() -> None:
    known = {number for kind, number in ACCEPTED if kind == "tenant"}
    assert known == ALWAYS | {"4.2.6", "5.3.1"}


async def test_a_cluster_that_trusts_the_issuer_needs_no_certificates_of_people() -> None:
    cluster = a_cluster(NetworkPlugin.CILIUM)
    found = await examined(cluster, await management_of(cluster, ISSUER), await tenant_of(cluster))
    assert failing(found) == ALWAYS - {"3.1.1"}
    assert ISSUER.url in found["3.1.1"].seen


async def test_of_a_silent_cluster_the_masters_are_checked_and_the_rest_is_for_a_person() -> None:
    cluster = a_cluster(NetworkPlugin.NATIVE)
    found = await examined(cluster, await management_of(cluster), None)
    assert found["1.2.15"].result is Result.PASS
    assert found["5.1.1"].result is Result.WARN
    assert found["5.1.1"].seen.endswith("the cluster's API server does not answer")
    assert unexplained(found.values()) == []


async def test_a_kubelet_that_does_not_answer_is_told() -> None:
    class Deaf(Tenant):
        async def raw_get(self, path: str) -> str:
            raise UnavailableError("the kubelet does not answer")

    cluster = a_cluster(NetworkPlugin.CILIUM)
    well = await tenant_of(cluster)
    deaf = Deaf({})
    deaf.__dict__.update({name: value for name, value in well.__dict__.items() if name != "_kubelets"})
    found = await examined(cluster, await management_of(cluster), deaf)
    assert found["4.2.1"].result is Result.WARN
    assert "the kubelet does not answer" in found["4.2.1"].seen
    assert found["5.1.1"].result is Result.PASS


async def test_pods_that_end_are_not_counted() -> None:
    cluster = a_cluster(NetworkPlugin.CILIUM)
    management = await management_of(cluster)
    (old,) = [
        pod
        for pod in await management.list(PODS, cluster.masters_namespace)
        if pod["metadata"]["name"] == "kube-apiserver-0"
    ]
    older = {"metadata": {**old["metadata"], "name": "kube-apiserver-old"}, "spec": {**old["spec"]}}
    older["spec"]["containers"] = [{**old["spec"]["containers"][0], "args": ["--profiling=true"]}]
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        older["metadata"].pop(name, None)
    await management.apply(PODS, older)
    status = {"status": {"phase": "Succeeded"}}
    await management.patch(PODS, "kube-apiserver-old", status, cluster.masters_namespace, subresource="status")
    found = await examined(cluster, management, await tenant_of(cluster))
    assert found["1.2.15"].result is Result.PASS


async def test_no_secret_is_in_what_is_kept() -> None:
    cluster = a_cluster(NetworkPlugin.NATIVE)
    management, tenant = await management_of(cluster), await tenant_of(cluster)
    kept = await management.get(SECRETS, "kube-apiserver", cluster.masters_namespace)
    assert kept is not None
    found = await examined(cluster, management, tenant)
    text = json.dumps([finding.model_dump(mode="json") for finding in found.values()])
    assert not any(value in text for value in kept["data"].values())
    assert "0123456789abcdef" not in text


async def test_what_cannot_be_kept_holds_nothing_up() -> None:
    class Full(MemoryLooks):
        async def write(self, *_: Any) -> None:
            raise KubeApiError("no room", status=500, reason="InternalError")

    cluster = a_cluster(NetworkPlugin.CILIUM)
    looks = Full()
    examiner = ClusterExaminer(await management_of(cluster), looks, clock=VirtualClock(NOW))
    await examiner.examine(cluster, {}, await tenant_of(cluster))
    assert await looks.read(cluster.masters_namespace) is None
