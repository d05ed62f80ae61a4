"""What every containerd of ours is told, on hosts and on nodes (containerd, "CRI Plugin Config Guide")."""

from __future__ import annotations

from typing import Final

#: Plugins that nothing here uses, each of which takes time at the start.
DISABLED_PLUGINS: Final = """\
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]"""
#: By default containerd asks the shim of every container, every second, how much processor time was used. The kubelet
#: reads that from the cgroups itself, unless its feature gate PodAndContainerStatsFromCRI is on.
SPARING_STATISTICS: Final = """\
stats_collect_period = "1m"
stats_retention_period = "5m\""""
