"""A host's certificates are renewed in time, what reads them is started anew in order, and any end is continued."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.app.examination import expiry_findings, expiry_rows
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import PODS
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf
from haneul.management.certificates import AUTHORITIES, LEAVES, PHASES, STATIC_PODS, Held, held, nearest
from haneul.management.kubeadm import CERTIFICATES_ANNOTATION
from haneul.management.renewal import Doing, HostCertificates
from haneul.management.settings import ManagementSettings

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)
PODS_BY_PHASE = {phase: pod for pod, phase in PHASES.items()}


class EndedError(Exception):
    """The process was killed here."""


class Host:
    """A host on which kubeadm has been: it issues files and writes manifests, and a kubelet starts what changes."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.clock = clock
        self.kubernetes, self.kubelet = folder / "kubernetes", folder / "kubelet"
        self.kubelet.mkdir(parents=True)
        self.settings = ManagementSettings("192.0.2.2", "host-a", state=folder / "state")
        self.api = MemoryKubeClient(clock=clock)
        self.authority = issue_authority("kubernetes", now=clock.now())
        self.done: list[str] = []
        self.end_at = 0
        for name in AUTHORITIES:
            self._write(self.kubernetes / name, self.authority.certificate)
        self.issue(LEAVES)
        self._write(self.kubernetes / "kubelet.conf", b"made by kubeadm")
        self.pair("kubelet-client-current.pem", YEAR)
        self.pair("kubelet.crt", YEAR)

    def issue(self, names: Sequence[str]) -> None:
        for name in names:
            leaf = self.leaf(YEAR)
            if name.endswith(".conf"):
                user = {
                    "client-certificate-data": base64.b64encode(leaf.certificate).decode(),
                    "client-key-data": base64.b64encode(leaf.key).decode(),
                }
                self._write(self.kubernetes / name, yaml.safe_dump({"users": [{"user": user}]}).encode())
            else:
                # Like kubeadm, the key first: who is ended here leaves a key of another certificate.
                self._write((self.kubernetes / name).with_suffix(".key"), leaf.key)
                self._may_end()
                self._write(self.kubernetes / name, leaf.certificate)

    def leaf(self, life: timedelta) -> KeyPair:
        return issue_leaf(self.authority, LeafProfile("x", client=True), now=self.clock.now(), life=life)

    def pair(self, name: str, life: timedelta) -> None:
        leaf = self.leaf(life)
        self._write(self.kubelet / name, leaf.certificate + (leaf.key if name.endswith(".pem") else b""))

    async def kubeadm(self, arguments: Sequence[str]) -> None:
        self._may_end()
        match list(arguments):
            case ["certs", "renew", "all", *_]:
                self.done.append("renew")
                self.issue(LEAVES)
            case ["init", "phase", "kubeconfig", "kubelet", *_]:
                self.done.append("kubelet.conf")
                self._write(self.kubernetes / "kubelet.conf", b"made anew")
            case ["init", "phase", first, second, *_]:
                await self._start(PODS_BY_PHASE[(first, second)])
            case _:
                raise AssertionError(arguments)

    async def _start(self, pod: str) -> None:
        self.done.append(pod)
        patch = yaml.safe_load((self.settings.state / "kubeadm-patches" / f"{pod}.yaml").read_text())
        manifest = {"metadata": {"name": pod, **patch["metadata"]}}
        self._write(self.kubernetes / "manifests" / f"{pod}.yaml", yaml.safe_dump(manifest).encode())
        # The kubelet sees the file whatever becomes of who wrote it.
        name = f"{pod}-host-a"
        await self.api.delete(PODS, name, "kube-system")
        await self.api.create(PODS, {"metadata": {"name": name, "namespace": "kube-system", **patch["metadata"]}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await self.api.patch(PODS, name, ready, "kube-system", subresource="status")
        self._may_end()

    async def restart_kubelet(self) -> None:
        self.done.append("kubelet")
        for name in ("kubelet-client-current.pem", "kubelet.crt"):
            if not (self.kubelet / name).exists():
                self.pair(name, YEAR)

    def certificates(self) -> HostCertificates:
        """What a new process knows: nothing but the files."""

        @contextlib.asynccontextmanager
        async def client() -> AsyncIterator[Any]:
            yield self.api

        doing = Doing(self.kubeadm, self.restart_kubelet, client)
        return HostCertificates(
            self.settings, doing, clock=self.clock, kubernetes=self.kubernetes, kubelet=self.kubelet
        )

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _may_end(self) -> None:
        if self.end_at:
            self.end_at -= 1
            if not self.end_at:
                raise EndedError


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    """A host as `up` leaves it."""
    host = Host(tmp_path, VirtualClock(START))
    await host.certificates().renew()
    host.done.clear()
    return host


def days(host: Host, number: float) -> None:
    host.clock.advance(timedelta(days=number).total_seconds())


async def test_nothing_is_renewed_before_its_time(host: Host) -> None:
    days(host, 200)
    assert not host.certificates().pending()
    await host.certificates().renew()
    assert host.done == []


async def test_all_is_renewed_and_started_anew_in_order_when_a_third_is_left(host: Host) -> None:
    host.pair("kubelet.crt", timedelta(days=3650))
    host.pair("kubelet-client-current.pem", timedelta(days=3650))
    days(host, 250)
    assert host.certificates().pending()
    await host.certificates().renew()
    assert host.done == ["renew", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert not host.certificates().pending()
    administrator = host.settings.admin_kubeconfig
    assert administrator.read_bytes() == (host.kubernetes / "super-admin.conf").read_bytes()
    assert administrator.stat().st_mode & 0o777 == 0o600


async def test_ten_years_pass_without_anybody_doing_anything(host: Host) -> None:
    for _ in range(73 * 9):
        days(host, 5)
        if host.certificates().pending():
            await host.certificates().renew()
        # The kubelet renews its own client certificate.
        host.pair("kubelet-client-current.pem", YEAR)
        assert not [entry for entry in host.certificates().look() if entry.left(host.clock.now()) < timedelta(days=60)]
    assert host.done.count("renew") == 13


@pytest.mark.parametrize("call", range(1, 16))
async def test_renewal_that_is_ended_at_any_point_is_finished_by_the_next(host: Host, call: int) -> None:
    host.pair("kubelet.crt", timedelta(days=3650))
    days(host, 250)
    host.end_at = call
    with contextlib.suppress(EndedError):
        await host.certificates().renew()
    host.end_at = 0
    await host.certificates().renew()
    assert not host.certificates().pending()
    assert all(entry.whole for entry in host.certificates().look())
    for pod in STATIC_PODS:
        seen = await host.api.get(PODS, f"{pod}-host-a", "kube-system")
        written = yaml.safe_load((host.kubernetes / "manifests" / f"{pod}.yaml").read_text())
        assert seen is not None
        assert seen["metadata"]["annotations"] == written["metadata"]["annotations"]
        assert seen["metadata"]["annotations"].keys() == {CERTIFICATES_ANNOTATION}


async def test_kubelet_that_missed_its_renewal_gets_another_credential(host: Host) -> None:
    host.pair("kubelet-client-current.pem", timedelta(days=100))
    days(host, 89)
    assert not host.certificates().pending()
    days(host, 4)
    await host.certificates().renew()
    assert host.done == ["kubelet.conf", "kubelet"]
    assert not host.certificates().pending()


async def test_kubelet_s_serving_certificate_is_made_anew_before_its_end(host: Host) -> None:
    host.pair("kubelet.crt", timedelta(days=100))
    days(host, 70)
    await host.certificates().renew()
    assert host.done == ["kubelet"]
    assert not host.certificates().pending()


async def test_host_without_an_installation_has_nothing_to_renew(tmp_path: Path) -> None:
    settings = ManagementSettings("192.0.2.2", "host-a", state=tmp_path)

    async def never(*_: object) -> None:
        raise AssertionError

    @contextlib.asynccontextmanager
    async def client() -> AsyncIterator[Any]:
        yield MemoryKubeClient()

    found = HostCertificates(
        settings,
        Doing(never, never, client),
        clock=VirtualClock(START),
        kubernetes=tmp_path / "none",
        kubelet=tmp_path / "none",
    )
    assert found.look() == []
    assert not found.pending()
    assert await found.renew_files() is False
    assert expiry_rows([], START) == []


def test_file_that_is_no_certificate_is_an_error() -> None:
    for name, content in (("pki/apiserver.crt", b"nonsense"), ("admin.conf", b"users: []")):
        with pytest.raises(ValueError, match=r".+"):
            held(name, content)


def test_key_of_another_certificate_is_noticed() -> None:
    authority = issue_authority("x", now=START)
    one, other = (issue_leaf(authority, LeafProfile("x", client=True), now=START) for _ in range(2))
    assert held("a.crt", one.certificate, one.key).whole
    assert not held("a.crt", one.certificate, other.key).whole
    assert not held("a.crt", one.certificate, b"").whole
    assert held("a.crt", one.certificate, other.key).due(START)


def entry(name: str, ends_in: float, *, authority: bool = False) -> Held:
    life = 3650 if authority else 365
    ends = START + timedelta(days=ends_in)
    return Held(name, ends - timedelta(days=life), ends, authority)


@pytest.mark.parametrize(
    ("held_", "finding", "severity"),
    [
        (entry("leaf", 300), None, None),
        (entry("leaf", 120), None, None),
        (entry("leaf", 60), "certificate-not-renewed", "warning"),
        (entry("leaf", 0.5), "certificate-not-renewed", "error"),
        (entry("ca", 400, authority=True), None, None),
        (entry("ca", 360, authority=True), "authority-ends", "warning"),
        (entry("ca", 80, authority=True), "authority-ends", "error"),
    ],
)
def test_status_and_doctor_warn_of_what_was_missed(held_: Held, finding: str | None, severity: str | None) -> None:
    found = expiry_findings([held_], START)
    assert [(entry.code, entry.severity) for entry in found] == ([(finding, severity)] if finding else [])
    (row,) = expiry_rows([held_, entry("later", 3000, authority=held_.authority)], START)
    assert (row["name"], row["ready"]) == (held_.name, finding is None)
    assert nearest([held_, entry("later", 3000)]) == held_
