"""Machines for tests: namespaces of this host with their own processes, mounts, network and a real SSH server.

Each sees this host's files through an overlay of its own, so what somebody changes on it is exactly the overlay's
upper layer. ``/opt`` is a folder on a disk, which survives a reboot; everything else does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for

_CGROUPS = Path("/sys/fs/cgroup")
_GATEWAY = 1
_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h

# Process 1 of a machine: its own root, then the SSH server, and nothing of the host's Kubernetes to be seen.
_INIT = r"""
set -eu
folder=$1 name=$2 address=$3 gateway=$4
mkdir "$folder/fs/upper" "$folder/fs/work" "$folder/fs/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/fs/upper,workdir=$folder/fs/work" overlay "$folder/fs/root"
root="$folder/fs/root"
for place in etc/kubernetes var/lib/kubelet var/lib/haneul var/cache/haneul var/log root run tmp; do
    mkdir -p "$root/$place"
    mount -t tmpfs -o mode=755 tmpfs "$root/$place"
done
mount --bind "$folder/opt" "$root/opt"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t devtmpfs devtmpfs "$root/dev"
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
if [ "$(wc -l </proc/self/cgroup)" -gt 1 ]; then
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    for controller in $(awk -F: '$2 != "" { print $2 }' /proc/self/cgroup); do
        mkdir "$root/sys/fs/cgroup/${controller#name=}"
        mount -t cgroup -o "$controller" cgroup "$root/sys/fs/cgroup/${controller#name=}"
    done
    mkdir "$root/sys/fs/cgroup/unified"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/init"
    echo 1 >"$root/sys/fs/cgroup/init/cgroup.procs"
fi
while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
mkdir -m 700 "$root/root/.ssh" && mkdir -m 755 "$root/run/sshd"
cp "$folder/host_key" "$root/root/host_key" && chmod 600 "$root/root/host_key"
cp "$folder/authorized_keys" "$root/root/.ssh/authorized_keys"
mkdir -p "$root/.host"
cd "$root"
pivot_root . .host
umount -l /.host
rmdir /.host
exec python3 -c "
import os, subprocess
subprocess.Popen(['/usr/sbin/sshd', '-D', '-e', '-f', '/dev/null', '-h', '/root/host_key', '-o', 'UsePAM=no',
    '-o', 'PermitRootLogin=prohibit-password', '-o', 'PasswordAuthentication=no', '-o', 'PidFile=none'])
while True:
    os.wait()
