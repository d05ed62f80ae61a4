"""What the API is told of the ranges that no tenant's cluster may touch, and what it makes of it."""

import pytest

from haneul.app.platform import platform_manifests
from haneul.app.reserved import FILE, dumped, loaded, reserved_ranges
from haneul.dkos.admission import admit
from haneul.dkos.model import ClusterSpec, Network
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.kube import Manifest
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.management.settings import ManagementSettings
from tests.functional.api.application import START

SETTINGS = ManagementSettings(
    address="10.0.0.9", host_name="node-1", host_networks=(("10.0.0.0/24", "eth0"), ("172.20.0.0/16", "tun0"))
)


CERTIFICATE = issue_leaf(issue_authority("test", now=START), LeafProfile("api", server=True), now=START)


def rendered(settings: ManagementSettings) -> dict[tuple[str, str], Manifest]:
    manifests = platform_manifests(
        settings=settings, image="i", build="b", certificate=CERTIFICATE, authority="", balancer=""
    )
    return {(entry["kind"], entry["metadata"]["name"]): entry for entry in manifests}


def test_the_api_s_pod_finds_the_ranges_in_its_file() -> None:
    objects = rendered(SETTINGS)
    kept = loaded(objects["ConfigMap", "haneul-api"]["data"][FILE])
    assert kept == reserved_ranges(SETTINGS)
    spec = objects["Deployment", "haneul-api"]["spec"]["template"]["spec"]
    assert {"name": "settings", "configMap": {"name": "haneul-api"}} in spec["volumes"]
    mounts = spec["containers"][0]["volumeMounts"]
    assert any(mount["name"] == "settings" and mount["mountPath"] == "/etc/haneul/settings" for mount in mounts)


def test_the_automatic_choice_goes_around_the_host_s_networks() -> None:
    reserved = loaded(dumped(reserved_ranges(SETTINGS)))
    assert admit("a", ClusterSpec(), project="p", others=[], reserved=reserved).network.pods == "10.0.64.0/18"


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (Network(pods="172.20.0.0/18"), "tun0"),
        (Network(services="10.0.0.0/20"), "eth0"),
        (Network(pods="10.192.4.0/22"), "management cluster's pods"),
        (Network(services="10.193.0.0/20"), "management cluster's services"),
    ],
)
def test_a_range_of_the_host_s_is_refused(network: Network, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word) as caught:
        admit("a", ClusterSpec(network=network), project="p", others=[], reserved=reserved_ranges(SETTINGS))
    assert caught.value.hint


def test_the_api_is_rolled_when_the_host_s_networks_change_and_only_then() -> None:
    def build(settings: ManagementSettings) -> str:
        return str(rendered(settings)["Deployment", "haneul-api"]["spec"]["template"]["metadata"]["annotations"])

    moved = ManagementSettings(address="10.0.0.9", host_name="node-1", host_networks=(("10.0.0.0/24", "eth0"),))
    assert build(SETTINGS) == build(SETTINGS) != build(moved)
