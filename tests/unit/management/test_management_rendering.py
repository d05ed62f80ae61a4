"""What the management cluster is made with, as reviewed files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.host.services import HostService
from haneul.host.systemd import render_unit
from haneul.management import cilium, kubeadm, runtime
from haneul.management.certificates import STATIC_PODS
from haneul.management.settings import ManagementSettings

Golden = Callable[[str, str], None]
SETTINGS = ManagementSettings(address="192.0.2.2", host_name="node-1")
ON_SYSTEMD = replace(SETTINGS, systemd=True, restrict_oom_score=True, state=Path("/srv/haneul"))


def dumped(*documents: Any) -> str:
    return str(yaml.safe_dump_all(documents, sort_keys=False))


@pytest.mark.parametrize(("name", "settings"), [("plain", SETTINGS), ("systemd", ON_SYSTEMD)])
def test_container_runtime(golden: Golden, name: str, settings: ManagementSettings) -> None:
    golden(
        f"containerd-{name}.toml", runtime.containerd_configuration(settings, pause_image="haneul.local/pause:v3.10")
    )


@pytest.mark.parametrize(("name", "settings"), [("plain", SETTINGS), ("systemd", ON_SYSTEMD)])
def test_kubeadm_and_kubelet(golden: Golden, name: str, settings: ManagementSettings) -> None:
    golden(f"kubeadm-{name}.yaml", kubeadm.configuration(settings, kubernetes="1.37.2", etcd="3.7.0"))


def test_patches_of_static_pods(golden: Golden) -> None:
    digests = {name: f"digest-of-{name}" for name in STATIC_PODS}
    golden("kubeadm-patches.yaml", "---\n".join(f"# {name}\n{text}" for name, text in kubeadm.patches(digests).items()))


def test_network(golden: Golden) -> None:
    golden("cilium.yaml", dumped(*cilium.manifests(SETTINGS, image="haneul.local/cilium:v1.19.1")))


def test_host_services(golden: Golden) -> None:
    services: list[HostService] = [
        runtime.containerd_service(
            SETTINGS, program=Path("/c/containerd"), search_path="/c:/usr/bin", configuration="version = 3"
        ),
        runtime.kubelet_service(SETTINGS, program=Path("/k/kubelet"), search_path="/k:/usr/bin"),
    ]
    golden("services.txt", "\n".join(f"# {service.name}\n{render_unit(service)}" for service in services))


def test_a_changed_configuration_is_a_changed_service() -> None:
    def made(configuration: str) -> HostService:
        return runtime.containerd_service(
            SETTINGS, program=Path("/c/containerd"), search_path="/c", configuration=configuration
        )

    assert made("version = 3") == made("version = 3") != made("version = 4")
    services = [
        runtime.kubelet_service(settings, program=Path("/k/kubelet"), search_path="/k")
        for settings in (SETTINGS, replace(SETTINGS, systemd=not SETTINGS.systemd))
    ]
    assert services[0] != services[1]


def test_nothing_is_fetched_from_anywhere() -> None:
    text = dumped(*cilium.manifests(SETTINGS, image="haneul.local/cilium:v1"))
    images = [line.split(": ")[1] for line in text.splitlines() if line.strip().startswith("image: ")]
    assert set(images) == {"haneul.local/cilium:v1"}
    policies = [line.split(": ")[1] for line in text.splitlines() if "imagePullPolicy: " in line]
    assert policies == ["Never"] * len(images)


def test_cilium_reads_no_secrets_and_ends_no_pods() -> None:
    """Tenants' authorities are Secrets of the management cluster; neither L7 proxy nor ingress needs them here."""
    roles = [entry for entry in cilium.manifests(SETTINGS, image="i") if entry["kind"] == "ClusterRole"]
    rules = [rule for role in roles for rule in role["rules"]]
    assert len(roles) == 2 and len(rules) > 8
    for rule in rules:
        if "cilium.io" not in rule["apiGroups"]:
            assert not {"*", "secrets", "configmaps"} & set(rule["resources"]), rule
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}
    # What would need Secrets must then be off.
    options = cilium.configuration(SETTINGS)
    assert (options["enable-l7-proxy"], options["enable-envoy-config"]) == ("false", "false")
    assert not {"enable-ingress-controller", "enable-gateway-api", "bgp-secrets-namespace"} & set(options)
    assert options["unmanaged-pod-watcher-interval"] == "0"
