"""Clusters on a real platform: what users do, what breaks, and what must then go on."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from haneul.app.demo import deploy_workload, kill_masters
from haneul.app.installation import Installation
from haneul.chaos.ledger import Ledger
from haneul.chaos.prober import Prober, any_of, at, reads
from haneul.cli.context import Contexts
from haneul.cli.waiting import is_settled
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import (
    CERTIFICATE_REQUESTS,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SECRETS,
    SERVICES,
)
from haneul.kernel.pki import new_private_key
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, cluster, connect, happened, remains_of, tenant, to_meet
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()


async def deploy(name: str) -> str:
    with Contexts.default().client() as client:
        return await deploy_workload(client, name, CLOCK, project=PROJECT)


@pytest.mark.parametrize("network", ["shop", "lab"])
async def test_every_pod_reaches_every_pod_and_the_api(
    network: str, request: pytest.FixtureRequest, installation: Installation
) -> None:
    """Pod to pod across nodes, service to pod, pod to the cluster's own API: on both networks."""
    name = request.getfixturevalue(network)
    await deploy(name)
    async with tenant(name) as kube:
        pods, targets = await to_meet(kube)
    for pod in pods:
        for target in targets:
            status, output = await connect(installation, name, pod, target, seconds=3)
            assert status == 0, f"{pod} → {target}: {output}"


async def test_cilium_routes_natively_and_pods_know_what_a_tunnel_takes(lab: str, installation: Installation) -> None:
    """As the node's own agent says it, and as a pod's device has it: flannel's VXLAN takes 50 bytes."""
    await deploy(lab)
    kubeconfig = f"--kubeconfig={installation.settings.admin_kubeconfig}"
    namespace = f"nodes-{PROJECT}-{lab}"

    async def on_node(*command: str) -> str:
        kubectl_exec = [str(installation.store.program("kubectl")), kubeconfig, "-n", namespace, "exec", "default-0-0"]
        return (await run([*kubectl_exec, "--", *command], timeout=60)).stdout

    status = json.loads(await on_node("/opt/haneul/cilium/usr/bin/cilium-dbg", "status", "--output=json"))
    assert status["routing"]["inter-host-routing-mode"] == "Native"
    mtus = {}
    for path in (await on_node("sh", "-c", "echo /sys/class/net/*")).split():
        mtus[path.rsplit("/", 1)[1]] = int(await on_node("cat", f"{path}/mtu"))
    pods = {name: mtu for name, mtu in mtus.items() if name.startswith("lxc")}
    assert pods and set(pods.values()) == {mtus["flannel.1"]} == {mtus["eth0"] - 50}


async def test_a_tenant_reaches_no_other_and_not_the_platform(shop: str, lab: str, installation: Installation) -> None:
    await deploy(shop)
    async with installation.lifecycle.client() as management, tenant(shop) as kube:
        pod = next(p for p in await kube.list(PODS, "default") if p["metadata"]["labels"].get("app") == "web")
        masters = await management.list(PODS, f"cluster-{PROJECT}-{lab}")
        nodes = await management.list(PODS, f"nodes-{PROJECT}-{lab}")
        etcd = await management.get(SERVICES, "etcd-0", f"cluster-{PROJECT}-{lab}")
        own_etcd = await management.get(SERVICES, "etcd-0", f"cluster-{PROJECT}-{shop}")
    assert etcd is not None and own_etcd is not None
    forbidden = [f"{p['status']['podIP']}:2379" for p in masters if p["metadata"]["name"].startswith("etcd")]
    forbidden += [f"{p['status']['podIP']}:10250" for p in nodes]
    forbidden += [f"{etcd['spec']['clusterIP']}:2379", f"{own_etcd['spec']['clusterIP']}:2379"]
    ports = (6443, 7443, installation.settings.zones_api_port)
    forbidden += [f"{installation.settings.address}:{port}" for port in ports]
    for target in forbidden:
        status, output = await connect(installation, shop, pod["metadata"]["name"], target, seconds=2)
        assert status != 0, f"{target} answers a tenant's pod: {output}"


