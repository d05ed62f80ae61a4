"""Facts about the machine and about what is measured on it; every report carries them. See proc(5)."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine_facts(root: Path = Path("/")) -> dict[str, str]:
    """Return cores, processor, memory, kernel, distribution and load; files are read below ``root``."""
    processor = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release"), re.MULTILINE)
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": processor[1] if processor else "unknown",
        "memory": f"{int(memory[1]) / (1 << 20):.1f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "system": system[1] if system else "unknown",
        "load before": " ".join(_read(root / "proc/loadavg").split()[:3]),
    }


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
