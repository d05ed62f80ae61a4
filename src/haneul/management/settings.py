"""What an installation is made with: folders, ranges, ports. Passed in from the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path


@dataclass(frozen=True)
class ManagementSettings:
    """One host of the management cluster. ``address`` is the host's own, reachable by users and other hosts."""

    address: str
    host_name: str
    state: Path = Path("/var/lib/haneul")
    runtime: Path = Path("/run/haneul")
    logs: Path = Path("/var/log/haneul")
    pods: str = "10.192.0.0/16"
    services: str = "10.193.0.0/16"
    # Networks that the host is in or has routes to, with their interfaces.
    host_networks: tuple[tuple[str, str], ...] = ()
    api_port: int = 6443
    # Where the platform itself runs, in contrast to what it runs for tenants.
    namespaces: tuple[str, ...] = ("kube-system", "haneul-system")
    # Set where runc may not lower a process's badness for the out-of-memory killer.
    restrict_oom_score: bool = False
    systemd: bool = False
    # Whether tenants' API servers trust the platform's issuer, which they must reach at ``address``.
    clusters_trust_issuer: bool = False
    # Below which name clusters have theirs, where the zones are kept, and who is asked for all other names. Pods ask at
    # ``address``, port 53.
    zone: str = "haneul.internal"
    zones_port: int = 5300
    second_zones_port: int = 5301
    zones_api_port: int = 8081
    resolvers: tuple[str, ...] = ()
    # Where the proxies of clusters' ingress have their addresses, all of which are this host's.
    ingress: str = "10.198.0.0/20"
    # Where the sign-on gate answers proxies, on loopback.
    gate_port: int = 7480
    # Networks of the addresses that Services get from the platform's load balancer.
    balancer_networks: tuple[str, ...] = ()
    # Whether the image hub runs here, and at which port of ``address``.
    hub: bool = True
    hub_port: int = 5443
    # Whether the object store runs here, and the hub has its content there.
    kage: bool = False

    @property
    def admin_kubeconfig(self) -> Path:
        """Return the root-only kubeconfig of the management cluster."""
        return self.state / "admin.kubeconfig"

    @property
    def kubeadm_file(self) -> Path:
        """Return the file of what kubeadm is told."""
        return self.state / "kubeadm.yaml"

    @property
    def clusters(self) -> Path:
        """Return the folder of the tenants' data on this host."""
        return self.state / "clusters"

    @property
    def encryption(self) -> Path:
        """Return the API server's encryption configuration, which holds the key of all Secrets at rest."""
        return self.state / "encryption.yaml"

    @property
    def authentication(self) -> Path:
        """Return the API server's file of what it answers to who is not known."""
        return self.state / "authentication.yaml"

    @property
    def admission(self) -> Path:
        """Return the API server's file of its admission plugins' settings."""
        return self.state / "admission.yaml"

    @property
    def audit_policy(self) -> Path:
        """Return the API server's file of what goes into its audit log."""
        return self.state / "audit.yaml"

    @property
    def audit_log(self) -> Path:
        """Return the folder of the API server's audit log."""
        return self.logs / "audit"

    @property
    def containerd_socket(self) -> Path:
        """Return the socket on which the container runtime serves."""
        return self.runtime / "containerd" / "containerd.sock"

    @property
    def hub_name(self) -> str:
        """Return the image hub's name, which people and pods write before the names of images."""
        return f"hub.{self.zone}"

    @property
    def sign_on_host(self) -> str:
        """Return the host at which people sign on to apps."""
        return f"auth.{self.zone}"

    @property
    def sign_on_address(self) -> str:
        """Return the address of that host: the last one of ingress's range, which no cluster gets."""
        return str(IPv4Network(self.ingress)[-2])

    @property
    def zones(self) -> tuple[str, ...]:
        """Return the zones that the DNS server keeps: clusters' names, and those of the addresses that they are given.

        All ranges that clusters get without asking lie in this one.
        """
        return (self.zone, "10.in-addr.arpa")