async def test_killed_masters_touch_neither_their_workload_nor_their_neighbour(
    shop: str, lab: str, installation: Installation
) -> None:
    """The workloads of both and the neighbour's API are asked all the while; each failure counts."""
    urls = {name: f"http://{await deploy(name)}/hostname" for name in (shop, lab)}
    async with tenant(lab) as kube, tenant(shop) as victim, aiohttp.ClientSession() as session:
        async with Prober(clock=CLOCK) as prober:
            ledgers = [prober.ask(name, any_of(session, at(url))) for name, url in urls.items()]
            ledgers.append(prober.ask("the neighbour's API", reads(kube)))
            assert await kill_masters(installation, PROJECT, shop) >= 4

            async def down() -> bool:
                try:
                    await victim.raw_get("/readyz")
                except HaneulError:
                    return True
                return False

            async def back() -> bool:
                return not await down()

            await wait_for(down, what="the killed API to go", timeout=10, clock=CLOCK, interval=0.02)
            await wait_for(back, what="the masters to be back", timeout=90, clock=CLOCK)
        assert len(await victim.list(NODES)) == 2
    for ledger in ledgers:
        assert ledger.tally().asked > 20
        assert ledger.tally().failed == 0, ledger


async def test_scaling_adds_and_removes_nodes(shop: str) -> None:
    haneul("cluster", "scale", shop, "--nodes", "3", "-p", PROJECT)
    async with tenant(shop) as kube:
        assert {node["metadata"]["name"] for node in await kube.list(NODES)} == {f"default-{n}" for n in range(3)}
        haneul("cluster", "scale", shop, "--nodes", "2", "-p", PROJECT)

        async def two() -> bool:
            return {node["metadata"]["name"] for node in await kube.list(NODES)} == {"default-0", "default-1"}

        await wait_for(two, what="the third node to be gone", timeout=60, clock=CLOCK)


async def test_a_node_that_dies_is_replaced_and_joins_again(shop: str, installation: Installation) -> None:
    namespace = f"nodes-{PROJECT}-{shop}"
    async with installation.lifecycle.client() as management:
        before = await management.get(PODS, "default-1-0", namespace)
        assert before is not None
        await management.delete(PODS, "default-1-0", namespace, grace=0)

        async def joined_again() -> bool:
            pod = await management.get(PODS, "default-1-0", namespace)
            if pod is None or pod["metadata"]["uid"] == before["metadata"]["uid"]:
                return False
            nodes = {node["name"]: node for node in cluster(shop)["status"]["nodes"]}
            async with tenant(shop) as kube:
                node = await kube.get(NODES, "default-1")
            addresses = [entry["address"] for entry in (node or {}).get("status", {}).get("addresses", [])]
            return bool(nodes["default-1"]["ready"]) and pod["status"].get("podIP") in addresses

        await wait_for(joined_again, what="the new machine to join", timeout=120, clock=CLOCK, interval=0.5)
    for reason in ("NodeNotReady", "NodeReplaced", "NodeReady"):
        told = happened(shop, reason, "node default-1 ")
        await wait_for(told, what=f"the event {reason}", timeout=30, clock=CLOCK, interval=0.5)


