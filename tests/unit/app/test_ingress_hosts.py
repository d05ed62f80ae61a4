"""Hosts that clusters are granted: each one's is nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.app.ingress_hosts import GrantedHosts
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError


@pytest.fixture
def hosts(tmp_path: Path) -> GrantedHosts:
    return GrantedHosts(tmp_path / "ingress" / "hosts.json", zone="k8s.example")


def test_what_is_granted_is_kept_and_taken_back(hosts: GrantedHosts, tmp_path: Path) -> None:
    assert hosts.of("team/shop") == []
    hosts.grant("Shop.Example.com", "team/shop")
    hosts.grant("*.shop.example.com", "team/shop")
    later = GrantedHosts(tmp_path / "ingress" / "hosts.json", zone="k8s.example")
    assert later.of("team/shop") == ["*.shop.example.com", "shop.example.com"]
    later.revoke("shop.example.com")
    assert hosts.of("team/shop") == ["*.shop.example.com"]
    with pytest.raises(NotFoundError):
        hosts.revoke("shop.example.com")


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ("shop.example.com", "shop.example.com"),
        ("*.example.com", "shop.example.com"),
        ("*.example.com", "a.shop.example.com"),
        ("*.example.com", "*.shop.example.com"),
        ("shop.example.com", "*.example.com"),
    ],
)
def test_no_two_clusters_have_a_host_in_common(hosts: GrantedHosts, there: str, wanted: str) -> None:
    hosts.grant(there, "team/shop")
    with pytest.raises(ConflictError):
        hosts.grant(wanted, "other/shop")
    hosts.grant(wanted, "team/shop")


def test_neighbours_are_no_overlap(hosts: GrantedHosts) -> None:
    hosts.grant("*.example.com", "team/shop")
    hosts.grant("example.com", "other/shop")
    hosts.grant("shopexample.com", "other/shop")
    assert len(hosts.all()) == 3


@pytest.mark.parametrize("host", ["k8s.example", "auth.k8s.example", "*.k8s.example", "*.example", "no host", "*"])
def test_the_platforms_own_names_are_nobodys_to_grant(hosts: GrantedHosts, host: str) -> None:
    with pytest.raises(InvalidInputError):
        hosts.grant(host, "team/shop")


@pytest.mark.parametrize("text", ["no json", "[]", '{"a.example": 1}'])
def test_a_spoiled_file_is_said_to_be_one(hosts: GrantedHosts, tmp_path: Path, text: str) -> None:
    (tmp_path / "ingress").mkdir()
    (tmp_path / "ingress" / "hosts.json").write_text(text)
    with pytest.raises(InvalidInputError):
        hosts.all()
