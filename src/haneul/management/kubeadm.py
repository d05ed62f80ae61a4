"""What kubeadm is told, as pure functions. kubeadm makes the management cluster and is the way to add hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from haneul.kernel.documents import to_yaml
from haneul.kernel.kube_manifests import STRONG_CIPHERS
from haneul.management.runtime import kubelet_configuration
from haneul.management.settings import ManagementSettings

#: Annotation of static pods: a digest of the certificate files that they read when they start.
CERTIFICATES_ANNOTATION: Final = "haneul.dev/certificates"
#: The phases before the kubelet runs, each of which may be repeated; an interrupted `up` starts over with the first.
#: First what the static pods read, then their manifests.
PHASES_OF_FILES: Final[tuple[tuple[str, ...], ...]] = (("certs", "all"), ("kubeconfig", "all"))
PHASES_BEFORE_KUBELET: Final[tuple[tuple[str, ...], ...]] = (
    ("etcd", "local"),
    ("control-plane", "all"),
    ("kubelet-start",),
)
#: The phases that need an API server that answers.
PHASES_AFTER_KUBELET: Final[tuple[tuple[str, ...], ...]] = (
    ("upload-config", "all"),
    ("mark-control-plane",),
    ("bootstrap-token",),
)


def _arguments(**values: str) -> list[dict[str, str]]:
    return [{"name": name.replace("_", "-"), "value": value} for name, value in values.items()]


def _mounted(name: str, path: Path, *, read_only: bool = True, kind: str = "File") -> dict[str, Any]:
    """Return a path of the host that a static pod has at the same place."""
    return {"name": name, "hostPath": str(path), "mountPath": str(path), "readOnly": read_only, "pathType": kind}


def configuration(settings: ManagementSettings, *, kubernetes: str, etcd: str) -> str:
    """Return kubeadm's configuration documents (kubeadm.k8s.io/v1beta4) for the first host."""
    init: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": settings.address, "bindPort": settings.api_port},
        "nodeRegistration": {
            "name": settings.host_name,
            "criSocket": f"unix://{settings.containerd_socket}",
            "imagePullPolicy": "Never",
            # Hosts of a small installation carry masters and platform alike.
            "taints": [],
        },
        "timeouts": {"controlPlaneComponentHealthCheck": "2m0s"},
        "patches": {"directory": str(settings.state / "kubeadm-patches")},
    }
    cluster: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": "haneul",
        "kubernetesVersion": f"v{kubernetes}",
        "imageRepository": "haneul.local",
        "encryptionAlgorithm": "ECDSA-P256",
        "controlPlaneEndpoint": f"{settings.address}:{settings.api_port}",
        "networking": {"podSubnet": settings.pods, "serviceSubnet": settings.services, "dnsDomain": "haneul.internal"},
        "etcd": {"local": {"dataDir": str(settings.state / "etcd"), "imageTag": f"v{etcd}"}},
        "apiServer": {
            "extraArgs": _arguments(
                profiling="false",
                authentication_config=str(settings.authentication),
                enable_admission_plugins="NodeRestriction,DenyServiceExternalIPs,EventRateLimit",
                admission_control_config_file=str(settings.admission),
                tls_cipher_suites=",".join(STRONG_CIPHERS),
                audit_policy_file=str(settings.audit_policy),
                audit_log_path=str(settings.audit_log / "audit.log"),
                audit_log_maxage="30",
                audit_log_maxbackup="10",
                audit_log_maxsize="100",
                service_node_port_range="30000-39999",
                max_requests_inflight="800",
                max_mutating_requests_inflight="400",
                encryption_provider_config=str(settings.encryption),
            ),
            "extraVolumes": [
                *(
                    _mounted(path.stem, path)
                    for path in (
                        settings.encryption,
                        settings.authentication,
                        settings.admission,
                        settings.audit_policy,
                    )
                ),
                _mounted("audit-log", settings.audit_log, read_only=False, kind="DirectoryOrCreate"),
            ],
        },
        # A tenant is a handful of pods and ten may be asked for at once: the defaults of 20 requests a second and five
        # workers, meant for large shared clusters with patience, would be most of the wait.
        "controllerManager": {
            "extraArgs": _arguments(
                profiling="false",
                kube_api_qps="300",
                kube_api_burst="600",
                concurrent_deployment_syncs="20",
                concurrent_replicaset_syncs="20",
                concurrent_statefulset_syncs="20",
                concurrent_namespace_syncs="20",
                # A claim that is seen a moment before its volume is looked at again only after this time, and with it
                # a tenant's etcd waits: 15 seconds by default.
                pvclaimbinder_sync_period="1s",
                terminated_pod_gc_threshold="1000",
                node_cidr_mask_size="22",
            )
        },
        "scheduler": {"extraArgs": _arguments(profiling="false", kube_api_qps="300", kube_api_burst="600")},
    }
    return to_yaml(init, cluster, kubelet_configuration(settings))


def patches(certificates: Mapping[str, str]) -> dict[str, str]:
    """Return kubeadm's patch files by name: the user that kubeadm counts on, requests that fit a small host.

    The requests are also the weights by which the processor is shared: what all tenants wait for must come before
    twenty API servers that all start at once, and still leave them their own requests.

    ``certificates`` are digests by static pod, so that one whose certificates changed is started anew.
    """
    requests = {
        "kube-apiserver": ("300m", "256Mi"),
        "kube-controller-manager": ("100m", "96Mi"),
        "kube-scheduler": ("100m", "64Mi"),
        "etcd": ("200m", "96Mi"),
    }
    return {
        f"{name}.yaml": to_yaml(_patch(name, *pair, certificates[name]), sort_keys=True)
        for name, pair in requests.items()
    }


def _patch(name: str, cpu: str, memory: str, certificates: str) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {CERTIFICATES_ANNOTATION: certificates}},
        "spec": {
            # The images default to another user; the files that kubeadm makes belong to root.
            "securityContext": {"runAsUser": 0, "runAsGroup": 0},
            "containers": [{"name": name, "resources": {"requests": {"cpu": cpu, "memory": memory}}}],
        },
    }
