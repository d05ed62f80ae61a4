"""Cilium as the network of the management cluster: manifests as pure functions.

Native routing and BPF instead of iptables. Socket load balancing is kept to the host's own namespace: a sandbox node
is a pod whose pods have namespaces of their own, and their connections must be translated where they leave the node.
"""

from __future__ import annotations

from haneul.kernel.cilium_rights import agent_rules, operator_rules
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import account_with_rights
from haneul.management.settings import ManagementSettings

_NAMESPACE = "kube-system"


def configuration(settings: ManagementSettings) -> dict[str, str]:
    """Return the agent's options as the config map holds them, one file an option."""
    return {
        "agent-health-port": "9879",
        "auto-direct-node-routes": "true",
        "bpf-lb-sock-hostns-only": "true",
        "bpf-map-dynamic-size-ratio": "0.0025",
        "bpf-policy-map-max": "1024",
        "cluster-name": "haneul",
        "cluster-id": "0",
        "cgroup-root": "/run/haneul/cgroup2",
        "cni-exclusive": "true",
        "cni-chaining-mode": "none",
        "enable-bpf-masquerade": "true",
        "enable-endpoint-health-checking": "false",
        "enable-endpoint-routes": "false",
        "enable-envoy-config": "false",
        "enable-health-checking": "false",
        "enable-hubble": "false",
        "enable-ipv4": "true",
        "enable-ipv4-masquerade": "true",
        "enable-ipv6": "false",
        "enable-k8s-networkpolicy": "true",
        "enable-l7-proxy": "false",
        "enable-policy": "default",
        "enable-node-port": "true",
        "node-port-range": "30000,39999",
        "identity-allocation-mode": "crd",
        "identity-gc-interval": "15m0s",
        "ipam": "kubernetes",
        "ipv4-native-routing-cidr": settings.pods,
        "k8s-client-qps": "50",
        "k8s-client-burst": "100",
        "kube-proxy-replacement": "true",
        "operator-api-serve-addr": "127.0.0.1:9234",
        "operator-prometheus-serve-addr": "127.0.0.1:9963",
        "routing-mode": "native",
        "tofqdns-enable-dns-compression": "false",
        "unmanaged-pod-watcher-interval": "0",
        "write-cni-conf-when-ready": "/host/etc/cni/net.d/05-cilium.conflist",
    }


def manifests(settings: ManagementSettings, *, image: str) -> list[Manifest]:
    """Return everything that Cilium needs, in the order in which to apply it."""
    labels = {"app.kubernetes.io/managed-by": "haneul", "app.kubernetes.io/part-of": "cilium"}
    return [
        *account_with_rights("cilium", _NAMESPACE, agent_rules(), labels),
        *account_with_rights("cilium-operator", _NAMESPACE, operator_rules(), labels),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cilium-config", "namespace": _NAMESPACE, "labels": labels},
            "data": configuration(settings),
        },
        _agent(settings, image, labels),
        _operator(settings, image, labels),
    ]


def _api_environment(settings: ManagementSettings) -> list[Manifest]:
    """Without a service proxy yet, Cilium reaches the API server at the host's address."""
    return [
        {"name": "KUBERNETES_SERVICE_HOST", "value": settings.address},
        {"name": "KUBERNETES_SERVICE_PORT", "value": str(settings.api_port)},
        {"name": "K8S_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "CILIUM_K8S_NAMESPACE", "value": _NAMESPACE},
    ]


def _agent(settings: ManagementSettings, image: str, labels: dict[str, str]) -> Manifest:
    selector = {"k8s-app": "cilium"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "cilium", "namespace": _NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {**labels, **selector}},
                "spec": {
                    "serviceAccountName": "cilium",
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 1,
                    "initContainers": [_install_plugin(image), _mount_cgroup(image)],
                    "containers": [_agent_container(settings, image)],
                    "volumes": _agent_volumes(settings),
                },
            },
        },
    }


