"""Items that our own clusters fail for a reason: what cannot be mended, or would cost more than it gives.

An item that fails and is not here is a fault. Nothing here makes an item pass: it is shown as what it is, with its
reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from haneul.compliance.snapshot import Kind

_IMAGES: Final = (
    "it keeps tenants of one cluster from each other's images; here each project has clusters of its own, and nodes "
    "start pods from images that no registry has"
)
_PROBED: Final = (
    "the kubelet of the host probes it at the pod's address, so it listens there; the network namespace is the pod's "
    "own, the network policies of its namespace let nobody in, and it answers health checks only without a certificate"
)
_NAMES: Final = (
    "the platform names nodes, not their hosts: certificates are signed for exactly these names and addresses, which "
    "is what the item is about"
)

ACCEPTED: Final[Mapping[tuple[Kind, str], str]] = {
    ("management", "1.1.12"): "kubeadm runs etcd as root; the folders are for root alone, and on tenants' side for the "
    "one user of all masters, each of which mounts its own folder only",
    (
        "management",
        "1.2.5",
    ): "the kubelets of hosts serve certificates that they signed themselves, as kubeadm has them; "
    "the API server reaches them on the hosts' own network",
    (
        "management",
        "1.2.11",
    ): "no image of the management cluster comes from a registry: all were built on the host, so "
    "there is nothing to pull",
    (
        "management",
        "1.2.30",
    ): "the operator's framework reads its token when it starts; it would lose the API every hour",
    ("management", "4.1.1"): "systemd shows every unit to everybody, whatever the file's mode, and warns of units that "
    "are not readable; the unit names files and holds no secret",
    ("management", "4.2.7"): _NAMES,
    ("management", "4.2.9"): "kubeadm's kubelets sign their own serving certificates; see 1.2.5",
    (
        "management",
        "4.2.15",
    ): "pods, hosts and probes reach the kubelet from all of the cluster's addresses; it answers "
    "nobody without a certificate or a token",
    ("tenant", "1.2.11"): _IMAGES,
    (
        "tenant",
        "1.2.19",
    ): "audit files lie in a volume of 64 MiB, so that two hundred clusters fit on a host: eleven files "
    "of five megabytes",
    ("tenant", "1.3.7"): _PROBED,
    ("tenant", "1.4.2"): _PROBED,
    (
        "tenant",
        "3.1.1",
    ): "people's certificates end after an hour and are made for their role alone; where clusters trust "
    "the platform's issuer, people get tokens of half a minute instead",
    ("tenant", "4.2.6"): "kube-proxy and flannel have nftables of their own; on somebody else's machine nothing may be "
    "added to its packet chains",
    ("tenant", "4.2.7"): _NAMES,
    ("tenant", "5.3.1"): "the network 'native' has no policies, which makes it fast to start; whoever needs them makes "
    "the cluster with '--network cilium'",
}
