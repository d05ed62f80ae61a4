"""Clusters and their surroundings as DKOS's tests need them, and the comparison with golden files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import Cluster, ClusterSpec, Network, NetworkPlugin, NodePool
from tests.golden import compare

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
_GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


def _cluster(name: str, plugin: NetworkPlugin) -> Cluster:
    network = Network(plugin=plugin, pods="10.0.64.0/18", services="10.128.16.0/20")
    pools = (NodePool(name="default", count=2), NodePool(name="big", count=1, cpu=3.5, memory_mib=4096))
    return Cluster(
        project="shop",
        name=name,
        uid=f"uid-of-{name}",
        generation=1,
        created=NOW,
        spec=ClusterSpec(network=network, node_pools=pools),
    )


@pytest.fixture(scope="session")
def native() -> Cluster:
    """A cluster with the native network and three nodes in two pools."""
    return _cluster("plain", NetworkPlugin.NATIVE)


@pytest.fixture(scope="session")
def cilium() -> Cluster:
    """The same with Cilium."""
    return _cluster("meshed", NetworkPlugin.CILIUM)


@pytest.fixture(scope="session")
def endpoints() -> Endpoints:
    return Endpoints(("10.193.0.20",), "10.193.0.21", "10.128.16.1", "192.0.2.10", 31234)


@pytest.fixture(scope="session")
def images() -> Images:
    names = ("etcd", "apiserver", "controller_manager", "scheduler", "toolbox", "node", "cilium")
    return Images(**{name: f"haneul.local/{name.replace('_', '-')}:v1" for name in names})


Golden = Callable[[str, object], None]


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Compare with a golden file of this folder; what is no text is written as YAML."""

    def compare_rendered(name: str, rendered: object) -> None:
        text = rendered if isinstance(rendered, str) else yaml.dump(rendered, Dumper=_Plain, sort_keys=False, width=120)
        compare(_GOLDEN, name, text)

    return compare_rendered


class _Plain(yaml.SafeDumper):
    """Text of many lines as it reads, and everything written out instead of referred to."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Plain.add_representer(str, _text)
