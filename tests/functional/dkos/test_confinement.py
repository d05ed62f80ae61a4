"""A tenant who administers its cluster asks a real API server for what reaches a node, and tries to lift what refuses.

etcd and kube-apiserver run as plain processes, with the policies and the arguments that DKOS renders.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from haneul.components.table import variants
from haneul.dkos import control_plane
from haneul.dkos.confinement import POLICIES_FILE
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import Cluster, ClusterSpec, NodePool
from haneul.dkos.tenant_objects import base_objects
from tests.functional.kubernetes import ROOT, ApiServer, program, running

Pod = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
RIGHTS = "/apis/rbac.authorization.k8s.io/v1"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
TENANT, NODE = "tenant", "node"
PEOPLE = {
    TENANT: ("alice@shop", ("haneul:owners",)),
    NODE: ("system:node:default-0", ("system:nodes",)),
}
#: What DKOS tells an API server about admission; the rest is the test's own.
ADMISSION = ("enable-admission-plugins", "admission-control-config-file", "allow-privileged", "feature-gates")


def cluster(provider: str) -> Cluster:
    pool = {"name": "default", "provider": provider} | ({"machines": ["rack1"]} if provider == "ssh" else {})
    spec = ClusterSpec(node_pools=(NodePool.model_validate(pool),))
    spec = spec.model_copy(
        update={"network": spec.network.model_copy(update={"pods": "10.1.0.0/18", "services": "10.2.0.0/20"})}
    )
    return Cluster(project="shop", name="web", uid="u", generation=1, created=datetime.now(UTC), spec=spec)


def configure(server: ApiServer, provider: str) -> None:
    """Give an API server the policies and arguments of a cluster with nodes of a provider."""
    rendered = cluster(provider)
    endpoints = Endpoints(("127.0.0.1",), "127.0.0.1", "127.0.0.1", "127.0.0.1", server.port)
    names = ("etcd", "apiserver", "controller_manager", "scheduler", "toolbox", "node", "cilium")
    program_of = control_plane.apiserver(
        rendered, endpoints, Images(**dict.fromkeys(names, "image")), {"kube-apiserver": "digest"}
    )
    (container,) = program_of["spec"]["template"]["spec"]["containers"]
    pairs = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    files = control_plane.configurations(rendered)["kube-apiserver"]["data"]
    server.arguments = {
        **{name: pairs[name] for name in ADMISSION},
        "admission-control-config-file": f"{server.folder}/admission.yaml",
        "authorization-mode": "Node,RBAC",
    }
    mount = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "policies")
    server.write(
        {
            "admission.yaml": files["admission.yaml"].replace(mount, f"{server.folder}/policies"),
            f"policies/{POLICIES_FILE}": files[POLICIES_FILE],
        }
    )


def prepare(server: ApiServer) -> None:
    """Make what the controller manager and DKOS would have made."""
    endpoints = Endpoints(("127.0.0.1",), "127.0.0.1", "127.0.0.1", "127.0.0.1", server.port)
    server.make(base_objects(cluster("sandbox"), endpoints), RIGHTS)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    server.make([account], "/api/v1/namespaces/default")


def a_pod(name: str = "plain") -> Pod:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "example.com/main:1"}]},
    }


#: The API servers of both minors.
SERVERS = tuple(row.programs[0] for row in variants("kube-apiserver"))


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server of a cluster with sandbox nodes."""
    program(request.param)
    folder = tmp_path_factory.mktemp("cluster")
    found = ApiServer(folder, arguments={}, files={}, people=PEOPLE, program=request.param)
    configure(found, "sandbox")
    with running(found):
        prepare(found)
        yield found


Eventually = Callable[[Callable[[], httpx2.Response], Callable[[httpx2.Response], bool]], httpx2.Response]


@pytest.fixture
def eventually() -> Eventually:
    def wait(ask: Callable[[], httpx2.Response], enough: Callable[[httpx2.Response], bool]) -> httpx2.Response:
        deadline = time.monotonic() + 60
        while True:
            seen = ask()
            if enough(seen) or time.monotonic() > deadline:
                return seen
            time.sleep(0.2)

    return wait


def with_spec(**fields: Any) -> Pod:
    pod = a_pod()
    pod["spec"] |= fields
    return pod


