"""containerd and the kubelet of the management cluster: their configuration, as pure functions of the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from haneul.host.services import HostService, made_from
from haneul.kernel.containerd import DISABLED_PLUGINS, SPARING_STATISTICS
from haneul.kernel.kube_manifests import STRONG_CIPHERS
from haneul.management.node_runtime import HANDLER, specification_file
from haneul.management.settings import ManagementSettings

KUBELET_CONFIGURATION = Path("/var/lib/kubelet/config.yaml")


def containerd_configuration(settings: ManagementSettings, *, pause_image: str) -> str:
    """Return containerd's configuration, version 3 (containerd documentation "cri/config")."""
    return f"""version = 3
root = "{settings.state}/containerd"
state = "{settings.runtime}/containerd"
{DISABLED_PLUGINS}

[grpc]
address = "{settings.containerd_socket}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause_image}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = {str(settings.restrict_oom_score).lower()}
{SPARING_STATISTICS}
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{settings.state}/cni/bin"]
conf_dir = "{settings.state}/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = {str(settings.systemd).lower()}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{HANDLER}]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{specification_file(settings)}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{HANDLER}.options]
SystemdCgroup = {str(settings.systemd).lower()}
"""


def kubelet_configuration(settings: ManagementSettings) -> dict[str, Any]:
    """Return the kubelet's configuration (kubelet.config.k8s.io/v1beta1)."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd" if settings.systemd else "cgroupfs",
        # Hosts with the older cgroup hierarchy are still many; the kubelet refuses them unless told.
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "staticPodPath": "/etc/kubernetes/manifests",
        "clusterDNS": [],
        "maxPods": 600,
        # No pod, and a sandbox node is one, may take the host's process ids from all others.
        "podPidsLimit": 16384,
        # What names no filter of system calls gets the runtime's.
        "seccompDefault": True,
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": list(STRONG_CIPHERS),
        "serializeImagePulls": False,
        "rotateCertificates": True,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "registerNode": True,
        "nodeStatusUpdateFrequency": "10s",
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "3%", "imagefs.available": "3%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # After an outage, masters' parts that gave up waiting for each other are started again within seconds; the
        # kubelet's own bound is five minutes, in which a cluster would be without its controllers.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "featureGates": {"KubeletEnsureSecretPulledImages": False},
    }


def containerd_service(
    settings: ManagementSettings, *, program: Path, search_path: str, configuration: str
) -> HostService:
    """Return the container runtime as a host service; containers outlive its restarts."""
    return HostService(
        "containerd",
        (str(program), "--config", str(settings.state / "containerd.toml")),
        (("PATH", search_path), made_from(configuration)),
        keep_children=True,
    )


def kubelet_service(settings: ManagementSettings, *, program: Path, search_path: str) -> HostService:
    """Return the kubelet as a host service."""
    return HostService(
        "kubelet",
        (
            str(program),
            f"--config={KUBELET_CONFIGURATION}",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            f"--hostname-override={settings.host_name}",
            f"--node-ip={settings.address}",
        ),
        (("PATH", search_path), made_from(json.dumps(kubelet_configuration(settings), sort_keys=True))),
        keep_children=True,
    )
