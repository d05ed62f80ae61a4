"""The platform's own life: stop, start, a power cut. These tests stop what others use, so they come last."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haneul.app.installation import Installation
from haneul.host.processes import command_line, executable
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Manifest,
)
from haneul.kernel.processes import all_found, send
from haneul.management.remains import Site
from tests.e2e.tenants import PROJECT, tenant
from tests.support import HANEUL, UP_SECONDS, haneul, kill_when, leftovers

pytestmark = [pytest.mark.e2e, pytest.mark.last]


async def write_and_read(name: str, value: str | None) -> str:
    async with tenant(name) as kube:
        if value is not None:
            metadata = {"name": "kept", "namespace": "default"}
            await kube.apply(
                CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}
            )
        return str(((await kube.get(CONFIG_MAPS, "kept", "default")) or {})["data"]["value"])


@pytest.fixture(scope="module")
def kept(project: str) -> str:
    haneul("cluster", "create", "kept", "--memory", "1024", "-p", project)
    return "kept"


async def test_a_power_cut_loses_nothing_that_was_acknowledged(kept: str, installation: Installation) -> None:
    """Every process of ours is killed at once, without warning; `up` brings all of it back."""
    await write_and_read(kept, "before the cut")
    cache = str(installation.store.cache)
    # Not those of other tests that run beside this one, which have the same programs.
    owned, _ = Site(installation.settings, installation.store.cache, SystemClock()).processes()
    ours = all_found(
        owned, lambda pid: executable(pid).startswith(cache) or "supervisor.supervisord" in command_line(pid)
    )
    assert len(ours) > 5
    send(ours, signal.SIGKILL)
    haneul("up", timeout=600)
    haneul("cluster", "get", kept, "--wait", "-p", PROJECT)
    assert await write_and_read(kept, None) == "before the cut"


async def test_down_and_up_bring_back_the_same_clusters(kept: str) -> None:
    await write_and_read(kept, "before the stop")
    haneul("down")
    assert haneul("status", check=False).returncode == 8
    haneul("up", timeout=600)
    haneul("cluster", "get", kept, "--wait", "-p", PROJECT)
    assert await write_and_read(kept, None) == "before the stop"
    assert haneul("status").returncode == 0


#: What `up` makes in the management cluster.
_OURS = (
    NAMESPACES,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    ROLES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    CONFIG_MAPS,
    SECRETS,
    DEPLOYMENTS,
    DAEMON_SETS,
)


def named(thing: Manifest) -> str:
    metadata = thing["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


async def observed(installation: Installation) -> dict[str, Any]:
    """What must be the same after an `up` that has nothing to do: processes, containers, versions of our objects."""
    seen: dict[str, Any] = {f"service {state.name}": state.pid for state in await installation.services.states()}
    async with installation.lifecycle.client() as management:
        for pod in await management.list(PODS):
            statuses = pod["status"].get("containerStatuses", [])
            containers = [(entry["restartCount"], entry.get("containerID")) for entry in statuses]
            seen[f"pod {named(pod)}"] = (pod["metadata"]["uid"], containers)
        for resource in _OURS:
            for thing in await management.list(resource, labels="app.kubernetes.io/managed-by=haneul"):
                if thing["metadata"].get("namespace", "") in ("", *installation.settings.namespaces):
                    seen[f"{resource.kind} {named(thing)}"] = thing["metadata"]["resourceVersion"]
    return seen


async def test_a_second_up_changes_nothing(kept: str, installation: Installation) -> None:
    # Of those, too, that earlier tests left: what was stopped with the platform is still coming back.
    for entry in json.loads(haneul("cluster", "list", "-p", PROJECT, "-o", "json").stdout):
        haneul("cluster", "get", entry["name"], "--wait", "-p", PROJECT)
    before = await observed(installation)
    assert {"Deployment haneul-system/haneul-api", "DaemonSet kube-system/cilium"} <= before.keys()
    haneul("up", timeout=600)
    assert await observed(installation) == before


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def test_another_installations_folder_is_refused_and_stays_as_it_is(
    kept: str, installation: Installation
) -> None:
    mark = Path("/etc/kubernetes/haneul-owned")
    before = await observed(installation)
    text = mark.read_text()
    mark.unlink()
    try:
        files = digests(mark.parent)
        refused = haneul("up", check=False, timeout=600)
        assert refused.returncode != 0
        assert "another Kubernetes installation" in refused.stderr
        assert digests(mark.parent) == files
        assert await observed(installation) == before
    finally:
        mark.write_text(text)


@pytest.fixture
def foreign_kubelet() -> Iterator[subprocess.Popen[bytes]]:
    """A program of somebody else's on the kubelet's port, which has been started while the platform is down."""
    haneul("down")
    listening = "import socket, sys; s = socket.create_server(('', 10250)); print('listening', flush=True); s.accept()"
    process = subprocess.Popen([sys.executable, "-c", listening], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"listening\n"
        yield process
    finally:
        process.kill()
        process.communicate()
        haneul("up", timeout=600)


def test_a_foreign_kubelet_on_the_port_is_refused_and_goes_on(
    kept: str, foreign_kubelet: subprocess.Popen[bytes]
) -> None:
    refused = haneul("up", check=False, timeout=600)
    assert refused.returncode == 8
    assert "port 10250 is taken" in refused.stderr and str(foreign_kubelet.pid) in refused.stderr
    assert foreign_kubelet.poll() is None
    assert haneul("status", check=False).returncode == 8


def held_by(holder: Path) -> int:
    """Return the process that has written that it holds the host, 0 if none."""
    try:
        return int(json.loads(holder.read_text())["pid"])
    except FileNotFoundError:
        return 0


def up_that_holds(holder: Path, said: Path) -> subprocess.Popen[bytes]:
    """Begin an `up`, and stop it once it holds the host: certificates are looked at now and then, and it is refused."""
    deadline = time.monotonic() + UP_SECONDS
    while True:
        with said.open("wb") as errors:
            process = subprocess.Popen([str(HANEUL), "up"], stdout=subprocess.DEVNULL, stderr=errors)
        while held_by(holder) != process.pid and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            # However long others take, it does not end before they have asked.
            process.send_signal(signal.SIGSTOP)
            return process
        words = said.read_text()
        # Who has just begun may not have written its name yet.
        assert "'haneul renew' (process" in words or "another 'haneul' command is changing" in words, words
        assert time.monotonic() < deadline, words


def test_while_one_command_changes_the_host_another_is_told_so(
    kept: str, installation: Installation, tmp_path: Path
) -> None:
    holder = installation.settings.state / "host.lock.json"
    process = up_that_holds(holder, tmp_path / "said")
    try:
        for command in (("up",), ("down",), ("down", "--purge")):
            refused = haneul(*command, check=False, timeout=600)
            assert refused.returncode != 0
            assert f"'haneul up' (process {process.pid}, since " in refused.stderr
        process.send_signal(signal.SIGCONT)
        assert process.wait(UP_SECONDS) == 0
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)
    assert held_by(holder) != process.pid
    haneul("status")


def test_a_purge_that_was_killed_is_finished_by_the_next_one(kept: str, installation: Installation) -> None:
    """Killed twice: when the kubelet is no service any more, and when files are being deleted. Nothing is up after."""
    definitions = (
        installation.settings.state / "services/kubelet.conf",
        Path("/etc/systemd/system/haneul-kubelet.service"),
    )
    kill_when(lambda: not any(path.exists() for path in definitions), "down", "--purge")
    assert leftovers() != []
    kill_when(lambda: not installation.settings.runtime.exists(), "down", "--purge")
    haneul("down", "--purge", timeout=UP_SECONDS)
    assert leftovers() == []
