"""What a node is told: the configuration files of its kubelet, container runtime and network. Pure rendering.

The files are the same for every provider; how they reach the machine is the provider's business. The node image's
``start-node`` fills in what only the machine knows (what it must reserve).
"""

from __future__ import annotations

import json
from typing import Any, Final

from haneul.dkos.credentials import NODE_AUTHORITY_FILE
from haneul.dkos.image_hub import ImageHub, hub_files
from haneul.dkos.model import Cluster, LoadBalancing, NetworkPlugin, NodePool, NodeProviderName
from haneul.dkos.naming import Naming
from haneul.kernel.containerd import DISABLED_PLUGINS, SPARING_STATISTICS
from haneul.kernel.documents import to_yaml
from haneul.kernel.kube_manifests import STRONG_CIPHERS

PROVIDER_LABEL: Final = "dkos.haneul.dev/provider"
POOL_LABEL: Final = "dkos.haneul.dev/pool"


def node_files(
    cluster: Cluster,
    pool: NodePool,
    node: str,
    *,
    pause_image: str,
    naming: Naming | None = None,
    hub: ImageHub | None = None,
) -> dict[str, str]:
    """Return the configuration files of one node by name.

    Without a ``naming``, pods ask the machine's own resolvers, which know no name of the cluster. With a ``hub``, it
    pulls images from there.
    """
    native = cluster.spec.network.plugin is NetworkPlugin.NATIVE
    # Who wraps every packet keeps no routes; of the two, Cilium does that by itself.
    flannel = ["flanneld"] if native or not cluster.spec.wraps_all else []
    services = ["containerd", "kubelet", *flannel, "kube-proxy" if native else "cilium-agent"]
    environment = {
        "NODE_NAME": node,
        "NODE_LABELS": f"{POOL_LABEL}={pool.name},{PROVIDER_LABEL}={pool.provider}",
        "NODE_MEMORY_MIB": str(pool.memory_mib),
        "NODE_MILLICORES": str(round(pool.cpu * 1000)),
        "NODE_SERVICES": '"' + " ".join(services) + '"',
        "NODE_MASQUERADE": str(native).lower(),
    }
    if hub is not None:
        environment["HUB_HOSTS"] = '"' + " ".join(hub.hosts) + '"'
    network = {"cni-template.json": _cni_template(cluster)} if native else {}
    network |= {} if native else {f"cilium.{name}": value for name, value in _cilium(cluster).items()}
    return {
        "node.env": "".join(f"{name}={value}\n" for name, value in environment.items()),
        "containerd.toml": _containerd(pause_image, native=native, hub=hub is not None),
        "kubelet.yaml": to_yaml(_kubelet(cluster, pool, naming)),
        "kube-proxy.yaml": to_yaml(_kube_proxy(cluster)),
        "flannel.json": _flannel(cluster, pool),
        **network,
        **(hub_files(hub, cluster.spec.settings.feature_gates) if hub is not None else {}),
    }


def _flannel(cluster: Cluster, pool: NodePool) -> str:
    """Return flannel's configuration. Machines in one subnet reach each other's pods without a tunnel, if they may."""
    backend: dict[str, Any] = {"Type": "vxlan", "Port": 8472, "VNI": 1}
    if pool.provider is NodeProviderName.SSH and not cluster.spec.wraps_all:
        backend["DirectRouting"] = True
    return json.dumps({"Network": str(cluster.spec.network.pods), "EnableNFTables": True, "Backend": backend}, indent=2)


def _kubelet(cluster: Cluster, pool: NodePool, naming: Naming | None) -> dict[str, Any]:
    settings = cluster.spec.settings
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": NODE_AUTHORITY_FILE},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "rotateCertificates": True,
        # The serving certificate is asked for too, and signed by DKOS for the node's announced address only.
        "serverTLSBootstrap": True,
        "nodeStatusUpdateFrequency": f"{settings.node_status_update_seconds}s",
        # A kubelet renews its lease, by which it is known to live, after a quarter of the lease's duration.
        "nodeLeaseDurationSeconds": 4 * settings.node_status_update_seconds,
        "nodeStatusReportFrequency": "1m",
        "maxPods": settings.max_pods_per_node,
        "serializeImagePulls": False,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "systemReserved": {"memory": "RESERVED_MEMORY", "cpu": "RESERVED_CPU"},
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "3%", "imagefs.available": "3%"},
        "imageGCHighThresholdPercent": 95,
        "imageGCLowThresholdPercent": 90,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "shutdownGracePeriod": "0s",
        "readOnlyPort": 0,
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": list(STRONG_CIPHERS),
        # No pod takes the process ids of all others; what names no filter of system calls gets the runtime's.
        "podPidsLimit": 4096,
        # What helps who debugs a node also shows its own files and memory to whoever may call it.
        "enableSystemLogHandler": False,
        "enableProfilingHandler": False,
        "enableDebugFlagsHandler": False,
        "seccompDefault": True,
    }
    # A machine's questions come from its own address, which the server may not know, through a firewall that may not
    # let them pass: its pods go on asking whom the machine asks.
    if naming is not None and pool.provider is not NodeProviderName.SSH:
        configuration["clusterDNS"] = [naming.address]
        configuration["clusterDomain"] = naming.domain(cluster)
    if pool.provider is NodeProviderName.SSH:
        # The machine's packet tables may be somebody else's; kube-proxy has tables of its own and needs no chain here.
        configuration["makeIPTablesUtilChains"] = False
    if settings.feature_gates:
        configuration["featureGates"] = settings.feature_gates
    return configuration