async def test_a_changed_setting_replaces_nodes_one_by_one_and_the_workload_answers(
    shop: str, installation: Installation
) -> None:
    """Three replicas on two nodes; asked at whatever addresses the nodes have, because those change with them."""
    address = await deploy(shop)
    namespace, port = f"nodes-{PROJECT}-{shop}", address.rsplit(":", 1)[1]
    ledger, stop, most_away = Ledger(shop), asyncio.Event(), 0

    async def ask_all() -> None:
        nonlocal most_away
        timeout = aiohttp.ClientTimeout(total=1)
        async with installation.lifecycle.client() as management, aiohttp.ClientSession(timeout=timeout) as session:
            while not stop.is_set():
                pods = await management.list(PODS, namespace)
                running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
                most_away = max(most_away, 2 - len(running))
                urls = [f"http://{pod['status']['podIP']}:{port}/hostname" for pod in pods if "podIP" in pod["status"]]
                answers = await asyncio.gather(*(session.get(url) for url in urls), return_exceptions=True)
                answered = [answer for answer in answers if not isinstance(answer, BaseException)]
                ledger.note(time.monotonic(), good=any(answer.status == 200 for answer in answered))
                for answer in answered:
                    answer.release()
                await asyncio.sleep(0.1)

    async with tenant(shop) as kube, installation.lifecycle.client() as management:
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        }
        await kube.apply(POD_DISRUPTION_BUDGETS, budget)
        before = {pod["metadata"]["uid"] for pod in await management.list(PODS, namespace)}
        probing = asyncio.create_task(ask_all())
        with Contexts.default().client() as client:
            change = {"settings": {"maxPodsPerNode": 55}}
            await asyncio.to_thread(client.patch, f"/projects/{PROJECT}/clusters/{shop}", change)

        async def changed() -> bool:
            nodes = await kube.list(NODES)
            return (
                [node["status"]["capacity"]["pods"] for node in nodes] == ["55", "55"]
                and is_settled(await asyncio.to_thread(cluster, shop))
                and not any(node["spec"].get("unschedulable") for node in nodes)
            )

        try:
            await wait_for(changed, what="both nodes to be changed", timeout=240, clock=CLOCK, interval=0.5)
        finally:
            stop.set()
            await probing
            await kube.delete(POD_DISRUPTION_BUDGETS, "web", "default")
        assert before.isdisjoint({pod["metadata"]["uid"] for pod in await management.list(PODS, namespace)})
    assert most_away <= 1
    assert ledger.tally().asked > 20
    assert ledger.tally().failed == 0, ledger


async def test_a_stranger_gets_no_node_certificate(shop: str) -> None:
    """Even an owner of the cluster cannot make a node that no pool announced."""
    key = new_private_key()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, "system:node:stranger"),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    manifest = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "stranger"},
        "spec": {
            "request": base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }
    async with tenant(shop) as kube:
        await kube.create(CERTIFICATE_REQUESTS, manifest)

        async def denied() -> bool:
            seen = await kube.get(CERTIFICATE_REQUESTS, "stranger") or {}
            assert not seen.get("status", {}).get("certificate")
            return any(entry["type"] == "Denied" for entry in seen.get("status", {}).get("conditions", []))

        await wait_for(denied, what="the request to be denied", timeout=30, clock=CLOCK)
        await kube.delete(CERTIFICATE_REQUESTS, "stranger")
    refused = happened(shop, "NodeCertificateRefused", "announced a node named stranger")
    await wait_for(refused, what="the event of the refusal", timeout=30, clock=CLOCK, interval=0.5)


async def test_a_creation_and_a_deletion_are_told(project: str, installation: Installation) -> None:
    """To the user through the platform's API, and to the host's administrator by kubectl."""
    haneul("cluster", "create", "told", "--memory", "1024", "-p", project)
    reasons = ("SpecAccepted", "MastersReady", "ApiAnswers", "NodeCertificateSigned", "NodeReady", "ClusterReady")
    for reason in reasons:
        await wait_for(happened("told", reason), what=f"the event {reason}", timeout=30, clock=CLOCK, interval=0.5)
    assert "ClusterReady" in haneul("cluster", "get", "told", "-p", project).stdout
    described = await run(
        [
            str(installation.store.program("kubectl")),
            f"--kubeconfig={installation.settings.admin_kubeconfig}",
            f"--namespace=project-{project}",
            "describe",
            "clusters.dkos.haneul.dev",
            "told",
        ],
        timeout=30,
    )
    for reason in reasons:
        assert reason in described.stdout
    haneul("cluster", "delete", "told", "--yes", "--no-wait", "-p", project)
    await wait_for(happened("told", "Deleting"), what="the event Deleting", timeout=30, clock=CLOCK, interval=0.1)
    haneul("cluster", "delete", "told", "--yes", "-p", project, check=False)


