"""What is rendered for a cluster, held by golden files, and what must be true of it whatever the files say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from haneul.dkos import control_plane, isolation, tenant_objects
from haneul.dkos.adapters.sandbox_nodes import node_manifests
from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL, Images, Placement
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import Cluster, LoadBalancing, NodePool, NodeProviderName, Tunnel
from haneul.dkos.node_files import node_files
from haneul.dkos.ports import NodeAnnouncement
from haneul.dkos.teardown import wipe_job
from haneul.kernel.kube import Manifest

Golden = Callable[[str, object], None]
ROLES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "cilium-operator")
DIGESTS = {role: f"digest-of-{role}" for role in ROLES}


def programs(cluster: Cluster, endpoints: Endpoints, images: Images) -> dict[str, Manifest]:
    found = {
        "etcd": control_plane.etcd(cluster, endpoints, images, DIGESTS),
        "kube-apiserver": control_plane.apiserver(cluster, endpoints, images, DIGESTS),
        "kube-controller-manager": control_plane.controller_manager(cluster, images, DIGESTS),
        "kube-scheduler": control_plane.scheduler(cluster, images, DIGESTS),
    }
    return found | {"cilium-operator": control_plane.cilium_operator(cluster, endpoints, images, DIGESTS)}


@pytest.fixture(scope="session")
def rendered(cilium: Cluster, endpoints: Endpoints, images: Images) -> dict[str, Manifest]:
    return programs(cilium, endpoints, images)


def containers(manifest: Manifest) -> Iterator[dict[str, Any]]:
    pod = manifest["spec"]["template"]["spec"]
    yield from pod["containers"]
    yield from pod.get("initContainers", [])


@pytest.mark.parametrize("role", ROLES)
def test_master_is_rendered_as_the_golden_file_says(role: str, rendered: dict[str, Manifest], golden: Golden) -> None:
    golden(f"{role}.yaml", rendered[role])


def test_surroundings_are_rendered_as_the_golden_file_says(native: Cluster, golden: Golden) -> None:
    objects = [
        *control_plane.namespaces(native),
        *control_plane.services(native),
        *control_plane.volume(native, Placement("host-1")),
        *control_plane.configurations(native).values(),
    ]
    golden("surroundings.yaml", objects)


def test_network_policies_are_rendered_as_the_golden_file_says(native: Cluster, golden: Golden) -> None:
    golden("network-policies.yaml", isolation.network_policies(native))


def test_wipe_job_is_rendered_as_the_golden_file_says(native: Cluster, golden: Golden) -> None:
    golden("wipe-job.yaml", wipe_job(native, "host-1", toolbox="haneul.local/toolbox:v1", data="/data/clusters"))


def test_tenant_objects_are_rendered_as_the_golden_files_say(
    native: Cluster, cilium: Cluster, endpoints: Endpoints, golden: Golden
) -> None:
    golden("tenant-objects.native.yaml", tenant_objects.base_objects(native, endpoints))
    golden("tenant-objects.cilium.yaml", tenant_objects.base_objects(cilium, endpoints))


def test_bootstrap_token_is_rendered_as_the_golden_file_says(native: Cluster, golden: Golden) -> None:
    golden("bootstrap-token.yaml", tenant_objects.bootstrap_token("abcdef.0123456789abcdef", "big-0", native.created))


def test_node_files_are_rendered_as_the_golden_files_say(native: Cluster, cilium: Cluster, golden: Golden) -> None:
    for cluster, name in ((native, "native"), (cilium, "cilium")):
        files = node_files(cluster, cluster.spec.node_pools[1], "big-0", pause_image="haneul.local/pause:v1")
        golden(f"node-files.{name}.yaml", files)


def network_of(cluster: Cluster, **changes: object) -> Cluster:
    network = cluster.spec.network.model_copy(update=changes)
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"network": network})})


def files_of(cluster: Cluster, pool: NodePool | None = None) -> dict[str, str]:
    return node_files(cluster, pool or cluster.spec.node_pools[0], "default-0", pause_image="haneul.local/pause:v1")


def services_of(files: dict[str, str]) -> set[str]:
    found = re.search(r'^NODE_SERVICES="(.*)"$', files["node.env"], re.MULTILINE)
    assert found is not None
    return set(found[1].split())


def test_cilium_routes_by_the_tables_of_flannel_unless_it_shall_wrap_everything_itself(cilium: Cluster) -> None:
    routed, wrapped = files_of(cilium), files_of(network_of(cilium, tunnel=Tunnel.ALWAYS))
    assert (routed["cilium.routing-mode"], wrapped["cilium.routing-mode"]) == ("native", "tunnel")
    assert routed["cilium.ipv4-native-routing-cidr"] == cilium.spec.network.pods
    assert wrapped["cilium.tunnel-protocol"] == "vxlan"
    assert "cilium.tunnel-protocol" not in routed and "cilium.ipv4-native-routing-cidr" not in wrapped
    # Two that keep routes would keep different ones.
    assert "flanneld" in services_of(routed) and "flanneld" not in services_of(wrapped)
    assert {"cilium-agent"} == {"cilium-agent", "kube-proxy"} & services_of(wrapped)


def test_native_keeps_its_routes_whatever_is_wrapped(native: Cluster) -> None:
    for tunnel in Tunnel:
        files = files_of(network_of(native, tunnel=tunnel))
        assert {"flanneld", "kube-proxy"} <= services_of(files)
        # A pod's link drops packets with addresses of pods on it, so sandbox nodes have no choice.
        assert "DirectRouting" not in json.loads(files["flannel.json"])["Backend"]


@pytest.mark.parametrize(("tunnel", "direct"), [(Tunnel.NEEDED, True), (Tunnel.ALWAYS, False), (None, False)])
def test_machines_reach_each_other_directly_where_they_may(
    native: Cluster, tunnel: Tunnel | None, direct: bool
) -> None:
    """Clusters from before there was the choice stay as they are."""
    pool = NodePool(name="metal", provider=NodeProviderName.SSH, machines=("rack1",), count=1)
    spec = native.spec.model_copy(update={"node_pools": (pool,)})
    metal = network_of(native.model_copy(update={"spec": spec}), tunnel=tunnel)
    backend = json.loads(files_of(metal, pool)["flannel.json"])["Backend"]
    assert backend == {"Type": "vxlan", "Port": 8472, "VNI": 1, **({"DirectRouting": True} if direct else {})}


def test_cilium_answers_clients_directly_only_if_told_to(cilium: Cluster) -> None:
    assert "cilium.bpf-lb-mode" not in files_of(cilium)
    assert files_of(network_of(cilium, load_balancing=LoadBalancing.DSR))["cilium.bpf-lb-mode"] == "dsr"


def test_sandbox_node_is_rendered_as_the_golden_files_say(
    native: Cluster, cilium: Cluster, images: Images, golden: Golden
) -> None:
    for cluster, name in ((native, "native"), (cilium, "cilium")):
        node = NodeAnnouncement(
            "big-0", cluster.spec.node_pools[1], {"node.env": "A=1\n"}, b"kubeconfig", b"ca", "1.37.2"
        )
        golden(f"sandbox-node.{name}.yaml", list(node_manifests(cluster, node, images)))


def test_every_master_has_limits_and_no_rights_on_its_host(rendered: dict[str, Manifest]) -> None:
    for role, manifest in rendered.items():
        pod = manifest["spec"]["template"]["spec"]
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0, role
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, role
        assert pod["automountServiceAccountToken"] is False, role
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys(), role
        assert not any("hostPath" in volume for volume in pod["volumes"]), role
        for container in containers(manifest):
            assert container["resources"]["limits"]["memory"], role
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, role
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, role
            assert own["allowPrivilegeEscalation"] is False, role
            assert own["capabilities"] == {"drop": ["ALL"]}, role
            assert "privileged" not in own and "runAsUser" not in own, role


def test_every_scratch_volume_of_a_master_is_bounded(rendered: dict[str, Manifest]) -> None:
    for manifest in rendered.values():
        for volume in manifest["spec"]["template"]["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


def test_the_go_memory_limit_lies_below_the_container_s(rendered: dict[str, Manifest]) -> None:
    for manifest in rendered.values():
        for container in containers(manifest):
            soft = next(entry["value"] for entry in container["env"] if entry["name"] == "GOMEMLIMIT")
            hard = container["resources"]["limits"]["memory"]
            assert int(soft.removesuffix("MiB")) < int(hard.removesuffix("Mi"))


def test_a_master_restarts_when_its_credentials_change(native: Cluster, endpoints: Endpoints, images: Images) -> None:
    for role, manifest in programs(native, endpoints, images).items():
        assert DIGESTS[role] in manifest["spec"]["template"]["metadata"]["annotations"].values()


def test_masters_name_files_for_every_secret_and_never_the_secret(rendered: dict[str, Manifest]) -> None:
    secret_arguments = re.compile(r"--[a-z-]*(key|kubeconfig|token|password|secret)[a-z-]*=(?P<value>.*)")
    for manifest in rendered.values():
        for container in containers(manifest):
            for argument in container["args"]:
                found = secret_arguments.fullmatch(argument)
                if (
                    found
                    and "extra-headers" not in argument
                    and "token-auth" not in argument
                    and "-expiration" not in argument
                ):
                    value = found["value"]
                    # The token of a new etcd cluster tells clusters apart; it opens nothing.
                    assert value.startswith("/etc/haneul/") or argument.startswith("--initial-cluster-token="), argument
            assert {entry["name"] for entry in container["env"]} <= {
                "GOGC",
                "GOMAXPROCS",
                "GOMEMLIMIT",
                "HOME",
                "CILIUM_K8S_NAMESPACE",
            }


def test_secret_files_are_readable_by_the_pod_only(rendered: dict[str, Manifest]) -> None:
    for manifest in rendered.values():
        for volume in manifest["spec"]["template"]["spec"]["volumes"]:
            assert "secret" not in volume or volume["secret"]["defaultMode"] & 0o007 == 0


def test_all_masters_objects_carry_their_cluster_s_mark(
    native: Cluster, endpoints: Endpoints, images: Images, rendered: dict[str, Manifest]
) -> None:
    objects = [
        *control_plane.namespaces(native),
        *control_plane.services(native),
        *control_plane.volume(native, Placement("host-1")),
        *control_plane.configurations(native).values(),
        *isolation.network_policies(native),
        *programs(native, endpoints, images).values(),
    ]
    for manifest in objects:
        assert manifest["metadata"]["labels"][CLUSTER_LABEL] == native.uid
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "haneul"


def test_selectors_of_two_clusters_never_meet(native: Cluster, cilium: Cluster) -> None:
    for ours, theirs in zip(control_plane.services(native), control_plane.services(cilium), strict=True):
        assert ours["spec"]["selector"] != theirs["spec"]["selector"]
    assert {native.masters_namespace, native.nodes_namespace}.isdisjoint(
        {cilium.masters_namespace, cilium.nodes_namespace}
    )


def test_two_clusters_data_lies_in_two_folders(
    native: Cluster, cilium: Cluster, endpoints: Endpoints, images: Images
) -> None:
    def folder(cluster: Cluster) -> str:
        manifest = control_plane.etcd(cluster, endpoints, images, DIGESTS)
        mounts = next(containers(manifest))["volumeMounts"]
        return str(next(mount["subPath"] for mount in mounts if mount["name"] == "data"))

    assert folder(native).startswith(f"{native.uid}/")
    assert folder(cilium).startswith(f"{cilium.uid}/")


def test_settings_reach_the_programs_that_they_are_for(native: Cluster, endpoints: Endpoints, images: Images) -> None:
    settings = native.spec.settings.model_copy(
        update={
            "node_monitor_grace_seconds": 20,
            "max_requests_in_flight": 301,
            "audit_log_days": 3,
            "node_status_update_seconds": 4,
            "max_pods_per_node": 17,
            "feature_gates": {"Beta": False, "Alpha": True},
        }
    )
    cluster = native.model_copy(update={"spec": native.spec.model_copy(update={"settings": settings})})
    rendered = programs(cluster, endpoints, images)

    def arguments(role: str) -> dict[str, str]:
        pairs = (argument.removeprefix("--").split("=", 1) for argument in next(containers(rendered[role]))["args"])
        return {pair[0]: pair[1] for pair in pairs}

    api = arguments("kube-apiserver")
    assert int(api["max-requests-inflight"]) + int(api["max-mutating-requests-inflight"]) == 301
    assert api["audit-log-maxage"] == "3"
    assert arguments("kube-controller-manager")["node-monitor-grace-period"] == "20s"
    for role in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        gates = arguments(role)["feature-gates"].split(",")
        assert [gate for gate in gates if not gate.startswith("Manifest")] == ["Alpha=true", "Beta=false"]
    kubelet = yaml.safe_load(node_files(cluster, NodePool(), "default-0", pause_image="p")["kubelet.yaml"])
    assert (kubelet["nodeStatusUpdateFrequency"], kubelet["maxPods"]) == ("4s", 17)
    assert kubelet["featureGates"] == {"Beta": False, "Alpha": True}


def test_masters_do_not_approve_or_sign_node_certificates(rendered: dict[str, Manifest]) -> None:
    arguments = next(containers(rendered["kube-controller-manager"]))["args"]
    controllers = next(entry for entry in arguments if entry.startswith("--controllers=")).partition("=")[2].split(",")
    assert "-certificatesigningrequest-approving-controller" in controllers
    assert "-certificatesigningrequest-signing-controller" in controllers


def test_only_health_checks_are_answered_to_anyone(native: Cluster) -> None:
    text = control_plane.configurations(native)["kube-apiserver"]["data"]["authentication.yaml"]
    conditions = yaml.safe_load(text)["anonymous"]["conditions"]
    assert {entry["path"] for entry in conditions} == {"/livez", "/readyz", "/healthz"}


def test_an_api_server_that_is_not_ready_is_published_until_the_cluster_was_ready_once(native: Cluster) -> None:
    def published(cluster: Cluster) -> bool:
        return bool(control_plane.services(cluster)[1]["spec"]["publishNotReadyAddresses"])

    served = native.status.model_copy(update={"milestones": {"api": 4.0}})
    ready = native.status.model_copy(update={"milestones": {"api": 4.0, "ready": 9.0}})
    assert published(native)
    # The kubelet may find the API server ready a moment later than its first client does.
    assert published(native.model_copy(update={"status": served}))
    assert not published(native.model_copy(update={"status": ready}))


def test_audit_writes_down_every_change_and_no_bodies(native: Cluster) -> None:
    rules = yaml.safe_load(control_plane.configurations(native)["kube-apiserver"]["data"]["audit.yaml"])["rules"]
    assert rules[-1] == {"level": "Metadata"}
    for rule in rules[:-1]:
        assert rule["level"] == "None"
        assert "nonResourceURLs" in rule or rule.get("verbs") == ["get", "list", "watch"] or rule["resources"]
    assert {rule["level"] for rule in rules} == {"None", "Metadata"}


# Network policies.


def policies(cluster: Cluster) -> dict[tuple[str, str], Manifest]:
    return {
        (entry["metadata"]["namespace"], entry["metadata"]["name"]): entry["spec"]
        for entry in isolation.network_policies(cluster)
    }


def test_every_namespace_refuses_by_default(native: Cluster) -> None:
    for namespace in (native.masters_namespace, native.nodes_namespace):
        for_all = [
            spec for (where, _), spec in policies(native).items() if where == namespace and spec["podSelector"] == {}
        ]
        assert for_all, namespace
        for spec in for_all:
            assert spec["policyTypes"] == ["Ingress", "Egress"]
    masters_default = policies(native)[(native.masters_namespace, "default")]
    assert (masters_default["ingress"], masters_default["egress"]) == ([], [])


BACKUP_WORKER = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "haneul-backup"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "haneul-backup"}},
}


def test_etcd_is_reached_by_its_own_api_server_and_members_only(native: Cluster) -> None:
    spec = policies(native)[(native.masters_namespace, "etcd")]
    own, by_gateway, members = spec["ingress"]
    # Of several members each is asked by its gateway, by the backup worker alone.
    assert by_gateway["from"] == [BACKUP_WORKER]
    assert [entry["port"] for entry in by_gateway["ports"]] == [2382]
    for rule, port, role in ((own, 2379, "kube-apiserver"), (members, 2380, "etcd")):
        assert [entry["port"] for entry in rule["ports"]] == [port]
        # Only the backup worker, which reaches every cluster's etcd, and no cluster's, comes besides.
        peer, *others = rule["from"]
        assert others == ([BACKUP_WORKER] if role == "kube-apiserver" else [])
        # A peer without a namespace selector lies in the policy's own namespace.
        assert set(peer) == {"podSelector"}
        assert peer["podSelector"]["matchLabels"][CLUSTER_LABEL] == native.uid
        assert peer["podSelector"]["matchLabels"][ROLE_LABEL] == role


def test_every_rule_but_the_api_server_s_names_its_peers(native: Cluster) -> None:
    for (_, name), spec in policies(native).items():
        for rule in spec["ingress"]:
            assert name == "kube-apiserver" or rule["from"]
        for rule in spec["egress"]:
            assert rule["to"]


def test_no_peer_is_another_cluster_s(native: Cluster) -> None:
    for spec in policies(native).values():
        for rule in [*spec["ingress"], *spec["egress"]]:
            for peer in rule.get("from", rule.get("to", [])):
                if "ipBlock" not in peer and peer != BACKUP_WORKER:
                    assert peer["podSelector"]["matchLabels"][CLUSTER_LABEL] == native.uid
                    namespaces = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": None}})
                    assert namespaces["matchLabels"]["kubernetes.io/metadata.name"] in (
                        None,
                        native.masters_namespace,
                        native.nodes_namespace,
                    )


def test_every_master_has_a_policy_of_its_own(native: Cluster) -> None:
    covered = {spec["podSelector"].get("matchLabels", {}).get(ROLE_LABEL) for spec in policies(native).values()}
    assert set(ROLES) <= covered


# The wipe job and node files.


def test_wipe_jobs_of_two_hosts_and_two_clusters_have_names_of_their_own(native: Cluster, cilium: Cluster) -> None:
    hosts = ["rack-with-a-long-name-1", "rack-with-a-long-name-2", "host.example.com", "h"]
    long = native.model_copy(update={"uid": "12345678-1234-1234-1234-123456789abc"})
    names = {
        wipe_job(cluster, host, toolbox="t", data="/d")["metadata"]["name"]
        for cluster in (long, cilium)
        for host in hosts
    }
    assert len(names) == 8
    assert all(len(name) <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)


def test_wipe_deletes_the_cluster_s_own_folder_only(native: Cluster) -> None:
    job = wipe_job(native, "host-1", toolbox="t", data="/d")
    (container,) = containers(job)
    assert container["args"] == ["rm", "-rf", f"/clusters/{native.uid}"]
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "host-1"}


def test_node_files_hold_no_secret_and_differ_by_node_only_in_its_name(native: Cluster) -> None:
    pool = native.spec.node_pools[0]
    one = node_files(native, pool, "default-0", pause_image="p")
    two = node_files(native, pool, "default-1", pause_image="p")
    assert {name for name in one if one[name] != two[name]} == {"node.env"}
    assert one["node.env"].replace("default-0", "default-1") == two["node.env"]
    assert not any("PRIVATE KEY" in text or "token:" in text for text in one.values())


def test_bootstrap_token_serves_joining_only_and_ends(native: Cluster) -> None:
    data = tenant_objects.bootstrap_token("abcdef.0123456789abcdef", "big-0", native.created)["data"]
    assert "usage-bootstrap-signing" not in data
    assert {"usage-bootstrap-authentication", "expiration", "auth-extra-groups"} <= data.keys()


def test_nobody_but_owners_administers_a_tenant_s_cluster(cilium: Cluster, endpoints: Endpoints) -> None:
    for manifest in tenant_objects.base_objects(cilium, endpoints):
        if manifest["kind"] == "ClusterRoleBinding" and manifest["roleRef"]["name"] == "cluster-admin":
            assert [subject["name"] for subject in manifest["subjects"]] == ["haneul:owners"]
        for rule in manifest.get("rules", []):
            assert "*" not in rule["verbs"] and "*" not in rule["apiGroups"]
            assert "secrets" not in rule["resources"] or manifest["metadata"]["name"] == "haneul:cilium-operator"


def test_a_tenant_s_cilium_reads_no_secrets_and_no_node_takes_another_s_lease(
    cilium: Cluster, endpoints: Endpoints
) -> None:
    roles = [entry for entry in tenant_objects.base_objects(cilium, endpoints) if entry["kind"] == "ClusterRole"]
    assert {role["metadata"]["name"] for role in roles} >= {"haneul:cilium-agent", "haneul:cilium-operator"}
    for role in roles:
        for rule in role["rules"]:
            assert not {"secrets", "configmaps"} & set(rule["resources"])
            assert "operator" in role["metadata"]["name"] or "leases" not in rule["resources"]
            assert rule["apiGroups"] == ["cilium.io"] or "*" not in rule["resources"]
