"""Clusters of the platform whose pods are let in: a file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from haneul.d2hub.adapters.cluster_trusts import ClusterTrusts
from haneul.d2hub.model import Action, Allowance
from haneul.d2hub.workloads import Trust

AUDIENCE = "hub.k8s.example.com"
OTHER = Trust("ci", "https://ci.test", AUDIENCE, ())


class Nobody:
    def trusts(self) -> Sequence[Trust]:
        return (OTHER,)


def key(name: str) -> dict[str, Any]:
    return dict(ECKey.generate_key("P-256", {"kid": name, "use": "sig"}).as_dict(private=False))


def document(**more: Any) -> str:
    whole = {"issuer": "https://kubernetes.default.svc", "audience": AUDIENCE, "keys": [key("one")], **more}
    return json.dumps({name: value for name, value in whole.items() if value is not None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    return clusters


@pytest.fixture
def trusts(folder: Path) -> ClusterTrusts:
    return ClusterTrusts(folder, folder.parent / "reporter.json", Nobody())


def test_a_hub_that_runs_alone_trusts_whom_it_trusted(tmp_path: Path) -> None:
    trusts = ClusterTrusts(tmp_path / "none", tmp_path / "reporter.json", Nobody())
    assert trusts.trusts() == [OTHER]


def test_pods_of_a_cluster_may_pull_what_is_their_project_s(folder: Path, trusts: ClusterTrusts) -> None:
    (folder / "uid.json").write_text(document(project="shop", cluster="web"))
    _, trust = trusts.trusts()
    assert (trust.name, trust.audience) == ("shop/web", AUDIENCE)
    (rule,) = trust.rules
    assert rule.allowance == Allowance(("shop/*",), frozenset({Action.PULL}))
    assert rule.matches({"sub": "system:serviceaccount:default:default"})
    assert not rule.matches({"sub": "system:node:default-1"})
    assert trust.may_have_signed("https://kubernetes.default.svc", "one")
    assert not trust.may_have_signed("https://kubernetes.default.svc", "another")
    assert not trust.may_have_signed("https://kubernetes.default.svc", None)
    assert not trust.may_have_signed("https://elsewhere", "one")


def test_files_are_taken_up_as_they_come_change_and_go(folder: Path, trusts: ClusterTrusts) -> None:
    (folder / "uid.json").write_text(document(project="shop", cluster="web"))
    assert len(trusts.trusts()) == 2
    # Half-written ones are not looked at.
    (folder / ".other.json.7.tmp").write_text("{")
    (folder / ".other.json").write_text("{")
    assert len(trusts.trusts()) == 2
    changed = folder / "changed"
    changed.write_text(document(project="shop", cluster="web", keys=[key("one"), key("second")]))
    changed.rename(folder / "uid.json")
    _, trust = trusts.trusts()
    assert trust.may_have_signed("https://kubernetes.default.svc", "second")
    (folder / "uid.json").unlink()
    assert trusts.trusts() == [OTHER]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        document(project="shop"),
        document(project="shop/..", cluster="web"),
        document(project="*", cluster="web"),
        document(project="shop", cluster="web", keys=[]),
        document(project="shop", cluster="web", keys=[{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]),
        document(project="shop", cluster="web", keys=[{"kty": "EC", "kid": "one"}]),
        document(project="shop", cluster="web", keys=[{**key("one"), "kid": ""}]),
        document(project="shop", cluster="web", more=1),
    ],
)
def test_what_is_wrong_lets_nobody_in_and_keeps_nobody_out(text: str, folder: Path, trusts: ClusterTrusts) -> None:
    (folder / "a.json").write_text(text)
    (folder / "b.json").write_text(document(project="shop", cluster="web"))
    assert [trust.name for trust in trusts.trusts()] == ["ci", "shop/web"]


def test_who_reports_may_for_the_projects_that_have_clusters(folder: Path, trusts: ClusterTrusts) -> None:
    subject = "system:serviceaccount:haneul-hub:haneul-hub"
    (folder.parent / "reporter.json").write_text(document(subject=subject))
    assert trusts.trusts() == [OTHER]
    for name, project in (("a", "shop"), ("b", "lab"), ("c", "shop")):
        (folder / f"{name}.json").write_text(document(project=project, cluster=name))
    (reporter,) = [trust for trust in trusts.trusts() if trust.name == "reporter"]
    (rule,) = reporter.rules
    # Their names alone: those are no names of people's repositories.
    assert rule.allowance == Allowance(("lab", "shop"), frozenset({Action.PUSH}))
    assert rule.matches({"sub": subject})
    assert not rule.matches({"sub": "system:serviceaccount:default:default"})
