"""What the platform itself is made of in the management cluster, as a reviewed file."""

from datetime import UTC, datetime
from pathlib import Path

import yaml

from haneul.app.platform import platform_manifests
from haneul.kernel.kube import Manifest
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.management.settings import ManagementSettings
from tests.golden import compare

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def rendered(*, names_key: str | None = None) -> list[Manifest]:
    certificate = issue_leaf(issue_authority("test", now=NOW), LeafProfile("api", server=True), now=NOW)
    return platform_manifests(
        settings=ManagementSettings(
            address="192.0.2.2",
            host_name="node-1",
            host_networks=(("192.0.2.0/24", "eth0"), ("10.0.0.2/32", "name server")),
        ),
        image="haneul.local/platform:v1",
        build="build-1",
        certificate=certificate,
        authority="-----BEGIN CERTIFICATE-----\n",
        names_key=names_key,
        balancer="pools: []\n",
    )


def test_the_platform_s_manifests() -> None:
    manifests = rendered()
    # Keys differ from run to run; the schemas of custom resources come from their models.
    shown = [entry for entry in manifests if entry["kind"] not in ("Secret", "CustomResourceDefinition")]
    assert len(shown) == len(manifests) - 4
    compare(Path(__file__).parent / "golden", "platform.yaml", str(yaml.safe_dump_all(shown, sort_keys=False)))


def test_another_key_of_the_zones_rolls_out_who_publishes_and_stands_in_no_deployment() -> None:
    def deployments(key: str) -> dict[str, Manifest]:
        return {entry["metadata"]["name"]: entry for entry in rendered(names_key=key) if entry["kind"] == "Deployment"}

    before, same, after = deployments("first-key"), deployments("first-key"), deployments("another-key")
    assert before == same
    assert [name for name in before if before[name] != after[name]] == ["haneul-dns"]
    assert "first-key" not in str(before)