def with_container(**fields: Any) -> Pod:
    pod = a_pod()
    pod["spec"]["containers"][0] |= fields
    return pod


def with_security(**fields: Any) -> Pod:
    return with_container(securityContext=fields)


def with_volume(**source: Any) -> Pod:
    return with_spec(volumes=[{"name": "extra", **source}])


def beside(kind: str, **fields: Any) -> Pod:
    return with_spec(**{kind: [{"name": "second", "image": "example.com/second:1", **fields}]})


def with_block_device(pod: Pod) -> Pod:
    pod["spec"]["containers"][0]["volumeDevices"] = [{"name": "extra", "devicePath": "/dev/extra"}]
    return pod


def with_own_users(pod: Pod) -> Pod:
    pod["spec"]["hostUsers"] = False
    return pod


REFUSED: dict[str, tuple[Pod, str]] = {
    "privileged": (with_security(privileged=True), "container main is privileged"),
    "privileged beside": (
        beside("initContainers", securityContext={"privileged": True}),
        "container second is privileged",
    ),
    "privileged sidecar": (
        beside("initContainers", restartPolicy="Always", securityContext={"privileged": True}),
        "container second is privileged",
    ),
    "other system": (with_spec(os={"name": "windows"}, hostNetwork=True), "node's network"),
    "network": (with_spec(hostNetwork=True), "node's network"),
    "processes": (with_spec(hostPID=True), "node's process ids"),
    "communication": (with_spec(hostIPC=True), "inter-process"),
    "path": (with_volume(hostPath={"path": "/"}), "volume extra"),
    "device path": (with_volume(hostPath={"path": "/dev/vda", "type": "BlockDevice"}), "volume extra"),
    "fibre channel": (with_volume(fc={"wwids": ["3600508b400105e210000900000490000"]}), "volume extra"),
    "iscsi": (with_volume(iscsi={"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.com.example:s", "lun": 0}), "extra"),
    "nfs": (with_volume(nfs={"server": "10.0.0.1", "path": "/"}), "volume extra"),
    "flex": (with_volume(flexVolume={"driver": "example.com/driver"}), "volume extra"),
    "git": (with_volume(gitRepo={"repository": "https://example.com/x.git"}), "volume extra"),
    "all capabilities": (with_security(capabilities={"add": ["ALL"]}), "adds capabilities"),
    "administration": (with_security(capabilities={"add": ["CHOWN", "SYS_ADMIN"]}), "adds capabilities"),
    "modules": (with_security(capabilities={"add": ["SYS_MODULE"]}), "adds capabilities"),
    "prefixed capability": (with_security(capabilities={"add": ["CAP_SYS_ADMIN"]}), "adds capabilities"),
    "bpf": (with_security(capabilities={"add": ["BPF"]}), "adds capabilities"),
    "raw block": (
        with_block_device(with_volume(persistentVolumeClaim={"claimName": "claim"})),
        "main uses raw block devices",
    ),
    # Unmasking needs users of the pod's own before the API itself takes it.
    "proc": (with_own_users(with_security(procMount="Unmasked")), "procMount"),
    "seccomp": (with_security(seccompProfile={"type": "Unconfined"}), "seccomp"),
    "seccomp of the pod": (with_spec(securityContext={"seccompProfile": {"type": "Unconfined"}}), "seccomp"),
    "own seccomp": (with_security(seccompProfile={"type": "Localhost", "localhostProfile": "p.json"}), "seccomp"),
    "apparmor": (with_security(appArmorProfile={"type": "Unconfined"}), "AppArmor"),
    "apparmor of the pod": (with_spec(securityContext={"appArmorProfile": {"type": "Unconfined"}}), "AppArmor"),
    "selinux": (with_security(seLinuxOptions={"type": "spc_t"}), "SELinux"),
    "selinux of the pod": (with_spec(securityContext={"seLinuxOptions": {"user": "system_u"}}), "SELinux"),
    "probe of the node": (with_container(livenessProbe={"httpGet": {"port": 10248, "host": "127.0.0.1"}}), "probe"),
    "handler of the node": (
        with_container(lifecycle={"postStart": {"tcpSocket": {"port": 10248, "host": "127.0.0.1"}}}),
        "handler",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("who", [TENANT, ROOT])
def test_pod_that_reaches_its_node_is_refused_with_a_reason_and_a_hint(case: str, who: str, server: ApiServer) -> None:
    pod, words = REFUSED[case]
    answer = server.ask(PODS, who=who, body=pod)
    assert answer.status_code == 403, answer.text
    message = answer.json()["message"]
    assert "haneul-sandbox-pods.static.k8s.io" in message
    assert words in message and "provider: ssh" in message, message


def test_refusal_names_all_that_is_wrong_at_once(server: ApiServer) -> None:
    pod = with_security(privileged=True, capabilities={"add": ["SYS_ADMIN"]})
    pod["spec"] |= {"hostPID": True, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    message = server.ask(PODS, who=TENANT, body=pod).json()["message"]
    for words in ("process ids", "volume root", "main is privileged", "main adds capabilities"):
        assert words in message


def a_mirror_pod(name: str, **security: Any) -> Pod:
    pod = a_pod(name)
    pod["metadata"] |= {"annotations": {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"}}
    pod["spec"] |= {"nodeName": "default-0", "automountServiceAccountToken": False}
    pod["spec"]["containers"][0]["securityContext"] = security
    return pod


def test_node_makes_no_privileged_pod_for_itself(server: ApiServer) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "default-0"}}
    made = server.ask("/api/v1/nodes", who=NODE, body=node)
    assert made.status_code == 201, made.text
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "default-0",
        "uid": made.json()["metadata"]["uid"],
        "controller": True,
    }
    cases: list[tuple[str, dict[str, Any], int]] = [("mirror", {}, 201), ("mirror-2", {"privileged": True}, 403)]
    for name, security, status in cases:
        pod = a_mirror_pod(name, **security)
        pod["metadata"]["ownerReferences"] = [owner]
        answer = server.ask(PODS, who=NODE, body=pod)
        assert answer.status_code == status, answer.text
    assert "haneul-sandbox-pods" in answer.json()["message"]


def test_changes_of_a_pod_are_judged_too(server: ApiServer) -> None:
    assert server.ask(PODS, who=TENANT, body=a_pod("changing")).status_code == 201

    def debug(name: str, **security: Any) -> httpx2.Response:
        added = {"name": name, "image": "example.com/debug:1", "securityContext": security}
        return server.ask(
            f"{PODS}/changing/ephemeralcontainers",
            who=TENANT,
            method="PATCH",
            kind=STRATEGIC,
            body={"spec": {"ephemeralContainers": [added]}},
        )

    assert debug("plain").status_code == 200
    bold: list[dict[str, Any]] = [{"privileged": True}, {"capabilities": {"add": ["SYS_PTRACE"]}}]
    for number, security in enumerate(bold):
        answer = debug(f"debug-{number}", **security)
        assert answer.status_code == 403 and f"container debug-{number}" in answer.json()["message"], answer.text
    image = {"spec": {"containers": [{"name": "main", "image": "example.com/main:2"}]}}
    assert server.ask(f"{PODS}/changing", who=TENANT, method="PATCH", kind=STRATEGIC, body=image).status_code == 200


@pytest.mark.parametrize(
    "source",
    [
        {"hostPath": {"path": "/"}},
        {"local": {"path": "/dev/vda"}},
        {"fc": {"wwids": ["3600508b400105e210000900000490000"]}},
        {"nfs": {"server": "10.0.0.1", "path": "/"}},
        {"flexVolume": {"driver": "example.com/driver"}},
    ],
    ids=lambda source: next(iter(source)),
)
def test_persistent_volume_of_a_node_is_refused(source: dict[str, Any], server: ApiServer) -> None:
    answer = server.ask("/api/v1/persistentvolumes", who=TENANT, body=a_volume("volume", source))
    assert answer.status_code == 403 and "CSI driver" in answer.json()["message"], answer.text


def a_volume(name: str, source: dict[str, Any]) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Block" if "local" in source else "Filesystem",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            **source,
        },
    }


