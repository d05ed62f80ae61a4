"""Which processes are ours, and which only look like it."""

from pathlib import Path

import pytest

from haneul.app.platform_balancer import BalancerFiles, haproxy_service
from haneul.host.ownership import Ownership, Process, all_processes, known_containers, process_at, runs
from haneul.host.secluded import secluded
from haneul.ingress.adapters.nginx.confined import kept

ID, OTHER_ID = "a" * 64, "b" * 64
MARKS = Ownership(Path("/var/cache/haneul"), Path("/var/lib/haneul"), frozenset({ID}))
STATE = Path("/var/lib/haneul")
SUPERVISOR = ("/venv/bin/python", "-m", "supervisor.supervisord", "-c", "/var/lib/haneul/supervisord.conf")

_SWIFT = "/var/cache/haneul/environments/swift-1"
_PART = "/var/lib/haneul/kage/etc/zone1-object-server.conf"
SWIFT = (
    f"{_SWIFT}/bin/python",
    f"{_SWIFT}/swift_run.py",
    "part",
    "/var/lib/haneul/kage/etc",
    "swift.obj.server",
    _PART,
)
SECLUDED = secluded(SWIFT, user=65529, sees=[STATE / "kage"])
RSYNC = ("rsync", "--daemon", "--no-detach", "--config=/var/lib/haneul/kage/etc/zone1-rsync.conf")


def process(
    pid: int,
    executable: str = "/usr/bin/other",
    arguments: tuple[str, ...] = (),
    groups: str = "0::/\n",
    parent: int = 1,
) -> Process:
    return Process(pid, parent, executable, arguments, groups)


def own(*arguments: str) -> Process:
    """A program of this project."""
    return process(7, "/usr/bin/python3.11", ("/venv/bin/python", "-m", "haneul.app.main", *arguments))


@pytest.mark.parametrize(
    ("candidate", "ours"),
    [
        (process(7, "/var/cache/haneul/programs/containerd-1/containerd"), True),
        (process(7, "/var/cache/haneul/programs/kubernetes-1/kubelet (deleted)"), True),
        (process(7, "/var/cache/haneul/programs/containerd-1/containerd-shim-runc-v2"), True),
        (process(7, "/var/cache/haneul/programs/kubernetes-1/kubectl"), False),
        (process(7, "/usr/bin/containerd"), False),
        (process(7, "/usr/bin/kubelet"), False),
        (process(7, "/usr/bin/python3.11", SUPERVISOR), True),
        (process(7, "/usr/bin/python3.11", (*SUPERVISOR[:-1], "/etc/supervisor.conf")), False),
        (process(7, "/usr/bin/vim", ("vim", "/var/lib/haneul/supervisord.conf")), False),
        (process(7, "/usr/sbin/pdns_server", ("pdns_server", "--config-dir=/var/lib/haneul/dns/keeper")), True),
        (process(7, "/usr/sbin/pdns_server", ("pdns_server", "--config-dir=/etc/powerdns")), False),
        (process(7, "/usr/sbin/haproxy", ("haproxy", "-Ws", "-f", "/var/lib/haneul/balancer/haproxy.cfg")), True),
        (process(7, "/usr/sbin/haproxy", ("haproxy", "-Ws", "-f", "/etc/haproxy/haproxy.cfg")), False),
        (process(7, "/usr/bin/sleep", ("/var/lib/haneul/certificates", "21600")), True),
        (process(7, "/usr/bin/sleep", ("/var/lib/haneul-of-others/certificates", "21600")), False),
        (process(7, "/usr/bin/sleep", ("sleep", "21600")), False),
        (process(7, "/usr/bin/python3.11", SWIFT), True),
        (process(7, "/usr/bin/python3.11", ("/venv/bin/python", *SWIFT[1:])), False),
        (process(7, "/usr/bin/python3.11", (*SWIFT[:2], "part", "/srv/etc", "/srv/etc/proxy-server.conf")), False),
        (process(7, "/usr/bin/python3.11", SECLUDED), True),
        (process(7, "/usr/bin/rsync", RSYNC), True),
        (process(7, "/usr/bin/rsync", ("rsync", "--daemon", "--no-detach", "--config=/etc/rsyncd.conf")), False),
        (own("serve", "balancer-keeper", "--balancer=/var/lib/haneul/balancer.yaml"), True),
        (own("serve", "balancer-keeper", "--balancer=/etc/balancer.yaml"), False),
        (own("serve", "ingress", "--folder=/var/lib/haneul/ingress"), True),
        (own("serve", "gate", "--folder=/var/lib/haneul/gate/own", "--user=65530"), True),
        (own("auth", "serve", "--config", "/var/lib/haneul/gate/gate.yaml"), True),
        (own("auth", "serve", "--config", "/etc/haneul/auth.yaml"), False),
        (own("auth", "serve", "--config", "/var/lib/haneul-of-others/gate.yaml"), False),
        (process(7, "/usr/bin/vim", ("vim", "/var/lib/haneul/gate/gate.yaml")), False),
        (process(7, "/usr/bin/vim", ("vim", "--config-dir=/var/lib/haneul/dns/keeper")), False),
        (process(7, "/pause", groups=f"4:memory:/kubepods/pod1/{ID}\n0::/kubepods/pod1/{ID}\n"), True),
        (process(7, "/pause", groups=f"0::/kubepods.slice/pod1.slice/cri-containerd-{ID}.scope\n"), True),
        (process(7, "/etcd", groups=f"0::/kubepods/pod1/{ID}/kubepods/pod2/{OTHER_ID}\n"), True),
        (process(7, "/pause", groups=f"0::/kubepods/pod1/{OTHER_ID}\n"), False),
        (process(7, "/opt/dns", groups="0::/system.slice/haneul-dns.service\n"), True),
        (process(7, "/opt/dns", groups="0::/system.slice/dns.service\n"), False),
    ],
)
def test_marks(candidate: Process, ours: bool) -> None:
    assert (7 in MARKS.of({7: candidate})) is ours


