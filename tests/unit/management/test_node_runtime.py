"""The runtime of node pods: what is refused to them, and the hook that hands control groups over."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from haneul.management.node_runtime import (
    BPF_PROFILE,
    PROFILE,
    base_specification,
    seccomp_profile,
    specification_file,
    write_files,
)
from haneul.management.settings import ManagementSettings

HOOK = Path(__file__).parents[3] / "src/haneul/management/own-control-groups"


@pytest.mark.parametrize("call", ["init_module", "finit_module", "kexec_load", "iopl", "open_by_handle_at", "swapon"])
def test_what_concerns_the_machine_is_refused_to_every_node(call: str) -> None:
    for bpf in (False, True):
        (rule,) = json.loads(seccomp_profile("x86_64", bpf=bpf))["syscalls"]
        assert rule["action"] == "SCMP_ACT_ERRNO" and call in rule["names"]


def test_bpf_is_only_for_nodes_whose_network_is_made_of_it() -> None:
    refused = [json.loads(seccomp_profile("x86_64", bpf=bpf))["syscalls"][0]["names"] for bpf in (False, True)]
    assert set(refused[0]) - set(refused[1]) == {"bpf", "perf_event_open"}


def test_older_system_calls_of_the_same_processor_are_no_way_around() -> None:
    assert "SCMP_ARCH_X86" in json.loads(seccomp_profile("x86_64", bpf=False))["architectures"]
    assert "SCMP_ARCH_ARM" in json.loads(seccomp_profile("aarch64", bpf=False))["architectures"]


def test_runtime_differs_from_the_usual_one_by_the_hook_alone() -> None:
    default: dict[str, Any] = {"ociVersion": "1.2.0", "process": {"cwd": "/"}, "linux": {"cgroupsPath": "/x"}}
    terminal = {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}], "noNewPrivileges": True}
    given = {**default, "process": {**default["process"], **terminal}}
    made = json.loads(base_specification(json.dumps(given), Path("/state/hook")))
    (hook,) = made.pop("hooks").pop("createRuntime")
    assert made == default
    assert hook["path"] == "/state/hook" and hook["timeout"] > 0


def test_files_are_where_containerd_and_the_kubelet_look(tmp_path: Path) -> None:
    settings = ManagementSettings("192.0.2.10", "host-1", state=tmp_path / "state")
    settings.state.mkdir()
    written = write_files(settings, '{"process": {}}', tmp_path / "seccomp")
    assert specification_file(settings).read_text() == written
    (hook,) = json.loads(written)["hooks"]["createRuntime"]
    assert stat.S_IMODE(Path(hook["path"]).stat().st_mode) == 0o755
    for name in (PROFILE, BPF_PROFILE):
        assert json.loads((tmp_path / "seccomp" / name).read_text())["defaultAction"] == "SCMP_ACT_ALLOW"


def test_hook_refuses_a_state_without_a_process_and_leaves_the_host_s_root_alone() -> None:
    def run(state: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(HOOK)], input=state, capture_output=True, text=True, timeout=30, check=False)

    assert run('{"status": "creating"}').returncode != 0
    if Path("/proc/1/uid_map").read_text().split()[:2] != ["0", "0"]:
        pytest.skip("the first process has other users than the host")
    # That has the users of the host, so nothing changes hands.
    done = run('{"ociVersion": "1.2.0", "id": "x", "pid": 1, "bundle": "/x"}')
    assert done.returncode == 0, done.stderr
