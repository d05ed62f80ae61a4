"""The management cluster as kubeadm makes it from what we tell it, with the files of a host: what is gathered, and what
comes of it."""

from __future__ import annotations

import getpass
import grp
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from haneul.compliance.accepted import ACCEPTED
from haneul.compliance.benchmark import evaluate, findings, unexplained
from haneul.compliance.gather import flags_from
from haneul.compliance.gather_host import HostPlaces, gather_management, kubelet_flags
from haneul.compliance.model import Finding, Result
from haneul.kernel.kube import NAMESPACES, NODES, PODS, Manifest
from haneul.kernel.kube_manifests import encryption_configuration
from haneul.management import api_server_files, kubeadm
from haneul.management.runtime import kubelet_configuration
from haneul.management.settings import ManagementSettings
from tests.functional.compliance.test_rendered_clusters import Tenant

#: What kubeadm gives its programs besides what it is told (its documentation, "kubeadm init phase control-plane").
KUBEADM = {
    "kube-apiserver": [
        "--authorization-mode=Node,RBAC",
        "--client-ca-file=/etc/kubernetes/pki/ca.crt",
        "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt",
        "--etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt",
        "--etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key",
        "--kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt",
        "--kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key",
        "--service-account-key-file=/etc/kubernetes/pki/sa.pub",
        "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt",
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
    ],
    "kube-controller-manager": [
        "--bind-address=127.0.0.1",
        "--root-ca-file=/etc/kubernetes/pki/ca.crt",
        "--service-account-private-key-file=/etc/kubernetes/pki/sa.key",
        "--use-service-account-credentials=true",
    ],
    "kube-scheduler": ["--bind-address=127.0.0.1"],
    "etcd": [
        "--cert-file=/etc/kubernetes/pki/etcd/server.crt",
        "--key-file=/etc/kubernetes/pki/etcd/server.key",
        "--client-cert-auth=true",
        "--peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt",
        "--peer-key-file=/etc/kubernetes/pki/etcd/peer.key",
        "--peer-client-cert-auth=true",
    ],
}
_SECTIONS = {
    "kube-apiserver": "apiServer",
    "kube-controller-manager": "controllerManager",
    "kube-scheduler": "scheduler",
}


@pytest.fixture
def settings(tmp_path: Path) -> ManagementSettings:
    return ManagementSettings(
        address="192.0.2.2", host_name="node-1", state=tmp_path / "state", logs=tmp_path / "log", systemd=True
    )


@pytest.fixture
def places(settings: ManagementSettings, tmp_path: Path) -> HostPlaces:
    """A host as `haneul up` leaves it."""
    kubernetes, kubelet, unit = tmp_path / "kubernetes", tmp_path / "kubelet", tmp_path / "haneul-kubelet.service"
    files = {
        kubernetes / "manifests" / f"{name}.yaml": 0o600
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    }
    names = ("admin", "super-admin", "scheduler", "controller-manager", "kubelet")
    files |= {kubernetes / f"{name}.conf": 0o600 for name in names}
    for name in ("ca", "etcd/ca"):
        files |= {kubernetes / "pki" / f"{name}.crt": 0o644, kubernetes / "pki" / f"{name}.key": 0o600}
    files |= {
        kubelet / "config.yaml": 0o600,
        settings.state / "cni" / "net.d" / "05-cilium.conflist": 0o600,
        settings.admin_kubeconfig: 0o600,
        unit: 0o644,
    }
    for path, mode in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"of {path.parent.name}")
        path.chmod(mode)
    for folder in (settings.state / "etcd", settings.clusters / "uid" / "etcd-0" / "member-data"):
        folder.mkdir(parents=True)
        folder.chmod(0o700)
    api_server_files.write(settings)
    settings.encryption.write_text(yaml.safe_dump(encryption_configuration([("first", b"a2V5")])))
    own = tmp_path / "proc" / "17"
    other = tmp_path / "proc" / "18"
    for folder, configuration in ((own, kubelet / "config.yaml"), (other, Path("/run/haneul/kubelet.yaml"))):
        folder.mkdir(parents=True)
        arguments = ("/cache/kubelet", f"--config={configuration}", f"--hostname-override={folder.name}", "")
        (folder / "cmdline").write_bytes("\0".join(arguments).encode())
    return HostPlaces(
        name="node-1",
        state=settings.state,
        definitions=(unit,),
        unit=unit,
        authentication=settings.authentication,
        audit_policy=settings.audit_policy,
        encryption=settings.encryption,
        kubernetes=kubernetes,
        kubelet=kubelet,
        processes=tmp_path / "proc",
    )