def test_descendants_of_ours_are_ours() -> None:
    family = {
        1: process(1, "/sbin/init", parent=0),
        2: process(2, "/usr/bin/python3.11", SUPERVISOR),
        3: process(3, "/usr/bin/api", parent=2),
        4: process(4, "/usr/bin/sh", parent=3),
        5: process(5, "/usr/bin/sh"),
    }
    assert set(MARKS.of(family)) == {2, 3, 4}


def test_names_are_for_people() -> None:
    assert process(7, "/a/kubelet (deleted)").name == "kubelet"
    assert process(7, "", ("/b/flanneld",)).name == "flanneld"
    assert process(7, "").name == "?"


def test_containers_are_known_by_the_runtimes_folders(tmp_path: Path) -> None:
    state, runtime = tmp_path / "state", tmp_path / "run"
    assert known_containers(state=state, runtime=runtime) == frozenset()
    (state / "containerd/io.containerd.grpc.v1.cri/sandboxes" / ID).mkdir(parents=True)
    (runtime / "containerd/io.containerd.runtime.v2.task/k8s.io" / OTHER_ID).mkdir(parents=True)
    (runtime / "containerd/io.containerd.runtime.v2.task/k8s.io/tmp").mkdir(parents=True)
    assert known_containers(state=state, runtime=runtime) == {ID, OTHER_ID}


def test_processes_are_read_as_the_kernel_shows_them(tmp_path: Path) -> None:
    folder = tmp_path / "42"
    (folder / "ns").mkdir(parents=True)
    (folder / "ns/net").write_text("")
    (folder / "stat").write_text("42 (odd) name) S 7 42 42 0 -1")
    (folder / "cmdline").write_bytes(b"/bin/odd\0--flag\0")
    (folder / "cgroup").write_text("0::/\n")
    (folder / "exe").symlink_to("/bin/odd")
    (tmp_path / "43").mkdir()
    (tmp_path / "self").mkdir()
    network = (folder / "ns/net").stat().st_ino
    assert all_processes(tmp_path) == {42: Process(42, 7, "/bin/odd", ("/bin/odd", "--flag"), "0::/\n", network)}
    assert process_at(42, tmp_path) == all_processes(tmp_path)[42]
    assert process_at(43, tmp_path) is None


HAPROXY = haproxy_service(BalancerFiles(STATE, Path("/run/haneul"))).argv
STARTED = HAPROXY[HAPROXY.index("/usr/sbin/haproxy") :]
NGINX = kept(STATE / "gate/nginx", 1_900_000_001, "/usr/sbin/nginx")
TITLE = f"nginx: master process {' '.join(NGINX[NGINX.index('/usr/sbin/nginx') :])}"


@pytest.mark.parametrize(
    ("candidate", "argv", "does"),
    [
        (process(7, "/usr/bin/dash", HAPROXY), HAPROXY, True),
        (process(7, "/usr/sbin/haproxy", STARTED), HAPROXY, True),
        (process(7, "/usr/sbin/haproxy (deleted)", STARTED), HAPROXY, True),
        (process(7, "/usr/sbin/haproxy", (STARTED[0], "-sf", "6", "-x", "sockpair@3", *STARTED[1:])), HAPROXY, True),
        (process(7, "/usr/sbin/haproxy", ("haproxy", "-Ws", "-f", "/etc/haproxy/haproxy.cfg")), HAPROXY, False),
        (process(7, "/usr/sbin/haproxy", (*STARTED[:-1], f"/mnt{STARTED[-1]}")), HAPROXY, False),
        (process(7, "/usr/bin/vim", ("vim", STARTED[-1])), HAPROXY, False),
        (process(7, "/usr/bin/dash", NGINX), NGINX, True),
        (process(7, "/usr/sbin/nginx", (TITLE,)), NGINX, True),
        (process(7, "/usr/sbin/nginx", (TITLE.replace("gate/nginx", "ingress/clusters/uid"),)), NGINX, False),
        (process(7, "/usr/sbin/nginx", ("nginx: worker process",)), NGINX, False),
        (process(7, "/usr/bin/vim", (TITLE,)), NGINX, False),
        (process(7, "/usr/sbin/nginx", ("nginx", "-f", "x.conf")), ("/usr/sbin/nginx", "-c", "x.conf"), False),
        (process(7, "/usr/bin/sleep", ("sleep", "/var/lib/haneul/x")), ("/bin/sh", "-c", "/var/lib/haneul/x"), False),
        (process(7, "/usr/bin/python3.11", SECLUDED), SECLUDED, True),
        (process(7, "/usr/bin/python3.11", SWIFT), SECLUDED, True),
        (process(7, "/usr/bin/python3.11", (*SWIFT[:-1], "/srv/zone1-object-server.conf")), SECLUDED, False),
        (process(7, "/usr/bin/python3.11", (*SWIFT[:-2], "swift.account.server", SWIFT[-1])), SECLUDED, False),
        (process(7, "/usr/bin/rsync", RSYNC), (*SECLUDED[:6], *RSYNC), True),
        (process(7, ""), HAPROXY, False),
        (process(7, ""), (), False),
    ],
)
def test_what_runs_a_command(candidate: Process, argv: tuple[str, ...], does: bool) -> None:
    assert runs(candidate, argv, STATE) is does
