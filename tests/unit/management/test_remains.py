"""Finding what an installation left, on a file system of the test's own."""

from pathlib import Path

import pytest

from haneul.kernel.clock import SystemClock
from haneul.management.mount_sharing import private_mounts
from haneul.management.purge import files_of
from haneul.management.remains import Site, find_bpf, find_cgroups, find_mounts, find_network_namespaces, mounts_below
from haneul.management.settings import ManagementSettings

SETTINGS = ManagementSettings(address="192.0.2.2", host_name="node-1")
MOUNTINFO = r"""22 27 0:21 / /proc rw shared:3 - proc proc rw
27 1 254:0 / / rw - ext4 /dev/vda rw
40 27 0:40 / /run/haneul/cgroup2 rw shared:9 - cgroup2 none rw
41 27 0:41 / /var/lib/kubelet/pods/1/volumes/a\040b rw shared:7 - tmpfs tmpfs rw
42 27 0:42 / /var/lib/haneulish rw master:1 - tmpfs tmpfs rw
43 41 0:43 / /var/lib/kubelet/pods/1/volumes/a\040b/deep rw shared:8 - tmpfs tmpfs rw
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A machine with nothing on it."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/unix").write_text("Num RefCount Protocol Flags Type St Inode Path\n")
    (tmp_path / "proc/self/mountinfo").write_text("")
    return Site(SETTINGS, Path("/var/cache/haneul"), SystemClock(), tmp_path)


def foreign_kubelet(site: Site) -> None:
    foreign_process(site, 77, "/usr/bin/kubelet")


def foreign_process(site: Site, pid: int, program: str) -> None:
    folder = site.at(Path(f"/proc/{pid}"))
    (folder / "ns").mkdir(parents=True)
    (folder / "ns/net").write_text("")
    (folder / "stat").write_text(f"{pid} ({Path(program).name}) S 1 {pid} {pid} 0 -1")
    (folder / "cmdline").write_bytes(program.encode() + b"\0")
    (folder / "cgroup").write_text("0::/system.slice/another.service\n")
    (folder / "exe").symlink_to(program)


def made(site: Site, *names: str) -> None:
    for name in names:
        path = site.at(Path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text("")


def test_the_last_mount_comes_first_and_names_are_not_prefixes() -> None:
    folders = [Path("/var/lib/kubelet"), Path("/var/lib/haneul"), Path("/run/haneul")]
    assert mounts_below(MOUNTINFO, folders) == [
        "/var/lib/kubelet/pods/1/volumes/a b/deep",
        "/var/lib/kubelet/pods/1/volumes/a b",
        "/run/haneul/cgroup2",
    ]


def test_private_mounts_are_those_without_a_peer_group() -> None:
    assert private_mounts(MOUNTINFO) == ["/", "/var/lib/haneulish"]


def test_nothing_is_left_where_nothing_was(site: Site) -> None:
    assert files_of(site) == []
    assert find_mounts(site) == []
    assert find_bpf(site) == []
    assert find_cgroups(site) == []
    assert find_network_namespaces(site) == []


def test_the_owner_mark_goes_last(site: Site) -> None:
    made(site, "/etc/kubernetes/haneul-owned", "/var/lib/haneul/etcd/", "/var/lib/kubelet/", "/run/haneul/x.sock")
    assert files_of(site) == ["/run/haneul", "/var/lib/kubelet", "/var/lib/haneul", "/etc/kubernetes"]


def test_only_our_files_in_folders_of_everybody(site: Site) -> None:
    made(
        site,
        "/var/lib/cni/results/cilium-1-eth0",
        "/var/lib/cni/results/podman-1-eth0",
        "/var/log/pods/default_a_1/",
        "/run/containerd/s/dead",
        "/run/containerd/s/alive",
        "/run/containerd/runc/k8s.io/",
        "/run/containerd/runc/moby/",
    )
    site.at(Path("/proc/net/unix")).write_text("header\n0: 2 0 0 1 1 9 /run/containerd/s/alive\n")
    assert files_of(site) == [
        "/var/lib/cni/results/cilium-1-eth0",
        "/run/containerd/runc/k8s.io",
        "/var/log/pods/default_a_1",
        "/run/containerd/s/dead",
    ]


def test_links_to_pods_logs_are_ours_and_other_files_are_not(site: Site) -> None:
    made(site, "/var/log/containers/own.log")
    site.at(Path("/var/log/containers/a.log")).symlink_to("/var/log/pods/default_a_1/0.log")
    site.at(Path("/var/log/containers/b.log")).symlink_to("/srv/b.log")
    assert files_of(site) == ["/var/log/containers/a.log"]


def test_another_kubelet_keeps_what_it_shares_with_us(site: Site) -> None:
    made(site, "/var/lib/kubelet/", "/var/log/pods/x/", "/sys/fs/cgroup/kubepods/", "/run/netns/cni-1")
    made(site, "/var/lib/haneul/", "/run/cilium/")
    foreign_kubelet(site)
    assert files_of(site) == ["/var/lib/haneul"]
    assert find_cgroups(site) == []
    assert find_network_namespaces(site) == []


def test_another_installations_folder_keeps_it_too(site: Site) -> None:
    made(site, "/etc/kubernetes/admin.conf", "/var/lib/kubelet/", "/var/lib/haneul/")
    assert files_of(site) == ["/var/lib/haneul"]


PINS = ("/sys/fs/bpf/cilium/", "/run/cilium/", "/var/lib/cni/results/cilium-1-eth0")


@pytest.mark.parametrize(
    "trace",
    [
        "/etc/cni/net.d/05-cilium.conflist",
        "/opt/cni/bin/cilium-cni",
        "/var/lib/rancher/k3s/agent/etc/cni/net.d/05-cilium.conflist",
    ],
)
def test_another_cilium_s_pins_and_files_stay_also_while_it_is_stopped(site: Site, trace: str) -> None:
    made(site, *PINS, "/var/lib/haneul/cni/net.d/05-cilium.conflist", trace)
    assert find_bpf(site) == []
    assert files_of(site) == ["/var/lib/haneul"]
    assert site.chain_prefixes() == ("KUBE",)


def test_another_cilium_s_pins_and_files_stay_while_it_runs(site: Site) -> None:
    made(site, *PINS)
    foreign_process(site, 78, "/usr/bin/cilium-agent")
    assert find_bpf(site) == []
    assert files_of(site) == []


def test_beside_another_kubelet_cilium_is_ours_if_our_agent_wrote_its_configuration(site: Site) -> None:
    made(site, *PINS, "/var/lib/haneul/")
    foreign_kubelet(site)
    assert find_bpf(site) == []
    assert site.chain_prefixes() == ()
    made(site, "/var/lib/haneul/cni/net.d/05-cilium.conflist")
    assert find_bpf(site) == [str(site.at(Path("/sys/fs/bpf/cilium")))]
    assert "/run/cilium" in files_of(site)
    assert site.chain_prefixes() == ("CILIUM",)


def test_groups_come_deepest_first_in_every_hierarchy(site: Site) -> None:
    made(site, "/sys/fs/cgroup/cpu/kubepods/", "/sys/fs/cgroup/cpu/kubepods/pod1/", "/sys/fs/cgroup/cpu/other/")
    made(site, "/sys/fs/cgroup/unified/kubepods/")
    found = [name.removeprefix(str(site.root)) for name in find_cgroups(site)]
    assert sorted(found) == [
        "/sys/fs/cgroup/cpu/kubepods",
        "/sys/fs/cgroup/cpu/kubepods/pod1",
        "/sys/fs/cgroup/unified/kubepods",
    ]
    assert found.index("/sys/fs/cgroup/cpu/kubepods/pod1") < found.index("/sys/fs/cgroup/cpu/kubepods")


def test_pins_of_cilium(site: Site) -> None:
    made(site, "/sys/fs/bpf/cilium/", "/sys/fs/bpf/tc/globals/cilium_calls_1", "/sys/fs/bpf/tc/globals/other")
    found = [name.removeprefix(str(site.root)) for name in find_bpf(site)]
    assert found == ["/sys/fs/bpf/cilium", "/sys/fs/bpf/tc/globals/cilium_calls_1"]


def test_abandoned_network_namespaces(site: Site) -> None:
    made(site, "/run/netns/cni-1", "/run/netns/blue")
    found = [name.removeprefix(str(site.root)) for name in find_network_namespaces(site)]
    assert found == ["/run/netns/cni-1"]
