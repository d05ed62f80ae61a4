"""A tenant who administers its cluster tries to leave its nodes, and somebody who is root in a node tries to go on.

The first wall is what pods may ask for, the second the node pod. Both are tried for real, on both networks: devices,
files, processes, kernel modules, settings of the kernel, other tenants, the management API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from haneul.app.installation import Installation
from haneul.components.table import image_reference
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import ADMISSION_POLICIES, PERSISTENT_VOLUMES, PODS, KubeApiError, KubeClient, Manifest
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, kubectl, tenant

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
BOTH = pytest.mark.parametrize("network", ["shop", "lab"])
#: The device that the host's root file system is on.
DISK = Path("/").stat().st_dev
DISK_NUMBERS = f"{os.major(DISK)} {os.minor(DISK)}"


def a_pod(name: str, **fields: Any) -> Manifest:
    """Return a pod that runs as root and waits to be asked."""
    container = {
        "name": "main",
        "image": image_reference("toolbox"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/busybox", "sleep", "3600"],
        "securityContext": fields.pop("securityContext", {}),
        "volumeMounts": [{"name": volume["name"], "mountPath": "/extra"} for volume in fields.get("volumes", [])],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default", **fields}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


@contextlib.asynccontextmanager
async def running(kube: KubeClient, manifest: Manifest) -> AsyncIterator[str]:
    """Run a pod for as long as it is needed."""
    name = manifest["metadata"]["name"]
    await kube.create(PODS, manifest)

    async def runs() -> bool:
        seen = await kube.get(PODS, name, "default") or {}
        return bool(seen.get("status", {}).get("phase") == "Running")

    async def gone() -> bool:
        return await kube.get(PODS, name, "default") is None

    try:
        await wait_for(runs, what=f"pod {name} to run", timeout=180, clock=CLOCK)
        yield name
    finally:
        await kube.delete(PODS, name, "default")
        await wait_for(gone, what=f"pod {name} to be gone", timeout=120, clock=CLOCK)


async def as_platform(installation: Installation, *arguments: str) -> tuple[int, str]:
    """Run kubectl against the management cluster as its administrator; return status and output."""
    process = await asyncio.create_subprocess_exec(
        str(installation.store.program("kubectl")),
        f"--kubeconfig={installation.settings.admin_kubeconfig}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


ASKED: dict[str, dict[str, Any]] = {
    "privileged": {"securityContext": {"privileged": True}},
    "modules": {"securityContext": {"capabilities": {"add": ["SYS_MODULE"]}}},
    "administration": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
    "unconfined": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "network": {"hostNetwork": True},
    "processes": {"hostPID": True},
    "communication": {"hostIPC": True},
    "files": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
    "devices": {"volumes": [{"name": "dev", "hostPath": {"path": "/dev"}}]},
    "runtime": {"volumes": [{"name": "run", "hostPath": {"path": "/run/containerd"}}]},
}


@BOTH
async def test_administrator_of_a_cluster_gets_no_pod_that_reaches_its_node(
    network: str, request: pytest.FixtureRequest
) -> None:
    async with tenant(request.getfixturevalue(network)) as kube:
        for name, fields in ASKED.items():
            with pytest.raises(KubeApiError) as caught:
                await kube.create(PODS, a_pod(name, **dict(fields)))
            assert caught.value.status == 403, name
            assert "haneul-sandbox-pods" in str(caught.value) and "provider: ssh" in str(caught.value), name
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "host"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/"},
            },
        }
        with pytest.raises(KubeApiError, match="CSI driver"):
            await kube.create(PERSISTENT_VOLUMES, volume)
        assert await kube.list(ADMISSION_POLICIES) == []


@BOTH
async def test_debugging_a_node_or_a_pod_opens_no_door(
    network: str, request: pytest.FixtureRequest, installation: Installation
) -> None:
    name = request.getfixturevalue(network)
    image = f"--image={image_reference('toolbox')}"
    status, output = await kubectl(installation, name, "debug", "node/default-0", image, "--profile=sysadmin")
    assert status != 0 and "haneul-sandbox-pods" in output, output
    async with tenant(name) as kube, running(kube, a_pod("target")) as pod:
        status, output = await kubectl(installation, name, "debug", pod, image, "--profile=sysadmin")
        assert status != 0 and "haneul-sandbox-pods" in output, output


#: What root tries in an ordinary container, each of which has to fail. The shell is busybox's.
TRIED_IN_A_POD = {
    "read the disk": f"mknod /disk b {DISK_NUMBERS} && dd if=/disk of=/dev/null bs=4096 count=1",
    "mount the disk": f"mknod /disk2 b {DISK_NUMBERS}; mkdir -p /mnt; mount -t ext4 /disk2 /mnt",
    "mount a process file system": "mkdir -p /mnt; mount -t proc proc /mnt",
    "set what runs at a crash": "echo '|/bin/true' > /proc/sys/kernel/core_pattern",
    "restart the machine": "echo b > /proc/sysrq-trigger",
    "write to the kernel's objects": "echo 1 > /sys/kernel/profiling",
    "load a module": "touch /m.ko; insmod /m.ko",
    "set the clock": "date -s 2001-01-01 >/dev/null 2>&1; date +%Y | grep 2001",
    "read the kernel's messages": "dmesg",
    "find the runtime": "test -e /run/containerd/containerd.sock",
    "find the node's credential": "cat /var/lib/kubelet/kubeconfig",
    "see processes of others": "test $(ls -d /proc/[0-9]* | wc -l) -gt 6",
    "find devices": "ls /dev/vd* /dev/sd* /dev/nvme* /dev/dm-* /dev/mem /dev/kmsg /dev/loop0 2>/dev/null | grep .",
    "take another name space": "unshare -m true",
}


@BOTH
async def test_root_in_a_container_reaches_nothing_of_its_node(
    network: str, request: pytest.FixtureRequest, installation: Installation
) -> None:
    name = request.getfixturevalue(network)
    async with tenant(name) as kube, running(kube, a_pod("prisoner")) as pod:

        async def in_pod(command: str) -> tuple[int, str]:
            return await kubectl(installation, name, "exec", pod, "--", "/bin/sh", "-c", command)

        status, output = await in_pod("id -u")
        assert (status, output.strip()) == (0, "0"), output
        for what, command in TRIED_IN_A_POD.items():
            status, output = await in_pod(command)
            assert status != 0, f"{what}: {output}"
        if network == "shop":
            # Its root is another number on the host, and none of a user there.
            status, output = await in_pod("cat /proc/self/uid_map")
            first = output.split()
            assert status == 0 and int(first[1]) >= 65536, output


@BOTH
async def test_kubelet_shows_no_files_of_its_node(
    network: str, request: pytest.FixtureRequest, installation: Installation
) -> None:
    name = request.getfixturevalue(network)
    for path in ("logs/", "debug/pprof/heap"):
        status, output = await kubectl(installation, name, "get", "--raw", f"/api/v1/nodes/default-0/proxy/{path}")
        assert status != 0, output


#: What root tries in a node, besides; coreutils, util-linux and kmod are there.
TRIED_IN_A_NODE = {
    "read the disk": f"mknod /tmp/disk b {DISK_NUMBERS} && dd if=/tmp/disk of=/dev/null bs=4096 count=1",
    "load a module": "touch /tmp/m.ko; insmod /tmp/m.ko",
    "swap": "truncate -s 1M /tmp/swap; chmod 600 /tmp/swap; mkswap -q /tmp/swap; swapon /tmp/swap",
    "set the clock": "date -s 2001-01-01 >/dev/null 2>&1; date +%Y | grep 2001",
    "read the kernel's messages": "dmesg --syslog",
    "find devices": "ls /dev/vd* /dev/sd* /dev/nvme* /dev/dm-* /dev/mem /dev/loop0 2>/dev/null | grep .",
    "find the kernel's log": "head -c 1 /dev/kmsg | grep .",
    "find the host's processes": "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -e '[e]tcd ' -e '[h]aneul.app'",
    "find the host's files": "ls /var/lib/haneul || ls /etc/kubernetes/manifests",
    "read an account of the management cluster": "ls /var/run/secrets/kubernetes.io",
}
#: And where it has users of its own.
TRIED_BY_NOBODY = {
    "mount the disk": f"mknod /tmp/disk2 b {DISK_NUMBERS}; mkdir -p /mnt/x; mount -t ext4 /tmp/disk2 /mnt/x",
    "mount all devices": "mkdir -p /mnt/x; mount -t devtmpfs dev /mnt/x",
    "set what runs at a crash": "echo '|/bin/true' > /proc/sys/kernel/core_pattern",
    "restart the machine": "echo b > /proc/sysrq-trigger",
    "make a device": "mknod /tmp/n c 1 3",
    "raise its own memory": "limit=/sys/fs/cgroup/memory/memory.limit_in_bytes; "
    "[ -e $limit ] || limit=/sys/fs/cgroup/memory.max; echo $((1 << 40)) > $limit",
    "allow itself devices": "echo 'a *:* rwm' > /sys/fs/cgroup/devices/devices.allow",
    "set a priority": "echo -1000 > /proc/self/oom_score_adj",
    "raise how many files the machine opens": "echo 1 > /proc/sys/fs/file-max",
}


@BOTH
async def test_root_in_a_node_pod_does_not_go_on_to_the_host(
    network: str, request: pytest.FixtureRequest, installation: Installation
) -> None:
    name = request.getfixturevalue(network)
    namespace = f"nodes-{PROJECT}-{name}"

    async def in_node(command: str) -> tuple[int, str]:
        return await as_platform(installation, "exec", f"-n{namespace}", "default-0-0", "--", "/bin/sh", "-c", command)

    core_pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    status, output = await in_node("id -u")
    assert (status, output.strip()) == (0, "0"), output
    for what, command in (TRIED_IN_A_NODE | (TRIED_BY_NOBODY if network == "shop" else {})).items():
        status, output = await in_node(command)
        assert status != 0, f"{what}: {output}"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core_pattern
    status, output = await in_node("cat /proc/self/uid_map")
    assert status == 0 and (int(output.split()[1]) >= 65536) == (network == "shop"), output
    # Neither the management cluster's API nor the platform's answers.
    for target in (f"{installation.settings.address}/6443", f"{installation.settings.address}/7443"):
        status, output = await as_platform(
            installation,
            "exec",
            f"-n{namespace}",
            "default-0-0",
            "--",
            "timeout",
            "3",
            "bash",
            "-c",
            f"exec 3<>/dev/tcp/{target}",
        )
        assert status != 0, f"{target}: {output}"


async def test_only_nodes_run_in_the_namespace_of_nodes(shop: str, installation: Installation) -> None:
    namespace = f"nodes-{PROJECT}-{shop}"
    async with installation.lifecycle.client() as management:
        for fields in ({}, {"hostPID": True}, {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}):
            manifest = a_pod("stranger", **fields)
            manifest["metadata"]["namespace"] = namespace
            with pytest.raises(HaneulError, match="haneul-node-pods"):
                await management.create(PODS, manifest)
        node = await management.get(PODS, "default-0-0", namespace)
    assert node is not None
    status, output = await as_platform(
        installation, "debug", f"-n{namespace}", "default-0-0", f"--image={image_reference('toolbox')}"
    )
    assert status != 0 and "haneul-node-pods" in output, output
    security = node["spec"]["containers"][0]["securityContext"]
    assert not security.get("privileged", False), json.dumps(security)
