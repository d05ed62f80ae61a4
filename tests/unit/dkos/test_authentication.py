"""Whom a tenant's API server believes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from haneul.dkos import control_plane, isolation
from haneul.dkos.authentication import IssuerTrust, authentication, token_audience
from haneul.dkos.model import Cluster

TRUST = IssuerTrust("https://192.0.2.10:7443/oidc", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")


def test_the_configuration(native: Cluster, golden: Callable[[str, Any], None]) -> None:
    golden("authentication.yaml", [yaml.safe_load(authentication(native, TRUST))])


def test_nothing_changes_for_clusters_that_trust_no_issuer(native: Cluster) -> None:
    assert "jwt" not in yaml.safe_load(authentication(native, None))
    configuration = control_plane.configurations(native)["kube-apiserver"]
    assert configuration["data"]["authentication.yaml"] == authentication(native, None)


def test_each_cluster_has_an_audience_of_its_own(native: Cluster, cilium: Cluster) -> None:
    [trusted] = yaml.safe_load(authentication(native, TRUST))["jwt"]
    assert trusted["issuer"]["audiences"] == [token_audience(native)]
    assert token_audience(native) != token_audience(cilium)


def test_the_api_server_alone_reaches_the_issuer_and_nothing_else_of_the_platform(native: Cluster) -> None:
    before, after = isolation.network_policies(native), isolation.network_policies(native, TRUST)
    changed = [policy for policy, old in zip(after, before, strict=True) if policy != old]
    assert [policy["metadata"]["name"] for policy in changed] == ["kube-apiserver"]
    assert changed[0]["spec"]["egress"][-1] == {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "haneul-system"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "haneul-api"}},
            }
        ],
        "ports": [{"port": 7443, "protocol": "TCP"}],
    }