def _kube_proxy(cluster: Cluster) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": str(cluster.spec.network.pods),
        "clientConnection": {"kubeconfig": "/var/lib/kubelet/kubeconfig", "qps": 50, "burst": 100},
        # Connection tracking is the machine's to size, not one node's of many.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "200ms"},
    }


def _containerd(pause_image: str, *, native: bool, hub: bool) -> str:
    # Left out it is a list of two folders, which what pulls takes for the name of one.
    registries = (
        '[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/etc/containerd/certs.d"\n' if hub else ""
    )
    template = 'conf_template = "/run/haneul/cni-template.json"' if native else ""
    return f"""version = 3
{DISABLED_PLUGINS}

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause_image}"
{registries}
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
{SPARING_STATISTICS}
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
{template}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _cni_template(cluster: Cluster) -> str:
    """Return the template from which containerd writes the network configuration once the node has its pod range.

    Each pod is joined to the node by a pair of its own (CNI plugin ``ptp``): no bridge, plain routes. The node puts
    in the MTU of its way to other nodes.
    """
    configuration = {
        "cniVersion": "1.0.0",
        "name": "haneul",
        "plugins": [
            {
                "type": "ptp",
                "mtu": "POD_MTU",
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam",
                    "ranges": [[{"subnet": "{{.PodCIDR}}"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
        ],
    }
    return json.dumps(configuration, indent=2).replace('"POD_MTU"', "POD_MTU")


def _cilium(cluster: Cluster) -> dict[str, str]:
    """Return the options of the cluster's own Cilium agents, one file an option.

    Native routing over the routes that flannel keeps, or a VXLAN of Cilium's own; BPF maps instead of kube-proxy.
    Several agents share one kernel with the management cluster's: each has its own BPF file system, and each translates
    sockets of its own host namespace only.
    """
    network = cluster.spec.network
    routing = {"ipv4-native-routing-cidr": str(network.pods), "routing-mode": "native"}
    if cluster.spec.wraps_all:
        routing = {"routing-mode": "tunnel", "tunnel-protocol": "vxlan", "tunnel-port": "8472"}
    balancing = {"bpf-lb-mode": "dsr"} if network.load_balancing is LoadBalancing.DSR else {}
    options = {
        "agent-health-port": "9879",
        "auto-direct-node-routes": "false",
        "bpf-lb-sock-hostns-only": "true",
        "bpf-map-dynamic-size-ratio": "0.0025",
        "bpf-policy-map-max": "1024",
        "cgroup-root": "/run/haneul/cgroup2",
        "cluster-id": "0",
        "cluster-name": "default",
        "cni-exclusive": "true",
        "devices": "eth0",
        "enable-bpf-masquerade": "true",
        "enable-dynamic-config": "false",
        "enable-endpoint-health-checking": "false",
        "enable-envoy-config": "false",
        "enable-health-checking": "false",
        "enable-hubble": "false",
        "enable-ipv4": "true",
        "enable-ipv4-masquerade": "true",
        "enable-ipv6": "false",
        "enable-l7-proxy": "false",
        "identity-allocation-mode": "crd",
        "ipam": "kubernetes",
        "k8s-kubeconfig-path": "/var/lib/kubelet/kubeconfig",
        "kube-proxy-replacement": "true",
        "operator-api-serve-addr": "127.0.0.1:9234",
        "write-cni-conf-when-ready": "/etc/cni/net.d/05-cilium.conflist",
    }
    return dict(sorted((options | routing | balancing).items()))
