"""Kernel settings that many containers on one host need, raised by `up` and put back by `down --purge`."""

from __future__ import annotations

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
_ROOT: Final = Path("/proc/sys")


def raise_kernel_settings(memory: Path) -> None:
    """Raise what is too low. The values found first are kept in the file ``memory`` until they are put back."""
    before: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    too_low = {}
    for name, least in AT_LEAST.items():
        path = _ROOT / name
        if path.exists() and (value := int(path.read_text())) < least:
            too_low[name] = least
            before.setdefault(name, value)
    write_atomically(memory, json.dumps(before, indent=2))
    for name, least in too_low.items():
        (_ROOT / name).write_text(str(least))


def restore_kernel_settings(memory: Path) -> None:
    """Put back what :func:`raise_kernel_settings` found."""
    if memory.exists():
        for name, value in json.loads(memory.read_text()).items():
            (_ROOT / name).write_text(str(value))
        memory.unlink()
