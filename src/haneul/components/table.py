"""The one table of upstream components: names, versions, recipes, licences.

A Go component is a small module of ours in ``components/<name>`` whose ``go.mod`` pins the upstream release and whose
``go.sum`` pins every byte of it and of its dependencies. An image is a folder ``components/images/<name>`` with a
Containerfile, and rows here that say which programs and Debian packages go in. A Python component has a
``requirements.lock`` instead. Versions stand here and in ``go.mod`` or the lock; a unit test holds the two together.

Two minors of Kubernetes are built. The newer one is also the management cluster's; of the older one there is what a
tenant's cluster runs, and nothing else. Its programs have the same names, so they are told apart by their component:
``kubernetes-1.36/kubelet``. Its images are variants: the same Containerfile and the same name under another tag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Program:
    """One executable: the Go package that it is built from and how that differs from its component's recipe."""

    name: str
    package: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class GoComponent:
    """An upstream project built from Go modules. ``estimate`` is seconds on two cores with cold caches.

    What is ``on_demand`` is no part of the platform: it is built when it is named, as benchmarks do with peers and
    tests with clients.
    """

    name: str
    version: str
    module: str
    licence: str
    programs: tuple[Program, ...]
    estimate: float
    ldflags: tuple[str, ...] = ()
    cgo: bool = False
    # Not part of what a row says of itself: it says when it is built, and nothing of what comes out.
    on_demand: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class PythonComponent:
    """An upstream project of Python packages, with an environment of its own.

    ``programs`` are files of ours beside its ``requirements.lock`` that run in it. ``estimate`` is seconds. It is
    ``on_demand`` as a Go component is.
    """

    name: str
    version: str
    package: str
    licence: str
    programs: tuple[str, ...]
    estimate: float
    on_demand: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Image:
    """An OCI image made here.

    ``programs`` are copied into the build context as ``bin/<program>``, without their component's name.
    ``packages`` are Debian packages: when there are any, the context holds ``rootfs.tar`` with a minimal Debian
    that has them. ``host_files`` are files of Debian packages of this machine, such as a static busybox.
    ``project`` asks for this project's own wheel and its locked requirements. ``images`` are archives that the
    image carries along. ``module_folders`` are folders of the module cache, as ``(module, folder, name in the
    context)``. A ``variant_of`` another image has that one's Containerfile and name, and another tag.
    """

    name: str
    version: str
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    host_files: tuple[str, ...] = ()
    module_folders: tuple[tuple[str, str, str], ...] = ()
    images: tuple[str, ...] = ()
    project: bool = False
    estimate: float = 5.0
    # Not part of what a row says of itself: it is a name of what is built, and no part of it.
    variant_of: str = field(default="", repr=False)

    @property
    def repository(self) -> str:
        """Return the image's name without its tag, which is also its folder's."""
        return self.variant_of or self.name


#: The releases of Kubernetes, one a minor.
KUBERNETES: Final = "1.37.2"
KUBERNETES_BEFORE: Final = "1.36.5"
_BEFORE: Final = "kubernetes-1.36"
_KUBERNETES_VERSION: Final = "k8s.io/component-base/version"


def _kubernetes_flags(version: str) -> tuple[str, ...]:
    """Return what the linker tells the programs of their version."""
    major, minor, _ = version.split(".")
    return (
        f"-X {_KUBERNETES_VERSION}.gitVersion=v{version}",
        f"-X {_KUBERNETES_VERSION}.gitMajor={major}",
        f"-X {_KUBERNETES_VERSION}.gitMinor={minor}",
        f"-X {_KUBERNETES_VERSION}.gitTreeState=clean",
    )


#: What masters run of Kubernetes, in every minor that is built.
_MASTERS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def _of_kubernetes(*names: str) -> tuple[Program, ...]:
    return tuple(Program(name, f"k8s.io/kubernetes/cmd/{name}") for name in names)