def workload(kind: str, name: str = "plain", **security: Any) -> tuple[str, dict[str, Any]]:
    """Return where a workload is made, and the workload."""
    labels = {"app": name}
    container = {"name": "main", "image": "example.com/main:1", "securityContext": security}
    pod: dict[str, Any] = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    group = "batch" if kind in ("Job", "CronJob") else "apps"
    if group == "batch":
        pod["spec"]["restartPolicy"] = "Never"
    spec: dict[str, Any] = {"template": pod}
    if group == "apps":
        spec["selector"] = {"matchLabels": labels}
    if kind == "CronJob":
        spec = {"schedule": "0 0 * * *", "jobTemplate": {"spec": spec}}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    manifest = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return f"/apis/{group}/v1/namespaces/default/{kind.lower()}s", manifest


WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob")


@pytest.mark.parametrize("kind", WORKLOADS)
def test_workload_is_accepted_and_one_with_refused_pods_is_warned_of(kind: str, server: ApiServer) -> None:
    folder, plain = workload(kind)
    answer = server.ask(folder, who=TENANT, body=plain)
    assert answer.status_code == 201 and "warning" not in answer.headers, (answer.text, answer.headers)
    folder, bold = workload(kind, "bold", privileged=True)
    answer = server.ask(folder, who=TENANT, body=bold)
    assert answer.status_code == 201, answer.text
    assert "container main is privileged" in answer.headers["warning"], answer.headers
    assert "provider: ssh" in answer.headers["warning"]