" </dev/null >/root/log 2>&1
"""


@dataclass
class Machine:
    """One machine. ``folder`` is its place on the host, ``bridge`` its network."""

    name: str
    address: str
    folder: Path
    bridge: str
    fingerprint: str = ""
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    async def start(self) -> None:
        """Boot it."""
        for cgroup in _cgroups(self.name):
            cgroup.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (cgroup / file).exists() and not (cgroup / file).read_text().strip():
                    (cgroup / file).write_text((cgroup.parent / file).read_text())
        await run(["mount", "-t", "tmpfs", "tmpfs", str(self.folder / "fs")], timeout=60)
        enter = "".join(f"echo $$ >{cgroup}/cgroup.procs; " for cgroup in _cgroups(self.name))
        flags = "--mount --propagation private --net --pid --cgroup --fork --kill-child=KILL"
        gateway = f"{self.address.rpartition('.')[0]}.{_GATEWAY}"
        boot = ["/bin/sh", "-c", f'{enter} exec unshare {flags} -- /bin/sh -c "$0" "$@"', _INIT, "init"]
        with (self.folder / "boot.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it ends when it is killed, by whichever test
                [*boot, str(self.folder), self.name, self.address, gateway],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = await self._first_process()
        # Its network card stays the same, as its neighbours remember it for a while.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))
        peer = ["peer", "name", "eth0", "address", card, "netns", str(self.pid)]
        await run(["ip", "link", "add", self.name, "type", "veth", *peer], timeout=60)
        await run(["ip", "link", "set", self.name, "master", self.bridge, "up"], timeout=60)
        await wait_for(self._answers, what="the machine's SSH server", timeout=60, clock=SystemClock())

    async def _first_process(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")

        async def found() -> int:
            for pid in children.read_text().split():
                if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):  # noqa: PTH115 - no file
                    return int(pid)
            return 0

        return await wait_for(found, what="the machine's first process", timeout=60, clock=SystemClock())

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(self.address, 22), 1)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def kill(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            # The first process goes with its parent, all others with the first.
            self._process.kill()
            self._process.wait(timeout=60)
            self._process = None
            self.pid = 0
        subprocess.run(["ip", "link", "delete", self.name], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", str(self.folder / "fs")], check=False, capture_output=True)
        # No machine boots with cgroups of its last life.
        for cgroup in _cgroups(self.name):
            for folder in sorted(cgroup.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    async def run(self, *command: str) -> str:
        """Run a command on the machine."""
        entered = await run(["nsenter", f"--target={self.pid}", "--all", *command], timeout=30)
        return entered.stdout

    async def snapshot(self) -> dict[str, list[str]]:
        """Return everything that a node could leave behind, by kind."""
        mounts = await self.run("awk", "{ print $5 }", "/proc/1/mountinfo")
        upper = self.folder / "fs" / "upper"
        settings = (
            "net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv4.conf.all.route_localnet "
            "net.ipv6.conf.all.forwarding kernel.panic vm.overcommit_memory"
        )
        return {
            "mounts": mounts.splitlines(),
            "files": sorted(str(path.relative_to(upper)) for path in upper.rglob("*")),
            "opt": sorted(str(path.relative_to(self.folder / "opt")) for path in (self.folder / "opt").rglob("*")),
            "links": sorted((await self.run("ls", "/sys/class/net")).split()),
            "tables": (await self.run("nft", "list", "tables")).splitlines(),
            "iptables": (await self.run("nft", "list", "ruleset")).splitlines(),
            "rules": (await self.run("ip", "rule")).splitlines(),
            "routes": (await self.run("ip", "-4", "route", "show", "table", "all")).splitlines(),
            "settings": (await self.run("sysctl", *settings.split())).splitlines(),
            "cgroups": sorted(
                str(path.relative_to(cgroup)) for cgroup in _cgroups(self.name) for path in cgroup.rglob("*/")
            ),
            # One that ends meanwhile is none.
            "processes": sorted((await self.run("sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null || true")).split()),
        }

    async def network_seen(self) -> str:
        """Return how the machine's node sees its network, for who looks into a failure: routes, neighbours, log."""
        looks = "ip -4 route; ip neigh; ip -d link show flannel.1; bridge fdb show dev flannel.1"
        log = "tail -n 300 /opt/haneul/node/root-*/haneul-log/current | grep -v -i -e level=info -e 'kubelet.*Info'"
        return await self.run("sh", "-c", f"({looks}; {log}) 2>&1 || true")

    async def differences(self, found: dict[str, list[str]]) -> dict[str, list[str]]:
        """Return what is otherwise than it was found. An SSH session that was ended takes a moment to be gone."""
        different: dict[str, list[str]] = {}

        async def same() -> bool:
            left = await self.snapshot()
            different.clear()
            different.update({kind: left[kind] for kind in found if left[kind] != found[kind]})
            return not different

        with contextlib.suppress(DeadlineExceededError):
            await wait_for(same, what="sessions to end", timeout=60, clock=SystemClock())
        return different

    def remove(self) -> None:
        """Take it away with all that it left."""
        self.kill()
        for cgroup in _cgroups(self.name):
            with contextlib.suppress(OSError):
                cgroup.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)


def _cgroups(name: str) -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / name]
    found = [path for path in sorted(_CGROUPS.iterdir()) if not path.is_symlink() and (path / "cgroup.procs").exists()]
    return [path / name for path in found]


