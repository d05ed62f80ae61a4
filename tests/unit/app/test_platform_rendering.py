"""What the platform itself is made of in the management cluster, as a reviewed file."""

from datetime import UTC, datetime
from pathlib import Path

import yaml

from haneul.app.platform import platform_manifests
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.management.settings import ManagementSettings
from tests.golden import compare

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_the_platform_s_manifests() -> None:
    certificate = issue_leaf(issue_authority("test", now=NOW), LeafProfile("api", server=True), now=NOW)
    manifests = platform_manifests(
        settings=ManagementSettings(
            address="192.0.2.2",
            host_name="node-1",
            host_networks=(("192.0.2.0/24", "eth0"), ("10.0.0.2/32", "name server")),
        ),
        image="haneul.local/platform:v1",
        build="build-1",
        certificate=certificate,
        authority="-----BEGIN CERTIFICATE-----\n",
        balancer="pools: []\n",
    )
    # Keys differ from run to run; the schemas of custom resources come from their models.
    shown = [entry for entry in manifests if entry["kind"] not in ("Secret", "CustomResourceDefinition")]
    assert len(shown) == len(manifests) - 4
    compare(Path(__file__).parent / "golden", "platform.yaml", str(yaml.safe_dump_all(shown, sort_keys=False)))
