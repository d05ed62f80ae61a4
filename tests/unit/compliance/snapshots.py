"""A snapshot of each kind on which everything is as the benchmark wants it, and ways to break exactly one thing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from haneul.compliance.snapshot import FileSeen, Kind, Kubelet, Snapshot
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import HEALTH_PATHS, STRONG_CIPHERS, anonymous_access, cluster_role, group

Break = Callable[[Snapshot], Snapshot]
RULE_OF_READERS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}

_API = {
    "authentication-config": "/authentication.yaml",
    "enable-admission-plugins": (
        "NodeRestriction,DenyServiceExternalIPs,EventRateLimit,AlwaysPullImages,ImagePolicyWebhook"
    ),
    "kubelet-client-certificate": "/c",
    "kubelet-client-key": "/k",
    "kubelet-certificate-authority": "/ca",
    "authorization-mode": "Node,RBAC",
    "profiling": "false",
    "audit-policy-file": "/p",
    "audit-log-path": "/l",
    "audit-log-maxage": "30",
    "audit-log-maxbackup": "10",
    "audit-log-maxsize": "100",
    "service-account-key-file": "/s",
    "etcd-certfile": "/c",
    "etcd-keyfile": "/k",
    "etcd-cafile": "/ca",
    "tls-cert-file": "/c",
    "tls-private-key-file": "/k",
    "tls-cipher-suites": ",".join(STRONG_CIPHERS),
    "client-ca-file": "/ca",
    "encryption-provider-config": "/e",
    "service-account-extend-token-expiration": "false",
}
_MANAGER = {
    "terminated-pod-gc-threshold": "1000",
    "profiling": "false",
    "use-service-account-credentials": "true",
    "service-account-private-key-file": "/k",
    "root-ca-file": "/ca",
    "bind-address": "127.0.0.1",
}
_ETCD = {
    "cert-file": "/c",
    "key-file": "/k",
    "client-cert-auth": "true",
    "peer-cert-file": "/c",
    "peer-key-file": "/k",
    "peer-client-cert-auth": "true",
}
_KUBELET = {
    "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": "/ca"}},
    "authorization": {"mode": "Webhook"},
    "serverTLSBootstrap": True,
    "rotateCertificates": True,
    "tlsCipherSuites": list(STRONG_CIPHERS),
    "podPidsLimit": 4096,
    "seccompDefault": True,
    "eventRecordQPS": 50,
    "streamingConnectionIdleTimeout": "4h0m0s",
    "makeIPTablesUtilChains": True,
}
#: What there is of files: mode, owner; nothing of what only exists to be missed.
_FILES = {
    "the API server's manifest": 0o600,
    "the controller manager's manifest": 0o600,
    "the scheduler's manifest": 0o600,
    "etcd's manifest": 0o600,
    "network plugins' files": 0o600,
    "etcd's folders": 0o700,
    "scheduler's credential": 0o600,
    "controller manager's credential": 0o600,
    "certificates and keys": 0o600,
    "certificates": 0o644,
    "keys": 0o600,
    "kubelet's service definition": 0o600,
    "kubelet's credential": 0o600,
    "authorities that the kubelet trusts": 0o644,
    "kubelet's configuration": 0o600,
}


def pod(name: str = "web", namespace: str = "app", **spec: Any) -> Manifest:
    """A pod with which nobody finds fault, but for what is given."""
    container = {
        "name": "main",
        "image": "haneul.local/web:v1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    whole = {"containers": [container], "securityContext": security, **spec}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": whole}


def container_with(**changes: Any) -> Manifest:
    """The pod above, whose container is changed."""
    found = pod()
    found["spec"]["containers"][0] |= changes
    return found


def security_with(**changes: Any) -> Manifest:
    """The pod above, whose container's security context is changed."""
    found = pod()
    found["spec"]["containers"][0]["securityContext"] |= changes
    return found


def namespace(name: str, level: str = "restricted") -> Manifest:
    """A namespace with a pod security level."""
    return {"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": level}}}


def binding(name: str, role: str, *subjects: Manifest) -> Manifest:
    """A binding for the whole cluster."""
    return {
        "metadata": {"name": name},
        "roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": list(subjects),
    }


def _policy() -> Manifest:
    return {"rules": [{"level": "None", "nonResourceURLs": ["/livez*"]}, {"level": "Metadata"}]}


