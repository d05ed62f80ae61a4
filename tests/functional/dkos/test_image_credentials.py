"""The node image's program that makes a pod's token what the image hub takes: run as the kubelet runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "components/images/node/files/usr/local/lib/haneul/image-credentials/haneul-hub"
HUB = "hub.k8s.example.com"


def asked(*hosts: str, **more: str) -> dict[str, Any]:
    # One line without spaces, as Go's encoder writes it.
    request = {
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": f"{HUB}/shop/web:v1",
        **more,
    }
    said = subprocess.run(
        [str(PROGRAM), *hosts],
        input=json.dumps(request, separators=(",", ":")) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(said.stdout)
    assert answer["apiVersion"] == "credentialprovider.kubelet.k8s.io/v1"
    assert answer["kind"] == "CredentialProviderResponse"
    assert (answer["cacheKeyType"], answer["cacheDuration"]) == ("Registry", "0s")
    return answer


def test_a_pod_s_token_is_its_password_by_each_of_the_hub_s_names() -> None:
    answer = asked(HUB, f"{HUB}:5443", serviceAccountToken="eyJh-_.eyJz.c2ln")
    entry = {"username": "oidc", "password": "eyJh-_.eyJz.c2ln"}
    assert answer["auth"] == {HUB: entry, f"{HUB}:5443": entry}


def test_who_has_no_token_comes_as_anybody() -> None:
    assert asked(HUB)["auth"] == {}


@pytest.mark.parametrize("value", ['"serviceAccountToken":"mine"', '\\"serviceAccountToken":"mine"'])
def test_nothing_else_in_the_request_is_taken_for_a_token(value: str) -> None:
    assert asked(HUB, image=value)["auth"] == {}
