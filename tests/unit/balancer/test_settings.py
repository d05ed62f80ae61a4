"""The file that names a balancer and its pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.balancer.settings import NftablesSettings, read_settings
from haneul.kernel.errors import InvalidInputError

POOLS: list[dict[str, Any]] = [
    {"name": "public", "addresses": ["192.0.2.0/28", "198.51.100.10-198.51.100.20"], "projects": ["shop"]},
    {"name": "inner", "addresses": ["10.9.0.1"]},
]
GOOD: dict[str, Any] = {"kind": "haproxy", "folder": "/var/lib/haneul-balancer", "user": "haproxy", "pools": POOLS}


KERNEL: dict[str, Any] = {"kind": "nftables", "folder": "/var/lib/haneul-balancer", "pools": POOLS}
SHARE: dict[str, Any] = {"device": "eth0", "address": "10.0.0.2", "peers": ["10.0.0.3"]}


def written(folder: Path, document: Any) -> Path:
    file = folder / "balancer.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_pools_are_for_their_projects(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, GOOD))
    assert [pool.name for pool in settings.pools_of("shop")] == ["public", "inner"]
    assert [pool.name for pool in settings.pools_of("other")] == ["inner"]
    [public, inner] = settings.pools_of("shop")
    for address, inside in {"192.0.2.0": True, "192.0.2.15": True, "192.0.2.16": False, "198.51.100.20": True}.items():
        assert (address in public) is inside
    assert "10.9.0.1" in inner
    assert "2001:db8::1" not in inner


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "other"}, "kind"),
        ({"folder": "relative"}, "absolute path"),
        ({"folder": "/a b"}, "absolute path"),
        ({"folder": "/a\n    user root"}, "absolute path"),
        ({"folder": "/" + "x" * 80}, "absolute path"),
        ({"user": "ha proxy"}, "user"),
        ({"maxConnections": 1}, "maxConnections"),
        ({"pools": []}, "pools"),
        ({"pools": [{"name": "a", "addresses": ["10.0.0.0/33"]}]}, "addresses"),
        ({"pools": [{"name": "a", "addresses": ["10.0.0.9-10.0.0.1"]}]}, "ends before it begins"),
        ({"pools": [{"name": "a", "addresses": ["10.0.0.9-fd00::1"]}]}, "ends before it begins"),
        ({"pools": [{"name": "A b", "addresses": ["10.0.0.1"]}]}, "label"),
        ({"pools": [POOLS[1], {"name": "inner", "addresses": ["10.9.0.2"]}]}, "same name"),
        ({"pools": [POOLS[1], {"name": "b", "addresses": ["10.9.0.0/24"]}]}, "in common"),
        ({"more": 1}, "more"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_settings(written(tmp_path, {**GOOD, **change}))
    assert word in caught.value.detail


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mode": "tunnel"}, "mode"),
        ({"mode": "direct"}, "cannot do without"),
        ({"device": "eth0"}, "cannot do without"),
        ({"mode": "direct", "device": 'eth0" accept'}, "device"),
        ({"user": "haproxy"}, "user"),
        ({"share": {**SHARE, "peers": []}}, "peers"),
        ({"share": {**SHARE, "peers": ["10.0.0.2"]}}, "no peer of itself"),
        ({"share": {**SHARE, "device": "a b"}}, "device"),
        ({"share": {**SHARE, "address": "10.0.0.2\n}"}}, "address"),
        ({"share": {**SHARE, "router": 256}}, "router"),
        ({"share": {**SHARE, "advertMilliseconds": 5}}, "advert"),
        ({"share": SHARE, "pools": [{"name": "a", "addresses": ["10.9.0.0/23"]}]}, "cannot be shared"),
    ],
)
def test_settings_of_the_kernel_and_of_shares_that_cannot_be(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_settings(written(tmp_path, {**KERNEL, **change}))
    assert word in caught.value.detail


def test_a_kernel_and_machines_that_share(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, {**KERNEL, "mode": "direct", "device": "eth1", "share": SHARE}))
    assert isinstance(settings, NftablesSettings)
    assert settings.share
    assert (settings.share.router, settings.share.advert_milliseconds) == (51, 500)
    assert settings.addresses()[:2] == ("192.0.2.0", "192.0.2.1")
    assert len(settings.addresses()) == 16 + 11 + 1


@pytest.mark.parametrize("text", ["", "- a list", "{", "kind: haproxy", "\x00"])
def test_files_that_say_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "balancer.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError):
        read_settings(file)
    with pytest.raises(InvalidInputError):
        read_settings(tmp_path / "nowhere.yaml")