def good(kind: Kind) -> Snapshot:
    """A snapshot without fault."""
    secret = {"name": "pki", "secret": {"secretName": "kube-scheduler", "defaultMode": 0o440}}
    masters = tuple(
        {"metadata": {"labels": {"dkos.haneul.dev/role": role}}, "spec": {"volumes": [secret]}}
        for role in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    )
    bootstrap = {"name": "bootstrap", "secret": {"secretName": "node-0", "defaultMode": 0o400}}
    files = {name: (FileSeen(f"/{name}", mode, "root", "root"),) for name, mode in _FILES.items()}
    files["etcd's folders"] = (FileSeen("/etcd", 0o700, "etcd", "etcd"),)
    credential = (FileSeen("/admin", 0o600, "root", "root"),)
    authentication = {**anonymous_access(HEALTH_PATHS), "jwt": [{"issuer": {"url": "https://issuer"}}]}
    names = ("app", "default", "kube-system")
    return Snapshot(
        kind,
        programs={
            "kube-apiserver": (dict(_API),),
            "kube-controller-manager": (dict(_MANAGER),),
            "kube-scheduler": ({"config": "/s", "bind-address": "127.0.0.1"},),
            "etcd": (dict(_ETCD),),
        },
        documents={
            "authentication": authentication,
            "audit-policy": _policy(),
            "scheduler": {"enableProfiling": False},
            "encryption-providers": [["kms", "identity"]],
            "authorities": {"cluster": "a", "etcd": "b"},
            "network": "cilium" if kind == "management" else "native",
            "kube-proxy": {},
            "kubelet-unit": "[Service]\nIPAddressDeny=any\n",
        },
        files=files | {"administrator's credentials": credential, "credentials of the group system:masters": ()},
        kubelets=(Kubelet("node-0", copy.deepcopy(_KUBELET)),),
        objects={
            "masters": masters,
            "machines": ({"metadata": {"name": "node-0-0"}, "spec": {"volumes": [bootstrap]}},),
            "namespaces": tuple(namespace(name) for name in names),
            "pods": (pod(),),
            "services": ({"metadata": {"name": "kubernetes", "namespace": "default"}},),
            "roles": (),
            "rolebindings": (),
            "clusterroles": (cluster_role("cluster-admin", [_everything()], {"kubernetes.io/bootstrapping": "yes"}),),
            "clusterrolebindings": (binding("cluster-admin", "cluster-admin", group("system:masters")),),
            "networkpolicies": tuple({"metadata": {"name": "all", "namespace": name}} for name in names),
            "tokens": (),
            "bootstrap-tokens": (),
        },
    )


def _everything() -> Manifest:
    return {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


def flags(program: str, **changes: str | None) -> Break:
    """Set flags of a program, underscores for dashes; None takes one away."""

    def broken(snapshot: Snapshot) -> Snapshot:
        (before,) = snapshot.programs[program]
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        after = {name: value for name, value in {**before, **named}.items() if value is not None}
        return replace(snapshot, programs={**snapshot.programs, program: (after,)})

    return broken


def mode(what: str, bits: int) -> Break:
    """Give files other permissions."""
    return lambda snapshot: replace(
        snapshot, files={**snapshot.files, what: tuple(replace(one, mode=bits) for one in snapshot.files[what])}
    )


def owner(what: str, user: str = "games") -> Break:
    """Give files to somebody else."""
    return lambda snapshot: replace(
        snapshot, files={**snapshot.files, what: tuple(replace(one, owner=user) for one in snapshot.files[what])}
    )


def there(what: str) -> Break:
    """Let files be there that should not."""
    seen = (FileSeen("/etc/kubernetes/super-admin.conf", 0o600, "root", "root"),)
    return lambda snapshot: replace(snapshot, files={**snapshot.files, what: seen})


def document(name: str, value: Any) -> Break:
    """Replace a document."""
    return lambda snapshot: replace(snapshot, documents={**snapshot.documents, name: value})


def kubelet(**changes: Any) -> Break:
    """Change fields of the kubelet's configuration; None takes one away."""

    def broken(snapshot: Snapshot) -> Snapshot:
        (one,) = snapshot.kubelets
        after = {name: value for name, value in {**one.configuration, **changes}.items() if value is not None}
        return replace(snapshot, kubelets=(replace(one, configuration=after),))

    return broken


def kubelet_flags(**changes: str) -> Break:
    """Start the kubelet with flags."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda snapshot: replace(snapshot, kubelets=tuple(replace(one, flags=named) for one in snapshot.kubelets))


def objects(plural: str, *manifests: Manifest) -> Break:
    """Replace all objects of a sort."""
    return lambda snapshot: replace(snapshot, objects={**snapshot.objects, plural: manifests})


def right(verb: str, api_group: str, resource: str, *, to: str = "somebody") -> Break:
    """Give a group a right in the whole cluster."""
    rule = {"apiGroups": [api_group], "resources": [resource], "verbs": [verb]}

    def broken(snapshot: Snapshot) -> Snapshot:
        roles = (*snapshot.objects["clusterroles"], cluster_role("extra", [rule], {}))
        bindings = (*snapshot.objects["clusterrolebindings"], binding("extra", "extra", group(to)))
        after = {**snapshot.objects, "clusterroles": roles, "clusterrolebindings": bindings}
        return replace(snapshot, objects=after)

    return broken


def mounted(program: str, bits: int) -> Break:
    """Let a master mount its Secret with other permissions."""

    def broken(snapshot: Snapshot) -> Snapshot:
        pods = copy.deepcopy(snapshot.objects["masters"])
        for one in pods:
            if one["metadata"]["labels"]["dkos.haneul.dev/role"] == program:
                one["spec"]["volumes"][0]["secret"]["defaultMode"] = bits
        return replace(snapshot, objects={**snapshot.objects, "masters": pods})

    return broken
