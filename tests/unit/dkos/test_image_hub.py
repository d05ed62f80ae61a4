"""The platform's image hub: what nodes, clusters and policies are told of it, and what it is told of pods."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import datetime

import pytest
import yaml

from haneul.dkos import isolation, tenant_objects
from haneul.dkos.cluster_record import ClusterRecord, Standing, record_of, secret_of
from haneul.dkos.cluster_records import ClusterRecords
from haneul.dkos.credentials import Endpoints, public_token_keys
from haneul.dkos.image_hub import ImageHub
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster, NodePool, NodeProviderName
from haneul.dkos.node_files import node_files
from haneul.dkos.readers import HUB, NAMES
from haneul.dkos.rotation import Record, Step
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import CILIUM_NETWORK_POLICIES, NAMESPACES, SECRETS
from haneul.kernel.kube_memory import MemoryKubeClient

Golden = Callable[[str, object], None]
IMAGES = ImageHub("hub.k8s.example.com", "192.0.2.10", 5443, "-----BEGIN CERTIFICATE-----\n")


@pytest.fixture
def clock(now: datetime) -> VirtualClock:
    return VirtualClock(now)


@pytest.fixture
def pool() -> NodePool:
    return NodePool(name="default")


def test_a_node_reaches_the_hub_by_its_address_whichever_name_an_image_has(native: Cluster, pool: NodePool) -> None:
    before = node_files(native, pool, "default-1", pause_image="pause:1")
    files = node_files(native, pool, "default-1", pause_image="pause:1", hub=IMAGES)
    assert files["node.env"] == before["node.env"] + 'HUB_HOSTS="hub.k8s.example.com hub.k8s.example.com:5443"\n'
    hosts = tomllib.loads(files["hub-hosts.toml"])
    # By no other way: whoever else has its name one day gets no token.
    assert hosts == {
        "server": "https://192.0.2.10:5443",
        "capabilities": ["pull", "resolve"],
        "ca": "/etc/haneul/node/hub-ca.crt",
    }
    assert files["hub-ca.crt"] == IMAGES.authority
    runtime = tomllib.loads(files["containerd.toml"])["plugins"]["io.containerd.cri.v1.images"]
    assert runtime.pop("registry") == {"config_path": "/etc/containerd/certs.d"}
    assert runtime == tomllib.loads(before["containerd.toml"])["plugins"]["io.containerd.cri.v1.images"]
    changed = {"node.env", "containerd.toml"}
    assert {name: text for name, text in files.items() if name in before.keys() - changed} == {
        name: text for name, text in before.items() if name not in changed
    }


def test_a_node_s_kubelet_gives_away_tokens_for_the_hub_s_images_alone(native: Cluster, pool: NodePool) -> None:
    files = node_files(native, pool, "default-1", pause_image="pause:1", hub=IMAGES)
    said = yaml.safe_load(files["image-credentials.yaml"])
    (provider,) = said["providers"]
    assert said["apiVersion"] == "kubelet.config.k8s.io/v1"
    assert provider["matchImages"] == ["hub.k8s.example.com", "hub.k8s.example.com:5443"]
    assert provider["tokenAttributes"] == {
        "serviceAccountTokenAudience": "hub.k8s.example.com",
        "cacheType": "Token",
        "requireServiceAccount": True,
    }


@pytest.mark.parametrize(
    ("gates", "told"),
    [
        ({"KubeletServiceAccountTokenForCredentialProviders": False}, False),
        ({"AllBeta": False}, False),
        ({"AllBeta": False, "KubeletServiceAccountTokenForCredentialProviders": True}, True),
        ({"SomethingElse": False}, True),
    ],
)
def test_a_kubelet_that_does_without_such_tokens_is_told_of_none(
    native: Cluster, pool: NodePool, gates: dict[str, bool], told: bool
) -> None:
    settings = native.spec.settings.model_copy(update={"feature_gates": gates})
    cluster = native.model_copy(update={"spec": native.spec.model_copy(update={"settings": settings})})
    files = node_files(cluster, pool, "default-1", pause_image="pause:1", hub=IMAGES)
    assert ("image-credentials.yaml" in files) is told
    assert "hub-hosts.toml" in files


def test_machines_pull_from_the_hub_too(native: Cluster) -> None:
    pool = NodePool(name="big", provider=NodeProviderName.SSH, machines=("big",))
    files = node_files(native, pool, "big-1", pause_image="pause:1", hub=IMAGES)
    assert {"hub-ca.crt", "hub-hosts.toml", "image-credentials.yaml"} <= files.keys()


def test_nodes_may_ask_for_tokens_for_the_hub_and_for_nobody_else(native: Cluster, endpoints: Endpoints) -> None:
    before = tenant_objects.base_objects(native, endpoints, (HUB,))
    role, binding = tenant_objects.base_objects(native, endpoints, (HUB,), IMAGES)[len(before) :]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["hub.k8s.example.com"],
            "verbs": ["request-serviceaccounts-token-audience"],
        }
    ]
    assert [subject["name"] for subject in binding["subjects"]] == ["system:nodes"]


def test_who_reports_only_looks_at_pods(native: Cluster, endpoints: Endpoints) -> None:
    before = tenant_objects.base_objects(native, endpoints)
    role, _ = tenant_objects.base_objects(native, endpoints, (HUB,))[len(before) :]
    assert {(*rule["resources"], *rule["verbs"]) for rule in role["rules"]} == {("pods", "list"), ("namespaces", "get")}


def test_nodes_reach_the_hub_s_port_of_the_hosts_and_no_other(native: Cluster) -> None:
    before = isolation.network_policies(native)
    (policy,) = isolation.network_policies(native, hub=IMAGES)[len(before) :]
    assert policy["kind"] == CILIUM_NETWORK_POLICIES.kind
    assert policy["metadata"]["namespace"] == native.nodes_namespace
    assert policy["spec"] == {
        "endpointSelector": {},
        "egress": [
            {
                "toEntities": ["host", "remote-node"],
                "toPorts": [{"ports": [{"port": "5443", "protocol": "TCP"}]}],
            }
        ],
    }


async def test_records_say_by_which_keys_tokens_are_checked_also_while_these_are_replaced(
    clock: VirtualClock, native: Cluster, endpoints: Endpoints, now: datetime
) -> None:
    kube = MemoryKubeClient(clock=clock)
    for reader in (HUB, NAMES):
        await kube.apply(NAMESPACES, {"metadata": {"name": reader.name}})
    records = ClusterRecords(kube, (HUB, NAMES), clock=clock)

    async def kept() -> ClusterRecord:
        record = record_of(await kube.get(SECRETS, HUB.record_name(native.uid), HUB.name) or {})
        assert record is not None
        return record

    keyring = Keyring(new_authorities("shop/plain", now), record=Record(revision=0))
    await records.follow(native, MadeMasters(endpoints, keyring))
    first = await kept()
    assert first.token_keys == public_token_keys(keyring)
    assert b"PRIVATE" not in first.token_keys
    others = record_of(await kube.get(SECRETS, NAMES.record_name(native.uid), NAMES.name) or {})
    assert others is not None
    assert others.token_keys == b""
    # Before anything is signed by the new one it is there.
    spread = keyring.at(Step.SPREAD, cluster="shop/plain", requested=1, now=now)
    await records.follow(native, MadeMasters(endpoints, spread))
    assert (await kept()).token_keys == public_token_keys(spread)
    assert (await kept()).token_keys.count(b"BEGIN PUBLIC KEY") == len(spread.token_keys)
    # Who sleeps or is deleted is still known by them.
    await records.rest(native)
    assert (await kept()).token_keys == public_token_keys(spread)
    await records.end(native)
    assert (await kept()).standing is Standing.DELETED


def test_a_record_with_keys_is_read_as_it_was_written() -> None:
    record = ClusterRecord("uid", "shop", "web", "", Standing.ASLEEP, token_keys=b"-----BEGIN PUBLIC KEY-----\n")
    assert record_of(secret_of(record, HUB)) == record
