"""What the platform's own accounts may do with events and with keys: no more than they need."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from haneul.app.platform import platform_manifests
from haneul.kernel.kube import Manifest, resource_of
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.management.settings import ManagementSettings

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    authority = issue_authority("test", now=NOW)
    certificate = issue_leaf(authority, LeafProfile("haneul-api", server=True), now=NOW, life=timedelta(days=90))
    settings = ManagementSettings(address="192.0.2.10", host_name="host-a")
    return platform_manifests(
        settings=settings,
        image="haneul.local/platform:v1",
        build="b",
        certificate=certificate,
        authority=authority.certificate.decode(),
        balancer="pools: []\n",
    )


def role(manifests: list[Manifest], name: str) -> list[dict[str, Any]]:
    (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("ClusterRole", name)]
    rules: list[dict[str, Any]] = found["rules"]
    return rules


def verbs(rules: list[dict[str, Any]], group: str, resource: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for rule in rules:
        if group in rule["apiGroups"] and resource in rule["resources"]:
            names = tuple(rule.get("resourceNames", ()))
            yield from ((verb, names) for verb in rule["verbs"])


def test_the_operator_writes_events_and_may_let_the_api_read_them(manifests: list[Manifest]) -> None:
    rules = role(manifests, "haneul-operator")
    assert {verb for verb, _ in verbs(rules, "events.k8s.io", "events")} == {"get", "create", "patch"}
    cluster_roles = set(verbs(rules, "rbac.authorization.k8s.io", "clusterroles"))
    assert cluster_roles == {("bind", ("haneul-event-reader",))}


def test_the_api_reads_events_only_where_it_is_let(manifests: list[Manifest]) -> None:
    assert list(verbs(role(manifests, "haneul-api"), "events.k8s.io", "events")) == []
    assert role(manifests, "haneul-event-reader") == [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list"]}
    ]
    bound = [m["roleRef"]["name"] for m in manifests if m["kind"].endswith("RoleBinding")]
    assert "haneul-event-reader" not in bound


def test_the_api_makes_and_deletes_keys_to_machines_and_never_reads_one(manifests: list[Manifest]) -> None:
    (rules,) = [m["rules"] for m in manifests if m["kind"] == "Role" and m["metadata"]["namespace"] == "haneul-keys"]
    assert {verb for verb, _ in verbs(rules, "", "secrets")} == {"create", "delete"}
    assert list(verbs(role(manifests, "haneul-api"), "", "secrets")) == []


def test_programs_of_the_host_are_users_with_what_they_do_in_one_namespace(manifests: list[Manifest]) -> None:
    bindings = [m for m in manifests if m["kind"].endswith("Binding") and "subjects" in m]
    users = [(m, subject["name"]) for m in bindings for subject in m["subjects"] if subject["kind"] == "User"]
    ((binding, name),) = users
    assert (name, binding["kind"]) == ("haneul:host:ingress", "RoleBinding")
    place = (binding["metadata"]["namespace"], binding["roleRef"]["name"])
    (rules,) = [
        m["rules"]
        for m in manifests
        if m["kind"] == "Role" and (m["metadata"]["namespace"], m["metadata"]["name"]) == place
    ]
    assert place[0] == "haneul-ingress"
    assert {verb for verb, _ in verbs(rules, "", "secrets")} == {"list", "watch", "patch", "delete"}
    assert {verb for verb, _ in verbs(rules, "", "configmaps")} == {"list", "delete"}
    assert len(rules) == 2


def test_everything_is_of_a_kind_that_can_be_applied(manifests: list[Manifest]) -> None:
    assert all(resource_of(manifest).kind == manifest["kind"] for manifest in manifests)
