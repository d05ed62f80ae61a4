"""Kernel settings that many containers on one host need, raised by `up` and put back by `down --purge`.

The kubelet and Cilium change some settings on their own; what those were before is written down as well.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final

from haneul.kernel.files import write_atomically

#: The least value of each setting. A containerd, a kubelet and each sandbox node take inotify instances by the dozen.
AT_LEAST: Final = {
    "fs/inotify/max_user_instances": 8192,
    "fs/inotify/max_user_watches": 1048576,
    "kernel/pid_max": 4194304,
    "kernel/keys/maxkeys": 20000,
    "kernel/keys/maxbytes": 2000000,
    "net/ipv4/ip_forward": 1,
    "net/ipv4/neigh/default/gc_thresh3": 8192,
    "net/ipv4/neigh/default/gc_thresh2": 4096,
}
#: Patterns of settings that the kubelet (its documentation, "protectKernelDefaults") and Cilium's agent change.
CHANGED_BY_OTHERS: Final = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/timer_migration",
    "net/core/bpf_jit_enable",
    "net/core/default_qdisc",
    "net/core/fb_tunnels_only_for_init_net",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/ip_early_demux",
    "net/ipv4/ip_local_reserved_ports",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_ROOT: Final = Path("/proc/sys")


def raise_kernel_settings(memory: Path, root: Path = _ROOT) -> None:
    """Raise what is too low below ``root``. The values found first are kept in the file ``memory`` for later."""
    before: dict[str, str] = json.loads(memory.read_text()) if memory.exists() else _changed_by_others(root)
    too_low = {}
    for name, least in AT_LEAST.items():
        path = root / name
        if path.exists() and int(value := path.read_text().strip()) < least:
            too_low[name] = least
            before.setdefault(name, value)
    write_atomically(memory, json.dumps(before, indent=2))
    for name, least in too_low.items():
        (root / name).write_text(str(least))


def restore_kernel_settings(memory: Path, root: Path = _ROOT) -> None:
    """Put back what :func:`raise_kernel_settings` found, as far as it is still there."""
    if memory.exists():
        for name, value in json.loads(memory.read_text()).items():
            path = root / name
            # Settings of interfaces vanish with them, and the kernel refuses to set some to what they were.
            if path.exists() and path.read_text().strip() != str(value):
                with contextlib.suppress(OSError):
                    path.write_text(f"{value}\n")
        memory.unlink()


def _changed_by_others(root: Path) -> dict[str, str]:
    paths = (path for pattern in CHANGED_BY_OTHERS for path in root.glob(pattern))
    return {str(path.relative_to(root)): path.read_text().strip() for path in paths}