def _install_plugin(image: str) -> Manifest:
    return {
        "name": "install-cni",
        "image": image,
        "imagePullPolicy": "Never",
        "command": [
            "sh",
            "-c",
            "cp /usr/bin/cilium-cni /host/opt/cni/bin/.cilium-cni && mv /host/opt/cni/bin/.cilium-cni "
            "/host/opt/cni/bin/cilium-cni",
        ],
        "volumeMounts": [{"name": "cni-bin", "mountPath": "/host/opt/cni/bin"}],
    }


def _mount_cgroup(image: str) -> Manifest:
    """Socket programs attach to the root of the cgroup v2 hierarchy, wherever the host mounts it."""
    return {
        "name": "mount-cgroup",
        "image": image,
        "imagePullPolicy": "Never",
        "command": [
            "sh",
            "-c",
            "mkdir -p /run/haneul/cgroup2 && { mountpoint -q /run/haneul/cgroup2 || "
            "mount -t cgroup2 none /run/haneul/cgroup2; }",
        ],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "haneul-run", "mountPath": "/run/haneul", "mountPropagation": "Bidirectional"}],
    }


def _agent_container(settings: ManagementSettings, image: str) -> Manifest:
    probe = {"httpGet": {"host": "127.0.0.1", "path": "/healthz", "port": 9879, "httpHeaders": [_BRIEF]}}
    return {
        "name": "cilium-agent",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["cilium-agent", "--config-dir=/tmp/cilium/config-map"],
        "env": [*_api_environment(settings), {"name": "GOMEMLIMIT", "value": "200MiB"}],
        "securityContext": {"privileged": True},
        "startupProbe": {**probe, "failureThreshold": 120, "periodSeconds": 1},
        "livenessProbe": {**probe, "failureThreshold": 10, "periodSeconds": 30, "timeoutSeconds": 5},
        "readinessProbe": {**probe, "failureThreshold": 3, "periodSeconds": 10, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/tmp/cilium/config-map", "readOnly": True},  # noqa: S108 - upstream's place
            {"name": "state", "mountPath": "/var/run/cilium"},
            {"name": "bpf", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"},
            {"name": "haneul-run", "mountPath": "/run/haneul", "mountPropagation": "HostToContainer"},
            {"name": "cni-conf", "mountPath": "/host/etc/cni/net.d"},
            {"name": "netns", "mountPath": "/var/run/netns", "mountPropagation": "HostToContainer"},
        ],
    }


_BRIEF = {"name": "brief", "value": "true"}


def _agent_volumes(settings: ManagementSettings) -> list[Manifest]:
    def host(name: str, path: str) -> Manifest:
        return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}

    return [
        {"name": "config", "configMap": {"name": "cilium-config"}},
        host("state", "/var/run/cilium"),
        host("bpf", "/sys/fs/bpf"),
        host("haneul-run", "/run/haneul"),
        host("cni-bin", f"{settings.state}/cni/bin"),
        host("cni-conf", f"{settings.state}/cni/net.d"),
        host("netns", "/var/run/netns"),
    ]


def _operator(settings: ManagementSettings, image: str, labels: dict[str, str]) -> Manifest:
    selector = {"k8s-app": "cilium-operator"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "cilium-operator", "namespace": _NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": {**labels, **selector}},
                "spec": {
                    "serviceAccountName": "cilium-operator",
                    "hostNetwork": True,
                    "priorityClassName": "system-cluster-critical",
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 1,
                    "containers": [
                        {
                            "name": "cilium-operator",
                            "image": image,
                            "imagePullPolicy": "Never",
                            "command": ["cilium-operator", "--config-dir=/tmp/cilium/config-map"],
                            "env": [*_api_environment(settings), {"name": "GOMEMLIMIT", "value": "100MiB"}],
                            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
                            "volumeMounts": [
                                {
                                    "name": "config",
                                    "mountPath": "/tmp/cilium/config-map",  # noqa: S108 - upstream's place
                                    "readOnly": True,
                                }
                            ],
                        }
                    ],
                    "volumes": [{"name": "config", "configMap": {"name": "cilium-config"}}],
                },
            },
        },
    }