def idle_node_tree(folder: Path, *, version: str = "1.37.2") -> Path:
    """Make a node image that only stays there: small, so that tests of how nodes come and go are quick."""
    (folder / "usr/local/lib/haneul").mkdir(parents=True)
    for place in ("bin", "usr/bin", "usr/sbin", "etc"):
        (folder / place).mkdir(exist_ok=True)
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    for applet in ("sh", "env", "umount", "sleep", "ip", "cat"):
        for place in ("bin", "usr/bin"):
            (folder / place / applet).symlink_to("/bin/busybox")
    programs = {
        "usr/bin/tini": 'shift 2; exec "$@"',
        "usr/bin/svlogd": "exec cat >/dev/null",
        "usr/sbin/nft": "exit 1",
        "usr/local/lib/haneul/start-node": "while :; do sleep 3600; done",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "etc/kubernetes-version").write_text(f"{version}\n")
    return folder


async def unpack_node_image(archive: Path, folder: Path) -> None:
    """Unpack the node image's layers (OCI image layout) into ``folder``, as an image volume shows them."""
    layout = folder / "layout"
    layout.mkdir(parents=True)
    await run(["tar", "-xf", str(archive), "-C", str(layout)], timeout=120)

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
    (folder / "root").mkdir()
    for layer in manifest["layers"]:
        await run(["tar", "-xf", str(blob(layer["digest"])), "-C", str(folder / "root")], timeout=120)
    shutil.rmtree(layout)


@asynccontextmanager
async def ports_of_host(bridge: str, host: str) -> AsyncIterator[None]:
    """Let machines behind a bridge reach the node ports of this host at its own address, as from a real network.

    Cilium serves node ports to packets that come through the host's devices, among which a test's bridge is not. So
    they are taken aside, and connected from the host itself, which it serves too.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        port = int.from_bytes(wanted[2:4])
        try:
            other_reader, other_writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        except (OSError, TimeoutError):
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, other_writer))
            group.create_task(_pump(other_reader, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(relay(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "0.0.0.0", 0)  # noqa: S104 - the bridge is one of many ways in here
    port = server.sockets[0].getsockname()[1]
    rules = f"""table ip {bridge} {{
        chain prerouting {{
            type nat hook prerouting priority -100;
            iifname "{bridge}" ip daddr {host} tcp dport 30000-39999 redirect to :{port}
        }}
    }}"""
    await run(["nft", "-f", "-"], stdin=rules.encode(), timeout=60)
    try:
        yield
    finally:
        await run(["nft", "delete", "table", "ip", bridge], timeout=60)
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def machines(folder: Path, authorized_key: str, *, count: int) -> AsyncIterator[list[Machine]]:
    """Make machines on a network of their own that this host is the gateway of; nothing of them stays."""
    bridge = f"hm{secrets.token_hex(3)}"
    # Two runs at once, or one after another that was killed, do not get in each other's way.
    network = f"10.231.{secrets.randbelow(254) + 1}"
    made: list[Machine] = []
    try:
        await run(["ip", "link", "add", bridge, "type", "bridge"], timeout=60)
        await run(["ip", "address", "add", f"{network}.{_GATEWAY}/24", "dev", bridge], timeout=60)
        await run(["ip", "link", "set", bridge, "up"], timeout=60)
        for number in range(count):
            place = folder / f"{bridge}-{number}"
            for name in ("fs", "opt"):
                (place / name).mkdir(parents=True)
            await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host_key")], timeout=60)
            shown = await run(["ssh-keygen", "-lf", str(place / "host_key.pub")], timeout=60)
            (place / "authorized_keys").write_text(authorized_key + "\n")
            machine = Machine(f"{bridge}{number}", f"{network}.{10 + number}", place, bridge, shown.stdout.split()[1])
            made.append(machine)
            await machine.start()
        yield made
    finally:
        for machine in made:
            machine.remove()
        await run(["ip", "link", "delete", bridge], timeout=60)
