"""What keeps pods inside their nodes, as far as rendering can say; a real API server judges the rest (functional)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from haneul.dkos import control_plane
from haneul.dkos.adapters.sandbox_policy import node_pod_policy, runtime_class
from haneul.dkos.confinement import POLICIES_FILE, POLICY_FILES_GATE, STATIC_SUFFIX
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import Cluster, ClusterSpec, NodePool

Golden = Callable[[str, object], None]
SANDBOX_POLICIES = {"haneul-sandbox-pods", "haneul-sandbox-workloads", "haneul-sandbox-volumes"}


def on_machines(cluster: Cluster, count: int = 1) -> Cluster:
    names = [f"rack{number}" for number in range(count)]
    pools = (NodePool.model_validate({"name": "metal", "provider": "ssh", "machines": names}),)
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"node_pools": pools})})


def files(cluster: Cluster) -> dict[str, str]:
    found: dict[str, str] = control_plane.configurations(cluster)["kube-apiserver"]["data"]
    return found


def objects(cluster: Cluster, kind: str = "ValidatingAdmissionPolicy") -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all(files(cluster)[POLICIES_FILE])
    return {entry["metadata"]["name"]: entry for entry in found if entry["kind"] == kind}


def names(cluster: Cluster) -> set[str]:
    return {name.removesuffix(STATIC_SUFFIX) for name in objects(cluster)}


def test_policies_are_rendered_as_the_golden_file_says(native: Cluster, golden: Golden) -> None:
    golden("admission.yaml", list(yaml.safe_load_all(files(native)[POLICIES_FILE])))


def test_management_cluster_s_policy_is_rendered_as_the_golden_file_says(golden: Golden) -> None:
    golden("node-pod-policy.yaml", [runtime_class(), *node_pod_policy("haneul.local/node")])


def test_pods_are_confined_unless_the_nodes_are_machines(native: Cluster, cilium: Cluster) -> None:
    for cluster in (native, cilium):
        assert names(cluster) == {*SANDBOX_POLICIES, "haneul-built-in-apis"}
    # A cluster without nodes gets sandbox nodes, unless it is told otherwise.
    bare = native.model_copy(update={"spec": ClusterSpec(network=native.spec.network, node_pools=())})
    assert names(bare) == names(native)
    for count in (0, 2):
        assert names(on_machines(native, count)) == {"haneul-built-in-apis"}


def test_every_policy_is_bound_to_the_whole_cluster_and_fails_closed(native: Cluster) -> None:
    bindings = objects(native, "ValidatingAdmissionPolicyBinding")
    policies = objects(native)
    assert bindings.keys() == policies.keys()
    for name, policy in policies.items():
        assert name.endswith(STATIC_SUFFIX)
        warns = "workloads" in name
        assert bindings[name]["spec"] == {"policyName": name, "validationActions": ["Warn" if warns else "Deny"]}
        assert policy["spec"]["failurePolicy"] == ("Ignore" if warns else "Fail")
        assert policy["spec"]["matchConstraints"].keys() == {"matchPolicy", "resourceRules"}
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]:
            assert rule["operations"] == ["CREATE", "UPDATE"]
            assert rule["apiVersions"] == ["*"]


@pytest.mark.parametrize("machines", [False, True])
def test_api_server_reads_its_policies_whatever_the_cluster_asks_for(
    machines: bool, native: Cluster, endpoints: Endpoints, images: Images
) -> None:
    cluster = on_machines(native) if machines else native
    settings = cluster.spec.settings.model_copy(update={"feature_gates": {POLICY_FILES_GATE: False, "AllBeta": False}})
    cluster = cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"settings": settings})})
    pod = control_plane.apiserver(cluster, endpoints, images, {"kube-apiserver": "d"})["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    assert f"{POLICY_FILES_GATE}=true" in arguments["feature-gates"].split(",")
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    configured = yaml.safe_load(files(cluster)["admission.yaml"])
    (plugin,) = (entry for entry in configured["plugins"] if entry["name"] == "ValidatingAdmissionPolicy")
    assert plugin["configuration"]["staticManifestsDir"] == mounts["policies"]["mountPath"]
    assert mounts["policies"]["readOnly"] and mounts["config"]["readOnly"]
    assert arguments["admission-control-config-file"] == f"{mounts['config']['mountPath']}/admission.yaml"
    # Every file of the folder is read as policies.
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "policies")
    assert volume["configMap"]["items"] == [{"key": POLICIES_FILE, "path": POLICIES_FILE}]
    assert "disable-admission-plugins" not in arguments
