"""Hosts that clusters are granted: each one's is nobody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from haneul.app.ingress_hosts import GrantedHosts, Grantee
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError

SHOP, OTHER = Grantee("team/shop", "uid-1"), Grantee("other/shop", "uid-2")


@pytest.fixture
def hosts(tmp_path: Path) -> GrantedHosts:
    return GrantedHosts(tmp_path / "ingress" / "hosts.json", zone="k8s.example")


def test_what_is_granted_is_kept_and_taken_back(hosts: GrantedHosts, tmp_path: Path) -> None:
    assert hosts.of("uid-1") == []
    hosts.grant("Shop.Example.com", SHOP)
    hosts.grant("*.shop.example.com", SHOP)
    later = GrantedHosts(tmp_path / "ingress" / "hosts.json", zone="k8s.example")
    assert later.of("uid-1") == ["*.shop.example.com", "shop.example.com"]
    later.revoke("shop.example.com")
    assert hosts.of("uid-1") == ["*.shop.example.com"]
    with pytest.raises(NotFoundError):
        hosts.revoke("shop.example.com")


def test_grants_end_with_their_cluster_and_not_with_its_name(hosts: GrantedHosts) -> None:
    hosts.grant("shop.example.com", SHOP)
    again = replace(SHOP, uid="uid-3")
    assert hosts.of(again.uid) == []
    # As long as the first one's stands, nobody else gets it; not even who has its name now.
    with pytest.raises(ConflictError):
        hosts.grant("shop.example.com", again)
    hosts.grant("other.example.com", OTHER)
    assert hosts.end(SHOP) == ["shop.example.com"]
    assert hosts.end(SHOP) == []
    assert hosts.all() == {"other.example.com": OTHER}
    hosts.grant("shop.example.com", again)
    assert hosts.of(again.uid) == ["shop.example.com"]


def test_a_grant_that_is_older_than_ids_is_for_the_cluster_that_has_the_name_first(
    hosts: GrantedHosts, tmp_path: Path
) -> None:
    (tmp_path / "ingress").mkdir()
    (tmp_path / "ingress" / "hosts.json").write_text('{"shop.example.com": "team/shop", "b.example.com": "other/shop"}')
    assert hosts.of(SHOP.uid) == []
    hosts.adopt(SHOP)
    hosts.adopt(replace(SHOP, uid="uid-3"))
    assert hosts.all() == {"shop.example.com": SHOP, "b.example.com": Grantee("other/shop", "")}


def test_a_grant_that_is_older_than_ids_ends_with_the_cluster_that_has_the_name(
    hosts: GrantedHosts, tmp_path: Path
) -> None:
    (tmp_path / "ingress").mkdir()
    (tmp_path / "ingress" / "hosts.json").write_text('{"shop.example.com": "team/shop", "b.example.com": "other/shop"}')
    assert hosts.end(SHOP) == ["shop.example.com"]
    hosts.adopt(replace(SHOP, uid="uid-3"))
    assert hosts.all() == {"b.example.com": Grantee("other/shop", "")}


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
    hosts.grant(there, SHOP)
    with pytest.raises(ConflictError):
        hosts.grant(wanted, OTHER)
    hosts.grant(wanted, SHOP)


def test_neighbours_are_no_overlap(hosts: GrantedHosts) -> None:
    hosts.grant("*.example.com", SHOP)
    hosts.grant("example.com", OTHER)
    hosts.grant("shopexample.com", OTHER)
    assert len(hosts.all()) == 3


@pytest.mark.parametrize("host", ["k8s.example", "auth.k8s.example", "*.k8s.example", "*.example", "no host", "*"])
def test_the_platforms_own_names_are_nobodys_to_grant(hosts: GrantedHosts, host: str) -> None:
    with pytest.raises(InvalidInputError):
        hosts.grant(host, SHOP)


@pytest.mark.parametrize("text", ["no json", "[]", '{"a.example": 1}'])
def test_a_spoiled_file_is_said_to_be_one(hosts: GrantedHosts, tmp_path: Path, text: str) -> None:
    (tmp_path / "ingress").mkdir()
    (tmp_path / "ingress" / "hosts.json").write_text(text)
    with pytest.raises(InvalidInputError):
        hosts.all()