async def test_secrets_are_encrypted_where_they_lie(shop: str, installation: Installation) -> None:
    marker = "a-marker-that-stands-in-no-other-secret"
    async with tenant(shop) as kube:
        metadata = {"name": "marked", "namespace": "default"}
        data = {"text": base64.b64encode(marker.encode()).decode()}
        await kube.apply(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    uid = cluster(shop)["uid"]
    files = [path for path in (installation.settings.clusters / uid).rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert marker.encode() not in path.read_bytes(), path


async def test_secrets_of_the_management_cluster_are_encrypted_where_they_lie(installation: Installation) -> None:
    marker = "another-marker-that-stands-in-no-other-secret"
    metadata = {"name": "marked", "namespace": "default"}
    data = {"text": base64.b64encode(marker.encode()).decode()}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
    async with installation.lifecycle.client() as management:
        await management.apply(SECRETS, manifest)
        try:
            files = [path for path in (installation.settings.state / "etcd").rglob("*") if path.is_file()]
            assert files
            for path in files:
                assert marker.encode() not in path.read_bytes(), path
        finally:
            await management.delete(SECRETS, "marked", "default")


@pytest.mark.parametrize("moment", ["at-once", "masters-there"])
def test_deleting_a_half_made_cluster_leaves_nothing(moment: str, project: str, installation: Installation) -> None:
    name = f"half-{moment}"[:20].rstrip("-")
    made = haneul("cluster", "create", name, "--no-wait", "-p", project, "-o", "json")
    if moment == "masters-there":

        async def there() -> bool:
            async with installation.lifecycle.client() as management:
                return bool(await management.list(PODS, f"cluster-{PROJECT}-{name}"))

        asyncio.run(wait_for(there, what="the first masters", timeout=30, clock=CLOCK, interval=0.05))
    haneul("cluster", "delete", name, "--yes", "-p", project)
    assert remains_of(json.loads(made.stdout)["uid"], name, installation) == []


@pytest.mark.parametrize("victim", ["haneul-operator", "haneul-api"])
def test_a_creation_survives_the_death_of_the_platforms_own_parts(
    victim: str, project: str, installation: Installation
) -> None:
    """The part is killed in the middle of a creation and of a deletion; both are finished by its successor."""
    name = victim.removeprefix("haneul-")

    async def kill() -> None:
        async with installation.lifecycle.client() as management:
            for pod in await management.list(PODS, "haneul-system", labels=f"app.kubernetes.io/name={victim}"):
                await management.delete(PODS, pod["metadata"]["name"], "haneul-system", grace=0)

    made = haneul("cluster", "create", name, "--no-wait", "--memory", "1024", "-p", project, "-o", "json")
    asyncio.run(kill())
    wait_for_api()
    haneul("cluster", "get", name, "--wait", "-p", project)
    haneul("cluster", "delete", name, "--yes", "--no-wait", "-p", project)
    asyncio.run(kill())
    wait_for_api()

    async def gone() -> bool:
        return name not in haneul("cluster", "list", "-p", project, "-o", "name").stdout.split()

    asyncio.run(wait_for(gone, what="the cluster to be gone", timeout=120, clock=CLOCK))
    assert remains_of(json.loads(made.stdout)["uid"], name, installation) == []


def wait_for_api() -> None:
    async def answers() -> bool:
        return haneul("whoami", check=False).returncode == 0

    asyncio.run(wait_for(answers, what="the platform's API to be back", timeout=90, clock=CLOCK))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Shop"], "no DNS label"),
        (["bad", "--nodes", "65"], "nodePools"),
        (["bad", "--pods", "10.192.0.0/18"], "overlaps"),
        (["bad", "--pods", "10.64.0.0/18", "--services", "10.64.0.0/20"], "overlaps"),
        (["bad", "--version", "1.2.3"], "not built here"),
        (["bad", "--set", "noSuchSetting=1"], "noSuchSetting"),
        (["bad", "--tunnel", "never"], "tunnel"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(arguments: list[str], words: str, project: str) -> None:
    before = haneul("cluster", "list", "-p", project, "-o", "name").stdout
    refused = haneul("cluster", "create", *arguments, "-p", project, check=False)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "hint:" in refused.stderr
    assert haneul("cluster", "list", "-p", project, "-o", "name").stdout == before