COMPONENTS: Final[tuple[GoComponent, ...]] = (
    GoComponent(
        "etcd",
        "3.7.3",
        "go.etcd.io/etcd/server/v3",
        "Apache-2.0",
        (
            Program("etcd", "./cmd/etcd"),
            Program("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
            Program("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
            Program("etcd-replay", "./cmd/etcd-replay"),
        ),
        estimate=35,
    ),
    GoComponent("pause", "1.0.0", "", "Apache-2.0", (Program("pause", "."),), estimate=3),
    GoComponent("await-connection", "1.0.0", "", "Apache-2.0", (Program("await-connection", "."),), estimate=3),
    GoComponent(
        "runc",
        "1.5.2",
        "github.com/opencontainers/runc",
        "Apache-2.0",
        (Program("runc", "github.com/opencontainers/runc", ("seccomp",)),),
        estimate=12,
        ldflags=("-X main.version=1.5.2",),
        cgo=True,
    ),
    GoComponent(
        "containerd",
        "2.4.2",
        "github.com/containerd/containerd/v2",
        "Apache-2.0",
        (
            Program("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            Program("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            Program("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ),
        estimate=60,
        ldflags=("-X github.com/containerd/containerd/v2/version.Version=v2.4.2",),
    ),
    GoComponent(
        "cni-plugins",
        "1.9.1",
        "github.com/containernetworking/plugins",
        "Apache-2.0",
        (
            Program("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
            Program("ptp", "github.com/containernetworking/plugins/plugins/main/ptp"),
            Program("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
            Program("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
            Program("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
        ),
        estimate=8,
    ),
    GoComponent(
        "kubernetes",
        KUBERNETES,
        "k8s.io/kubernetes",
        "Apache-2.0",
        (
            *_of_kubernetes(*_MASTERS, "kubelet", "kubeadm", "kubectl", "kube-proxy"),
            Program("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
        ),
        estimate=420,
        ldflags=_kubernetes_flags(KUBERNETES),
    ),
    GoComponent(
        "cilium",
        "1.19.1",
        "github.com/cilium/cilium",
        "Apache-2.0",
        (
            Program("cilium-agent", "github.com/cilium/cilium/daemon"),
            Program("cilium-operator", "github.com/cilium/cilium/operator", ("ipam_provider_operator",)),
            Program("cilium-cni", "github.com/cilium/cilium/plugins/cilium-cni"),
            Program("cilium-dbg", "github.com/cilium/cilium/cilium-dbg"),
        ),
        estimate=270,
        ldflags=("-X github.com/cilium/cilium/pkg/version.ciliumVersion=1.19.1",),
    ),
    GoComponent(
        "flannel",
        "0.28.10",
        "github.com/flannel-io/flannel",
        "Apache-2.0",
        (Program("flanneld", "./cmd/flanneld"),),
        estimate=40,
    ),
    GoComponent(
        _BEFORE,
        KUBERNETES_BEFORE,
        "k8s.io/kubernetes",
        "Apache-2.0",
        _of_kubernetes(*_MASTERS, "kubelet", "kube-proxy"),
        estimate=300,
        ldflags=_kubernetes_flags(KUBERNETES_BEFORE),
    ),
    # The peer of 'haneul bench d2hub'.
    GoComponent(
        "distribution",
        "3.1.2",
        "github.com/distribution/distribution/v3",
        "Apache-2.0",
        (Program("registry", "github.com/distribution/distribution/v3/cmd/registry"),),
        estimate=60,
        ldflags=("-X github.com/distribution/distribution/v3/version.version=v3.1.2",),
        on_demand=True,
    ),
    # The peer of 'haneul bench dns'.
    GoComponent(
        "coredns",
        "1.15.0",
        "github.com/coredns/coredns",
        "Apache-2.0",
        (Program("coredns", "github.com/coredns/coredns"),),
        estimate=300,
        on_demand=True,
    ),
    # Clients that people use registries with, for tests.
    GoComponent(
        "crane",
        "0.22.1",
        "github.com/google/go-containerregistry",
        "Apache-2.0",
        (Program("crane", "github.com/google/go-containerregistry/cmd/crane"),),
        estimate=15,
        on_demand=True,
    ),
    GoComponent(
        "oras",
        "1.3.4",
        "oras.land/oras",
        "Apache-2.0",
        (Program("oras", "oras.land/oras/cmd/oras"),),
        estimate=20,
        on_demand=True,
    ),
    GoComponent(
        "regctl",
        "0.11.7",
        "github.com/regclient/regclient",
        "Apache-2.0",
        (Program("regctl", "github.com/regclient/regclient/cmd/regctl"),),
        estimate=15,
        on_demand=True,
    ),
    # Files alone: the definitions of the kinds that ingress serves besides Ingress, for clusters and tests.
    GoComponent("gateway-api", "1.6.3", "sigs.k8s.io/gateway-api", "Apache-2.0", (), estimate=1, on_demand=True),
    # The authority that tests get certificates from, and the DNS server that it asks.
    GoComponent(
        "pebble",
        "2.10.3",
        "github.com/letsencrypt/pebble/v2",
        "MPL-2.0",
        (
            Program("pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble"),
            Program("pebble-challtestsrv", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv"),
        ),
        estimate=20,
        on_demand=True,
    ),
    GoComponent(
        "helm",
        "4.3.1",
        "helm.sh/helm/v4",
        "Apache-2.0",
        (Program("helm", "helm.sh/helm/v4/cmd/helm"),),
        estimate=190,
        ldflags=("-X helm.sh/helm/v4/internal/version.version=v4.3.1",),
        on_demand=True,
    ),
)

_NODE_PROGRAMS: Final = (
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "kubelet",
    "kube-proxy",
    "flanneld",
    "loopback",
    "ptp",
    "bridge",
    "host-local",
    "portmap",
    "cilium-cni",
    "kubectl",
)
_NODE_PACKAGES: Final = (
    "conntrack",
    "iproute2",
    "ipset",
    "iptables",
    "kmod",
    "libseccomp2",
    "mount",
    "nftables",
    "procps",
    "runit",
    "tini",
    "util-linux",
)
#: What a node needs before any registry serves it.
_NODE_IMAGES: Final = ("pause", "toolbox", "agnhost")

IMAGES: Final[tuple[Image, ...]] = (
    Image("pause", "1.0.0", programs=("pause",)),
    Image("toolbox", "1.35.0", host_files=("/bin/busybox",)),
    Image("etcd", "3.7.3", programs=("etcd",)),
    Image("kube-apiserver", KUBERNETES, programs=("kube-apiserver", "await-connection")),
    Image("kube-controller-manager", KUBERNETES, programs=("kube-controller-manager",)),
    Image("kube-scheduler", KUBERNETES, programs=("kube-scheduler",)),
    Image(
        "cilium",
        "1.19.1",
        programs=("cilium-agent", "cilium-operator", "cilium-cni", "cilium-dbg"),
        packages=(
            "ca-certificates",
            "clang-19",
            "ipset",
            "iproute2",
            "iptables",
            "kmod",
            "llvm-19",
            "nftables",
        ),
        module_folders=(
            ("github.com/cilium/cilium", "bpf", "bpf"),
            ("github.com/cilium/cilium", "pkg/k8s/apis/cilium.io/client/crds", "crds"),
        ),
        estimate=70,
    ),
    Image(
        "platform",
        "0.1.0",
        # What restores clusters from their backups, and proves that it can.
        programs=("etcd-replay",),
        packages=("ca-certificates", "python3"),
        project=True,
        estimate=60,
    ),
    Image("agnhost", KUBERNETES, programs=("agnhost",)),
    Image(
        "node",
        KUBERNETES,
        programs=_NODE_PROGRAMS,
        packages=_NODE_PACKAGES,
        images=_NODE_IMAGES,
        estimate=60,
    ),
    Image(
        "kube-apiserver-1.36",
        KUBERNETES_BEFORE,
        programs=(f"{_BEFORE}/kube-apiserver", "await-connection"),
        variant_of="kube-apiserver",
    ),
    Image(
        "kube-controller-manager-1.36",
        KUBERNETES_BEFORE,
        programs=(f"{_BEFORE}/kube-controller-manager",),
        variant_of="kube-controller-manager",
    ),
    Image(
        "kube-scheduler-1.36",
        KUBERNETES_BEFORE,
        programs=(f"{_BEFORE}/kube-scheduler",),
        variant_of="kube-scheduler",
    ),
    Image(
        "node-1.36",
        KUBERNETES_BEFORE,
        # A kubectl works with the minor before its own, and all else is the same.
        programs=tuple(f"{_BEFORE}/{name}" if name in ("kubelet", "kube-proxy") else name for name in _NODE_PROGRAMS),
        packages=_NODE_PACKAGES,
        images=_NODE_IMAGES,
        estimate=30,
        variant_of="node",
    ),
)


PYTHON_COMPONENTS: Final[tuple[PythonComponent, ...]] = (
    PythonComponent("swift", "2.38.3", "swift", "Apache-2.0", ("swift_run.py",), estimate=15, on_demand=True),
)


def python_component(name: str) -> PythonComponent:
    """Return a Python component's row. Raises KeyError for an unknown one."""
    for candidate in PYTHON_COMPONENTS:
        if candidate.name == name:
            return candidate
    raise KeyError(name)


def component_of(program: str) -> GoComponent:
    """Return the component that ``program`` is built from. Raises KeyError for an unknown program.

    ``component/program`` names one of a component; without, it is the first component that has it.
    """
    wanted, _, name = program.rpartition("/")
    for component in COMPONENTS:
        if wanted in ("", component.name) and any(candidate.name == name for candidate in component.programs):
            return component
    raise KeyError(program)


def file_name(program: str) -> str:
    """Return the name of a program's file, which does not name its component."""
    return program.rpartition("/")[2]


def image(name: str) -> Image:
    """Return an image's row. Raises KeyError for an unknown image."""
    for candidate in IMAGES:
        if candidate.name == name:
            return candidate
    raise KeyError(name)


def image_reference(name: str) -> str:
    """Return the name under which containerd and Kubernetes know an image."""
    row = image(name)
    return f"haneul.local/{row.repository}:v{row.version}"


def variants(name: str) -> tuple[Image, ...]:
    """Return an image and its variants, the newest first."""
    return tuple(row for row in IMAGES if row.repository == name)