async def management(settings: ManagementSettings) -> Tenant:
    """The management cluster's API, with kubeadm's masters and one kubelet."""
    _, cluster, _ = yaml.safe_load_all(kubeadm.configuration(settings, kubernetes="1.37.2", etcd="3.7.0"))
    # What kubeadm adds to a kubelet's configuration, and a kubelet itself.
    configuration = {
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "streamingConnectionIdleTimeout": "4h0m0s",
        **kubelet_configuration(settings),
    }
    client = Tenant({"node-1": configuration})
    for name in ("kube-system", "haneul-system"):
        await client.apply(NAMESPACES, {"metadata": {"name": name}})
    for program, flags in KUBEADM.items():
        asked = cluster.get(_SECTIONS.get(program, ""), {}).get("extraArgs", [])
        command = [program, *flags, *(f"--{one['name']}={one['value']}" for one in asked)]
        metadata = {"name": f"{program}-node-1", "namespace": "kube-system"}
        metadata["labels"] = {"component": program, "tier": "control-plane"}  # type: ignore[assignment]
        pod: Manifest = {"metadata": metadata, "spec": {"containers": [{"name": program, "command": command}]}}
        pod["spec"]["containers"][0]["image"] = f"haneul.local/{program}:v1"
        await client.apply(PODS, pod)
        running = {"status": {"phase": "Running"}}
        await client.patch(PODS, metadata["name"], running, "kube-system", subresource="status")
    await client.apply(NODES, {"metadata": {"name": "node-1"}})
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(NODES, "node-1", {"status": ready}, subresource="status")
    return client


async def found_on(settings: ManagementSettings, places: HostPlaces) -> dict[str, Finding]:
    snapshot = await gather_management(await management(settings), places)
    return {finding.id: finding for finding in findings("management", evaluate(snapshot))}


async def test_a_host_as_up_leaves_it_fails_what_is_known_and_nothing_else(
    settings: ManagementSettings, places: HostPlaces
) -> None:
    found = await found_on(settings, places)
    known = {number for kind, number in ACCEPTED if kind == "management"}
    failing = {number for number, finding in found.items() if finding.result is Result.FAIL}
    if os.geteuid() != 0:
        # Owners are root's where tests run as root only.
        owned = {number for number in failing if ":" in found[number].seen and getpass.getuser() in found[number].seen}
        failing -= owned - known
    assert failing == known
    assert "node-1" in found["4.2.7"].seen and "17" in found["4.2.7"].seen
    assert [one.id for one in found.values() if "could not be seen" in one.seen] == []
    assert found["1.2.1"].result is found["2.7"].result is found["3.2.2"].result is Result.PASS
    assert found["3.1.1"].result is found["5.1.7"].result is Result.WARN
    assert str(places.kubernetes / "super-admin.conf") in found["5.1.7"].seen


async def test_a_tenant_s_etcd_folder_that_others_can_enter_is_found(
    settings: ManagementSettings, places: HostPlaces
) -> None:
    folder = settings.clusters / "uid" / "etcd-0" / "member-data"
    folder.chmod(0o755)
    found = await found_on(settings, places)
    assert found["1.1.11"].result is Result.FAIL
    assert str(folder) in found["1.1.11"].seen
    assert [one.id for one in unexplained(found.values()) if one.id == "1.1.11"]


async def test_a_file_that_is_not_there_is_named(settings: ManagementSettings, places: HostPlaces) -> None:
    (places.kubernetes / "pki" / "etcd" / "ca.crt").unlink()
    found = await found_on(settings, places)
    assert found["2.7"].result is Result.WARN
    assert "etcd/ca.crt" in found["2.7"].seen


def test_owners_have_names_or_numbers(places: HostPlaces) -> None:
    from haneul.compliance.gather_host import _group, _user

    assert _user(os.geteuid()) == getpass.getuser()
    assert _group(os.getegid()) == grp.getgrgid(os.getegid()).gr_name
    assert (_user(54321), _group(54321)) == ("54321", "54321")


def test_only_the_host_s_own_kubelet_counts(places: HostPlaces) -> None:
    assert kubelet_flags(places)["hostname-override"] == "17"
    assert kubelet_flags(replace(places, processes=places.state / "none")) == {}


def test_flags_are_read_as_programs_read_them() -> None:
    line = ["await-connection", "-within=30s", "--", "kube-apiserver", "--a=1", "--a=2=3", "--bare"]
    assert flags_from(line) == {"a": "2=3", "bare": "true"}
