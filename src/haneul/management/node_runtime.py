"""How this host runs node pods: a runtime of their own, and the system calls that they are refused.

A node pod with the native network has users of its own (Kubernetes documentation "User Namespaces"): root in it is
nobody on the host. It makes control groups for its own pods, so its root has to own the pod's: on hosts with the
newer hierarchy runc hands that over, on hosts with the older one nobody does. A hook of the OCI runtime (runtime
specification "POSIX-platform Hooks", createRuntime) does it for both, once the groups are there and before anything
of the pod runs. It hands over the right to make groups below; the pod's own limits stay the host's.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any, Final

from haneul.kernel.files import write_atomically
from haneul.management.settings import ManagementSettings

#: The runtime's name for containerd, and for the management cluster that of the RuntimeClass.
HANDLER: Final = "haneul-node"
#: Where the kubelet looks for the profiles that pods name.
SECCOMP_FOLDER: Final = Path("/var/lib/kubelet/seccomp")
#: The names of the profiles: of nodes, and of nodes whose network consists of BPF programs.
PROFILE, BPF_PROFILE = "haneul-node.json", "haneul-node-bpf.json"

_HOOK: Final = Path(__file__).with_name("own-control-groups")
_HOOK_SECONDS: Final = 10
#: What concerns the machine as a whole, which is never a node's to change; and ways around the boundaries of files.
_REFUSED: Final = (
    *("create_module", "delete_module", "finit_module", "init_module", "query_module"),
    *("kexec_file_load", "kexec_load", "reboot"),
    *("ioperm", "iopl", "pciconfig_iobase", "pciconfig_read", "pciconfig_write"),
    *("acct", "quotactl", "quotactl_fd", "swapoff", "swapon"),
    *("adjtimex", "clock_adjtime", "clock_settime", "settimeofday", "stime"),
    *("fanotify_init", "lookup_dcookie", "nfsservctl", "open_by_handle_at", "syslog"),
    *("io_uring_enter", "io_uring_register", "io_uring_setup", "userfaultfd"),
    *("_sysctl", "sysfs", "uselib", "ustat", "vm86", "vm86old"),
)
#: What only a network of BPF programs needs: to load them, and to hear from them (through rings of perf events).
_REFUSED_WITHOUT_BPF: Final = ("bpf", "perf_event_open")
_ARCHITECTURES: Final = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def seccomp_profile(machine: str, *, bpf: bool) -> str:
    """Return the profile of node pods on a kind of machine (runtime specification "Seccomp").

    Everything is allowed but what is listed: containers in a node get the runtime's own, far narrower one besides.
    """
    names = sorted({*_REFUSED, *(() if bpf else _REFUSED_WITHOUT_BPF)})
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": _ARCHITECTURES.get(machine, []),
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    return json.dumps(profile, indent=1) + "\n"


def base_specification(default: str, hook: Path) -> str:
    """Return what containers of the runtime are made from: containerd's ``default`` with the hook.

    Without a base, containerd's part for Kubernetes takes away what its default brings for people at a terminal; what
    a base brings, it keeps.
    """
    specification = json.loads(default)
    for name in ("apparmorProfile", "noNewPrivileges", "rlimits"):
        specification["process"].pop(name, None)
    specification.get("linux", {}).pop("seccomp", None)
    hooks = [{"path": str(hook), "args": [hook.name], "timeout": _HOOK_SECONDS}]
    specification["hooks"] = {"createRuntime": hooks}
    return json.dumps(specification, sort_keys=True)


def specification_file(settings: ManagementSettings) -> Path:
    """Return the file of the base specification."""
    return settings.state / "node-runtime.json"


def write_files(settings: ManagementSettings, default: str, folder: Path = SECCOMP_FOLDER) -> str:
    """Write the hook, the base specification and the profiles; return the specification."""
    hook = settings.state / _HOOK.name
    write_atomically(hook, _HOOK.read_text(), mode=0o755)
    specification = base_specification(default, hook)
    write_atomically(specification_file(settings), specification)
    folder.mkdir(parents=True, exist_ok=True)
    for name, bpf in ((PROFILE, False), (BPF_PROFILE, True)):
        write_atomically(folder / name, seccomp_profile(platform.machine(), bpf=bpf))
    return specification
