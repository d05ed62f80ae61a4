"""Every item of the benchmark: it is there, it passes where all is well, and it does not where one thing is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from haneul.compliance.accepted import ACCEPTED
from haneul.compliance.benchmark import ITEMS, SECTIONS, evaluate, findings, section_of, unexplained
from haneul.compliance.model import Item, Outcome, Result
from haneul.compliance.snapshot import Kind, Snapshot
from haneul.kernel.kube_manifests import anonymous_access, cluster_role, group
from tests.unit.compliance.snapshots import (
    RULE_OF_READERS,
    Break,
    binding,
    container_with,
    document,
    flags,
    good,
    kubelet,
    kubelet_flags,
    mode,
    mounted,
    namespace,
    objects,
    owner,
    pod,
    right,
    security_with,
    there,
)

FAIL, WARN = Result.FAIL, Result.WARN
API, MANAGER, SCHEDULER, ETCD = "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"
KINDS: tuple[Kind, ...] = ("tenant", "management")
TOKEN = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {}}]}}
ACCOUNT = {"kind": "ServiceAccount", "name": "default", "namespace": "app"}
RBAC = "rbac.authorization.k8s.io"

#: Of tenants' nodes nobody outside sees the files, so these never pass there.
FOR_A_PERSON = {("tenant", number) for number in ("4.1.3", "4.1.4", "4.1.5", "4.1.6", "4.1.9", "4.1.10")}


def asks(**spec: Any) -> Break:
    return objects("pods", pod(**spec))


def machine(bits: int) -> Break:
    volume = {"name": "bootstrap", "secret": {"secretName": "node-0", "defaultMode": bits}}
    return objects("machines", {"metadata": {"name": "node-0-0"}, "spec": {"volumes": [volume]}})


def _manifests() -> dict[str | tuple[Kind, str], tuple[Break, Result]]:
    found: dict[str | tuple[Kind, str], tuple[Break, Result]] = {}
    whats = (
        "the API server's manifest",
        "the controller manager's manifest",
        "the scheduler's manifest",
        "etcd's manifest",
    )
    for place, what in enumerate(whats):
        found[f"1.1.{2 * place + 1}"] = (mode(what, 0o644), FAIL)
        found[f"1.1.{2 * place + 2}"] = (owner(what), FAIL)
    return found


#: What breaks an item, and how it comes out then; by item, or by kind and item where the kinds are checked otherwise.
BREAKS: dict[str | tuple[Kind, str], tuple[Break, Result]] = {
    **_manifests(),
    "1.1.9": (mode("network plugins' files", 0o644), FAIL),
    "1.1.10": (owner("network plugins' files"), FAIL),
    "1.1.11": (mode("etcd's folders", 0o750), FAIL),
    "1.1.12": (owner("etcd's folders", "root"), FAIL),
    "1.1.13": (mode("administrator's credentials", 0o640), FAIL),
    "1.1.14": (owner("administrator's credentials"), FAIL),
    "1.1.15": (mode("scheduler's credential", 0o644), FAIL),
    ("tenant", "1.1.15"): (mounted(SCHEDULER, 0o444), FAIL),
    "1.1.16": (owner("scheduler's credential"), FAIL),
    "1.1.17": (mode("controller manager's credential", 0o644), FAIL),
    ("tenant", "1.1.17"): (mounted(MANAGER, 0o444), FAIL),
    "1.1.18": (owner("controller manager's credential"), FAIL),
    "1.1.19": (owner("certificates and keys"), FAIL),
    "1.1.20": (mode("certificates", 0o664), FAIL),
    ("tenant", "1.1.20"): (mounted(ETCD, 0o444), FAIL),
    "1.1.21": (mode("keys", 0o644), FAIL),
    ("tenant", "1.1.21"): (mounted(API, 0o644), FAIL),
    "1.2.1": (document("authentication", anonymous_access(("/livez", "/api"))), FAIL),
    "1.2.2": (flags(API, token_auth_file="/tokens.csv"), FAIL),
    "1.2.3": (flags(API, enable_admission_plugins="NodeRestriction"), FAIL),
    "1.2.4": (flags(API, kubelet_client_key=None), FAIL),
    "1.2.5": (flags(API, kubelet_certificate_authority=None), FAIL),
    "1.2.6": (flags(API, authorization_mode="Node,AlwaysAllow"), FAIL),
    "1.2.7": (flags(API, authorization_mode="RBAC"), FAIL),
    "1.2.8": (flags(API, authorization_mode="Node"), FAIL),
    "1.2.9": (flags(API, enable_admission_plugins="NodeRestriction"), FAIL),
    "1.2.10": (flags(API, enable_admission_plugins="AlwaysAdmit"), FAIL),
    "1.2.11": (flags(API, enable_admission_plugins="NodeRestriction"), FAIL),
    "1.2.12": (flags(API, disable_admission_plugins="ServiceAccount"), FAIL),
    "1.2.13": (flags(API, disable_admission_plugins="Priority,NamespaceLifecycle"), FAIL),
    "1.2.14": (flags(API, enable_admission_plugins=None), FAIL),
    "1.2.15": (flags(API, profiling=None), FAIL),
    "1.2.16": (flags(API, audit_log_path=None), FAIL),
    "1.2.17": (flags(API, audit_log_maxage="29"), FAIL),
    "1.2.18": (flags(API, audit_log_maxbackup="9"), FAIL),
    "1.2.19": (flags(API, audit_log_maxsize="99"), FAIL),
    "1.2.20": (flags(API, request_timeout="1h30m"), FAIL),
    "1.2.21": (flags(API, service_account_lookup="false"), FAIL),
    "1.2.22": (flags(API, service_account_key_file=None), FAIL),
    "1.2.23": (flags(API, etcd_certfile=None), FAIL),
    "1.2.24": (flags(API, tls_private_key_file=None), FAIL),
    "1.2.25": (flags(API, client_ca_file=None), FAIL),
    "1.2.26": (flags(API, etcd_cafile=None), FAIL),
    "1.2.27": (flags(API, encryption_provider_config=None), FAIL),
    "1.2.28": (document("encryption-providers", [["identity", "secretbox"]]), FAIL),
    "1.2.29": (flags(API, tls_cipher_suites="TLS_RSA_WITH_AES_128_CBC_SHA"), FAIL),
    "1.2.30": (flags(API, service_account_extend_token_expiration=None), FAIL),
    "1.3.1": (flags(MANAGER, terminated_pod_gc_threshold="0"), FAIL),
    "1.3.2": (flags(MANAGER, profiling="true"), FAIL),
    "1.3.3": (flags(MANAGER, use_service_account_credentials=None), FAIL),
    "1.3.4": (flags(MANAGER, service_account_private_key_file=None), FAIL),
    "1.3.5": (flags(MANAGER, root_ca_file=None), FAIL),
    "1.3.6": (flags(MANAGER, feature_gates="A=true,RotateKubeletServerCertificate=false"), FAIL),
    "1.3.7": (flags(MANAGER, bind_address="192.0.2.1"), FAIL),
    "1.4.1": (document("scheduler", {"enableProfiling": True}), FAIL),
    "1.4.2": (flags(SCHEDULER, bind_address=None), FAIL),
    "2.1": (flags(ETCD, cert_file=None), FAIL),
    "2.2": (flags(ETCD, client_cert_auth="false"), FAIL),
    "2.3": (flags(ETCD, auto_tls="true"), FAIL),
    "2.4": (flags(ETCD, peer_key_file=None), FAIL),
    "2.5": (flags(ETCD, peer_client_cert_auth=None), FAIL),
    "2.6": (flags(ETCD, peer_auto_tls="true"), FAIL),
    "2.7": (document("authorities", {"cluster": "a", "etcd": "a"}), FAIL),
    "3.1.1": (document("authentication", anonymous_access(("/livez",))), FAIL),
    ("management", "3.1.1"): (there("administrator's credentials"), WARN),
    "3.1.2": (objects("tokens", {"metadata": {"name": "ci", "namespace": "app"}}), WARN),
    "3.1.3": (
        objects("bootstrap-tokens", {"metadata": {"name": "t"}, "expiration": "", "groups": "system:bootstrappers:n"}),
        WARN,
    ),
    "3.2.1": (flags(API, audit_policy_file=None), FAIL),
    "3.2.2": (document("audit-policy", {"rules": [{"level": "Request"}]}), FAIL),
    "4.1.1": (mode("kubelet's service definition", 0o644), FAIL),
    "4.1.2": (owner("kubelet's service definition"), FAIL),
    "4.1.5": (mode("kubelet's credential", 0o644), FAIL),
    "4.1.6": (owner("kubelet's credential"), FAIL),
    "4.1.7": (mode("authorities that the kubelet trusts", 0o666), FAIL),
    ("tenant", "4.1.7"): (machine(0o666), FAIL),
    "4.1.8": (owner("authorities that the kubelet trusts"), FAIL),
    ("tenant", "4.1.8"): (machine(0o440), FAIL),
    "4.1.9": (mode("kubelet's configuration", 0o644), FAIL),
    "4.1.10": (owner("kubelet's configuration"), FAIL),
    "4.2.1": (kubelet(authentication={"anonymous": {"enabled": True}}), FAIL),
    "4.2.2": (kubelet(authorization={"mode": "AlwaysAllow"}), FAIL),
    "4.2.3": (kubelet(authentication={}), FAIL),
    "4.2.4": (kubelet(readOnlyPort=10255), FAIL),
    "4.2.5": (kubelet(streamingConnectionIdleTimeout="0s"), FAIL),
    "4.2.6": (kubelet(makeIPTablesUtilChains=False), FAIL),
    "4.2.7": (kubelet_flags(hostname_override="x"), FAIL),
    "4.2.8": (kubelet(eventRecordQPS=0), FAIL),
    "4.2.9": (kubelet(serverTLSBootstrap=None), FAIL),
    "4.2.10": (kubelet(rotateCertificates=False), FAIL),
    "4.2.11": (kubelet(featureGates={"RotateKubeletServerCertificate": False}), FAIL),
    "4.2.12": (kubelet(tlsCipherSuites=None), FAIL),
    "4.2.13": (kubelet(podPidsLimit=-1), FAIL),
    "4.2.14": (kubelet(seccompDefault=None), FAIL),
    "4.2.15": (document("kubelet-unit", "[Service]\n"), FAIL),
    "4.3.1": (document("kube-proxy", {"metricsBindAddress": "192.0.2.1:10249"}), FAIL),
    "5.1.1": (objects("clusterrolebindings", binding("b", "cluster-admin", group("ops"))), WARN),
    "5.1.2": (right("list", "", "secrets"), WARN),
    "5.1.3": (objects("clusterroles", cluster_role("all", [{"verbs": ["*"]}], {})), WARN),
    "5.1.4": (right("create", "", "pods"), WARN),
    "5.1.5": (asks(volumes=[TOKEN]), WARN),
    "5.1.6": (asks(volumes=[TOKEN], serviceAccountName="web"), WARN),
    "5.1.7": (objects("clusterrolebindings", binding("b", "view", group("system:masters"))), FAIL),
    "5.1.8": (right("bind", RBAC, "clusterroles"), WARN),
    "5.1.9": (right("create", "", "persistentvolumes"), WARN),
    "5.1.10": (right("get", "", "nodes/proxy"), WARN),
    "5.1.11": (right("update", "certificates.k8s.io", "certificatesigningrequests/approval"), WARN),
    "5.1.12": (right("patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"), WARN),
    "5.1.13": (right("create", "", "serviceaccounts/token"), WARN),
    "5.2.1": (flags(API, disable_admission_plugins="PodSecurity"), FAIL),
    "5.2.2": (objects("pods", security_with(privileged=True)), WARN),
    "5.2.3": (asks(hostPID=True), WARN),
    "5.2.4": (asks(hostIPC=True), WARN),
    "5.2.5": (asks(hostNetwork=True), WARN),
    "5.2.6": (objects("pods", security_with(allowPrivilegeEscalation=None)), WARN),
    "5.2.7": (objects("pods", security_with(runAsUser=0)), WARN),
    "5.2.8": (objects("pods", security_with(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]})), WARN),
    "5.2.9": (objects("pods", security_with(capabilities={"drop": ["ALL"], "add": ["SYS_TIME"]})), WARN),
    "5.2.10": (objects("pods", security_with(capabilities={"drop": ["NET_RAW"]})), WARN),
    "5.2.11": (objects("pods", security_with(windowsOptions={"hostProcess": True})), WARN),
    "5.2.12": (asks(volumes=[{"name": "host", "hostPath": {"path": "/"}}]), WARN),
    "5.2.13": (objects("pods", container_with(ports=[{"containerPort": 80, "hostPort": 80}])), WARN),
    "5.3.1": (document("network", "native"), FAIL),
    "5.3.2": (objects("networkpolicies"), WARN),
    "5.4.1": (objects("pods", container_with(envFrom=[{"secretRef": {"name": "s"}}])), WARN),
    "5.4.2": (document("encryption-providers", [["secretbox"]]), WARN),
    "5.5.1": (flags(API, enable_admission_plugins="NodeRestriction"), WARN),
    "5.6.1": (objects("namespaces", namespace("default"), namespace("kube-system")), WARN),
    "5.6.2": (objects("pods", security_with(seccompProfile={"type": "Unconfined"})), WARN),
    "5.6.3": (objects("pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}), WARN),
    "5.6.4": (objects("services", {"metadata": {"name": "web", "namespace": "default"}}), WARN),
}
#: A tenant's kubelet network is native so that kube-proxy is looked at; the item on networks needs the other one.
BEFORE: dict[tuple[Kind, str], Break] = {("tenant", "5.3.1"): document("network", "cilium")}
BEFORE[("management", "3.1.1")] = lambda snapshot: replace(
    snapshot, files={**snapshot.files, "administrator's credentials": ()}
)
BEFORE[("management", "5.5.1")] = flags(API, enable_admission_plugins="NodeRestriction")
BREAKS[("management", "5.5.1")] = (objects("pods", container_with(image="docker.io/web:latest")), WARN)

CHECKED = [
    pytest.param(kind, item, id=f"{kind}-{item.id}")
    for kind in KINDS
    for item in ITEMS
    if not isinstance(item.probes[kind], str)
]


def before_breaking(kind: Kind, number: str) -> Snapshot:
    """A snapshot on which an item passes."""
    change = BEFORE.get((kind, number))
    return change(good(kind)) if change else good(kind)


def outcome(snapshot: Snapshot, number: str) -> Outcome:
    return next(entry for entry in evaluate(snapshot) if entry.id == number)


def test_every_item_of_every_section_is_there_once_and_in_order() -> None:
    counts = Counter(section_of(item.id) for item in ITEMS)
    assert counts == {section: count for section, (_, count) in SECTIONS.items()}
    assert len(ITEMS) == 133
    for section, (_, count) in SECTIONS.items():
        numbers = [item.id for item in ITEMS if section_of(item.id) == section]
        assert numbers == [f"{section}.{number}" for number in range(1, count + 1)]


def test_every_item_says_what_it_asks_and_how_to_mend_it_in_a_table_s_cell() -> None:
    for item in ITEMS:
        words = [item.title, item.mend, *(p if isinstance(p, str) else p.how for p in item.probes.values())]
        assert all(word and "|" not in word and "\n" not in word for word in words), item.id
        assert set(item.probes) == set(KINDS)


@pytest.mark.parametrize(("kind", "item"), CHECKED)
def test_an_item_tells_a_broken_cluster_from_a_good_one(kind: Kind, item: Item) -> None:
    before = before_breaking(kind, item.id)
    well = outcome(before, item.id)
    if (kind, item.id) in FOR_A_PERSON:
        assert well.result is WARN
        assert "node-0" in well.seen and "stat -c" in well.seen
        return
    assert well.result is Result.PASS, well.seen
    broken, expected = BREAKS.get((kind, item.id)) or BREAKS[item.id]
    ill = outcome(broken(before), item.id)
    assert ill.result is expected, ill.seen
    assert ill.seen != well.seen


def test_no_way_to_break_an_item_is_for_one_that_is_not_there() -> None:
    checked = {(kind, item.id) for kind in KINDS for item in ITEMS if not isinstance(item.probes[kind], str)}
    for key in BREAKS:
        places = {key} if isinstance(key, tuple) else {(kind, key) for kind in KINDS}
        assert places & (checked - FOR_A_PERSON), key


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_could_gather_is_for_a_person_to_look_at(kind: Kind) -> None:
    gaps = {"kube-apiserver": "it is down"}
    found = {entry.id: entry for entry in evaluate(Snapshot(kind, gaps=gaps))}
    for item in ITEMS:
        applies = not isinstance(item.probes[kind], str)
        assert found[item.id].result is (WARN if applies else Result.NOT_APPLICABLE), item.id
    assert found["1.2.15"].seen == "kube-apiserver could not be seen: it is down"


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_does_not_apply_says_why(kind: Kind) -> None:
    for item in ITEMS:
        probe = item.probes[kind]
        if isinstance(probe, str):
            assert outcome(good(kind), item.id) == Outcome(id=item.id, result=Result.NOT_APPLICABLE, seen=probe)


def test_only_what_can_fail_has_a_reason_to() -> None:
    for (kind, number), reason in ACCEPTED.items():
        broken, expected = BREAKS.get((kind, number)) or BREAKS[number]
        assert expected is FAIL
        item = next(item for item in ITEMS if item.id == number)
        assert not isinstance(item.probes[kind], str), "an item that does not apply needs no reason"
        assert reason and "|" not in reason
        assert outcome(broken(before_breaking(kind, number)), number).result is FAIL


def test_a_reason_is_given_with_a_failure_and_never_makes_it_pass() -> None:
    snapshot = flags(API, enable_admission_plugins="NodeRestriction", profiling="true")(good("tenant"))
    found = {finding.id: finding for finding in findings("tenant", evaluate(snapshot))}
    assert found["1.2.11"].result is FAIL and found["1.2.11"].reason
    assert found["1.2.15"].result is FAIL and not found["1.2.15"].reason
    assert not found["1.2.1"].reason
    assert [finding.id for finding in unexplained(found.values())] == ["1.2.3", "1.2.9", "1.2.15"]


def test_an_item_that_another_release_did_not_know_is_for_a_person_to_look_at() -> None:
    kept = [entry for entry in evaluate(good("tenant")) if entry.id != "1.2.2"]
    finding = next(entry for entry in findings("tenant", kept) if entry.id == "1.2.2")
    assert (finding.result, finding.seen) == (WARN, "it was not looked at; check again")


@pytest.mark.parametrize(
    ("broken", "number"),
    [
        (right("get", "", "secrets", to="system:authenticated"), "5.1.2"),
        (right("create", "", "pods", to="system:serviceaccounts"), "5.1.4"),
        (objects("clusterrolebindings", binding("b", "cluster-admin", group("system:anonymous"))), "5.1.1"),
        (objects("rolebindings", binding("b", "view", ACCOUNT)), "5.1.5"),
    ],
)
def test_a_right_that_anybody_has_fails(broken: Break, number: str) -> None:
    assert outcome(broken(good("tenant")), number).result is FAIL


@pytest.mark.parametrize("to", ["haneul:owners", "system:node-problem", "haneul:developers"])
def test_rights_of_our_own_groups_pass_and_are_named(to: str) -> None:
    seen = outcome(right("list", "", "secrets", to=to)(good("tenant")), "5.1.2")
    assert seen.result is Result.PASS
    assert (to in seen.seen) is to.startswith("haneul:")


def test_a_right_to_one_named_object_is_not_one_to_all() -> None:
    rule = {**RULE_OF_READERS, "resourceNames": ["one"]}
    snapshot = right("list", "", "secrets")(good("tenant"))
    roles = (cluster_role("extra", [rule], {}),)
    assert outcome(objects("clusterroles", *roles)(snapshot), "5.1.2").result is Result.PASS


@pytest.mark.parametrize(("level", "number"), [("privileged", "5.2.2"), ("baseline", "5.2.6")])
def test_a_namespace_in_which_pods_may_do_more_is_named_though_none_does(level: str, number: str) -> None:
    seen = outcome(objects("namespaces", namespace("app"), namespace("loose", level))(good("tenant")), number)
    assert seen.result is WARN
    assert "loose" in seen.seen and "app" not in seen.seen


def test_one_instance_of_many_that_differs_counts() -> None:
    snapshot = good("tenant")
    (first,) = snapshot.programs[API]
    two = replace(snapshot, programs={**snapshot.programs, API: (first, {**first, "profiling": "true"})})
    assert outcome(two, "1.2.15").result is FAIL


def test_machines_that_are_no_pods_are_for_a_person_to_look_at() -> None:
    seen = outcome(objects("machines")(good("tenant")), "4.1.7")
    assert seen.result is WARN
    assert "node-0" in seen.seen


def test_what_was_seen_is_kept_short() -> None:
    many = [pod(f"pod-with-a-long-name-{number:0200}", hostPID=True) for number in range(9)]
    assert len(outcome(objects("pods", *many)(good("tenant")), "5.2.3").seen) <= 400


@pytest.mark.parametrize(
    ("change", "result"),
    [
        (flags(API, authentication_config=None, anonymous_auth="false"), Result.PASS),
        (flags(API, authentication_config=None), FAIL),
        (document("authentication", {}), FAIL),
        (document("authentication", {"anonymous": {"enabled": False}}), Result.PASS),
        (document("authentication", {"anonymous": {"enabled": True}}), FAIL),
    ],
)
def test_every_way_to_bound_anonymous_requests_is_known(change: Break, result: Result) -> None:
    assert outcome(change(good("tenant")), "1.2.1").result is result


@pytest.mark.parametrize(("timeout", "result"), [("5m", Result.PASS), ("300s", Result.PASS), ("0", FAIL), ("6m", FAIL)])
def test_requests_last_five_minutes_at_most(timeout: str, result: Result) -> None:
    assert outcome(flags(API, request_timeout=timeout)(good("tenant")), "1.2.20").result is result


Policy = list[dict[str, Any]]


@pytest.mark.parametrize(
    ("rules", "result"),
    [
        ([{"level": "None", "users": ["system:kube-scheduler"]}, {"level": "Metadata"}], Result.PASS),
        ([{"level": "None", "verbs": ["get"]}, {"level": "Metadata"}], FAIL),
        ([{"level": "None", "resources": [{"resources": ["pods/*"]}]}, {"level": "Metadata"}], FAIL),
        ([{"level": "None", "resources": [{"resources": ["events"]}]}, {"level": "Metadata"}], Result.PASS),
        ([{"level": "None", "resources": [{"group": "apps"}]}, {"level": "Metadata"}], FAIL),
        ([{"level": "RequestResponse", "resources": [{"resources": ["secrets"]}]}, {"level": "Metadata"}], FAIL),
        ([], FAIL),
    ],
)
def test_an_audit_policy_is_judged_by_what_it_writes_down(rules: Policy, result: Result) -> None:
    assert outcome(document("audit-policy", {"rules": rules})(good("tenant")), "3.2.2").result is result


def test_a_cluster_without_kube_proxy_is_not_asked_for_it() -> None:
    for number in ("4.1.3", "4.1.4", "4.3.1"):
        seen = outcome(document("network", "cilium")(good("tenant")), number)
        assert seen.result is Result.NOT_APPLICABLE
        assert "Cilium" in seen.seen


def test_a_host_without_systemd_knows_no_address_filter() -> None:
    assert outcome(document("kubelet-unit", None)(good("management")), "4.2.15").result is Result.NOT_APPLICABLE