ACCEPTED: dict[str, Pod] = {
    "plain": a_pod(),
    "root": with_security(runAsUser=0, allowPrivilegeEscalation=True),
    "hardened": with_security(
        runAsNonRoot=True,
        runAsUser=1000,
        readOnlyRootFilesystem=True,
        privileged=False,
        capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        seccompProfile={"type": "RuntimeDefault"},
    ),
    "own users": with_spec(hostUsers=False),
    "port of the node": with_container(ports=[{"containerPort": 80, "hostPort": 80}]),
    "probes": with_container(
        livenessProbe={"httpGet": {"port": 80, "path": "/"}},
        readinessProbe={"tcpSocket": {"port": 80}},
        lifecycle={"preStop": {"exec": {"command": ["true"]}}},
    ),
    "helpers": beside("initContainers", restartPolicy="Always"),
    "volumes": with_spec(
        volumes=[
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "secret", "secret": {"secretName": "secret"}},
            {"name": "about", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "image", "image": {"reference": "example.com/data:1"}},
        ]
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_ordinary_pod_is_accepted(case: str, server: ApiServer) -> None:
    pod = copy.deepcopy(ACCEPTED[case])
    pod["metadata"]["name"] = f"accepted-{case.replace(' ', '-')}"
    answer = server.ask(PODS, who=TENANT, body=pod)
    assert answer.status_code == 201, answer.text


def test_volume_of_a_driver_and_a_service_are_accepted(server: ApiServer) -> None:
    volume = a_volume("driven", {"csi": {"driver": "csi.example.com", "volumeHandle": "1"}})
    assert server.ask("/api/v1/persistentvolumes", who=TENANT, body=volume).status_code == 201
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    assert server.ask("/api/v1/namespaces/default/services", who=TENANT, body=service).status_code == 201


def is_refused(server: ApiServer) -> bool:
    return server.ask(PODS, who=TENANT, body=with_security(privileged=True)).status_code == 403


def rendered_policies() -> list[dict[str, Any]]:
    files = control_plane.configurations(cluster("sandbox"))["kube-apiserver"]["data"]
    return list(yaml.safe_load_all(files[POLICIES_FILE]))


def collection(kind: str) -> str:
    return f"{REGISTRATION}/{'validatingadmissionpolicies' if kind.endswith('Policy') else f'{kind.lower()}s'}"


def test_administrator_finds_no_policy_to_change_or_delete(server: ApiServer) -> None:
    for policy in rendered_policies():
        folder, name = collection(policy["kind"]), policy["metadata"]["name"]
        assert server.ask(folder, who=TENANT).json()["items"] == []
        assert server.ask(f"{folder}/{name}", who=TENANT, method="DELETE").status_code == 404
        patch = {"spec": {"failurePolicy": "Ignore"}}
        path = f"{folder}/{name}"
        assert server.ask(path, who=TENANT, method="PATCH", kind=MERGE, body=patch).status_code == 404
        # Nor can one of the same name be put before it.
        assert server.ask(folder, who=TENANT, body=policy).status_code in (403, 422)
    assert is_refused(server)


def test_labels_of_a_namespace_lift_nothing(server: ApiServer) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged", "control-plane": "true"}}}
    for name in ("default", "kube-system"):
        path = f"/api/v1/namespaces/{name}"
        assert server.ask(path, who=TENANT, method="PATCH", kind=MERGE, body=labels).status_code == 200
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    server.make([account], "/api/v1/namespaces/kube-system")
    for name in ("default", "kube-system"):
        answer = server.ask(f"/api/v1/namespaces/{name}/pods", who=TENANT, body=with_security(privileged=True))
        assert answer.status_code == 403


def test_what_changes_pods_on_their_way_is_judged_after_it(server: ApiServer, eventually: Eventually) -> None:
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "objectSelector": {"matchLabels": {"change": "me"}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ],
        },
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": "Object{spec: Object.spec{hostPID: true}}"},
            }
        ],
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "late"},
        "spec": spec,
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "late"},
        "spec": {"policyName": "late"},
    }
    made = server.ask(f"{REGISTRATION}/mutatingadmissionpolicies", who=TENANT, body=policy)
    assert made.status_code == 201, made.text
    made = server.ask(f"{REGISTRATION}/mutatingadmissionpolicybindings", who=TENANT, body=binding)
    assert made.status_code == 201, made.text
    pod = a_pod()
    pod["metadata"] = {"generateName": "late-", "labels": {"change": "me"}}
    # It takes a moment until the API server heard of the change; from then on the pod is refused.
    answer = eventually(lambda: server.ask(PODS, who=TENANT, body=pod), lambda seen: seen.status_code != 201)
    assert answer.status_code == 403 and "process ids" in answer.json()["message"], answer.text


def test_nobody_else_answers_for_what_nodes_run(server: ApiServer) -> None:
    folder = "/apis/apiregistration.k8s.io/v1/apiservices"
    other = {"service": {"namespace": "default", "name": "mine"}, "insecureSkipTLSVerify": True}
    for name in ("v1.", "v1.apps", "v1.certificates.k8s.io", "v1.node.k8s.io"):
        answer = server.ask(f"{folder}/{name}", who=TENANT, method="PATCH", kind=MERGE, body={"spec": other})
        assert answer.status_code == 403, answer.text
        assert "haneul-built-in-apis" in answer.json()["message"]

    def service(version: str, group: str) -> dict[str, Any]:
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{version}.{group}"},
            "spec": {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100, **other},
        }

    assert server.ask(folder, who=TENANT, body=service("v2", "apps")).status_code == 403
    for group in ("metrics.k8s.io", "metrics.example.com"):
        made = server.ask(folder, who=TENANT, body=service("v1beta1", group))
        assert made.status_code == 201, made.text


@pytest.mark.parametrize("version", SERVERS)
def test_machines_run_privileged_pods_and_what_is_older_than_the_policy_can_end(tmp_path: Path, version: str) -> None:
    program(version)
    server = ApiServer(tmp_path, arguments={}, files={}, people=PEOPLE, program=version)
    configure(server, "ssh")
    old = with_security(privileged=True)
    old["metadata"] |= {"name": "old", "finalizers": ["example.com/hold"]}
    old["spec"] |= {"hostNetwork": True, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    with running(server):
        prepare(server)
        made = server.ask(PODS, who=TENANT, body=old)
        assert made.status_code == 201, made.text
        taken = server.ask(
            "/apis/apiregistration.k8s.io/v1/apiservices/v1.",
            who=TENANT,
            method="PATCH",
            kind=MERGE,
            body={"spec": {"service": {"namespace": "default", "name": "mine"}}},
        )
        assert taken.status_code == 403, taken.text
    configure(server, "sandbox")
    with running(server):
        added = {"name": "debug", "image": "example.com/debug:1"}
        answer = server.ask(
            f"{PODS}/old/ephemeralcontainers",
            who=TENANT,
            method="PATCH",
            kind=STRATEGIC,
            body={"spec": {"ephemeralContainers": [added]}},
        )
        assert answer.status_code == 403, answer.text
        assert server.ask(f"{PODS}/old?gracePeriodSeconds=0", who=TENANT, method="DELETE").status_code == 200
        ended = server.ask(
            f"{PODS}/old", who=TENANT, method="PATCH", kind=MERGE, body={"metadata": {"finalizers": None}}
        )
        assert ended.status_code == 200, ended.text
        assert server.ask(f"{PODS}/old", who=TENANT).status_code == 404
