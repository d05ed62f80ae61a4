"""Programs of a host have certificates of their own for the management cluster, short ones, made anew in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import KubeAccess
from haneul.kernel.kube_http import access_from_kubeconfig
from haneul.kernel.kubeconfig import client_kubeconfig
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf
from haneul.management.host_users import INGRESS, LIFE, HostUsers
from haneul.management.settings import ManagementSettings

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SERVER = "https://192.0.2.2:6443"


class Host:
    """A host with kubeadm's authority and administrator."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock(START)
        self.settings = ManagementSettings("192.0.2.2", "host-a", state=folder / "state")
        self.settings.state.mkdir()
        self.kubernetes = folder / "kubernetes"
        (self.kubernetes / "pki").mkdir(parents=True)
        self.users = HostUsers(self.settings, clock=self.clock, kubernetes=self.kubernetes)
        self.file = INGRESS.kubeconfig(self.settings.state)

    def trust(self, authority: KeyPair, server: str = SERVER) -> None:
        """Do what kubeadm does, and `up` after it."""
        (self.kubernetes / "pki/ca.crt").write_bytes(authority.certificate)
        (self.kubernetes / "pki/ca.key").write_bytes(authority.key)
        leaf = issue_leaf(authority, LeafProfile("admin", ("system:masters",), client=True), now=self.clock.now())
        self.settings.admin_kubeconfig.write_bytes(client_kubeconfig(server, authority.certificate, leaf))

    def access(self) -> KubeAccess:
        self.users.ensure()
        return access_from_kubeconfig(self.file)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.trust(issue_authority("kubernetes", now=START))
    return made


def test_a_user_is_nobody_but_itself_for_a_week(host: Host) -> None:
    access = host.access()
    certificate = x509.load_pem_x509_certificate(access.client_certificate)
    assert [(name.oid, name.value) for name in certificate.subject] == [(NameOID.COMMON_NAME, "haneul:host:ingress")]
    assert certificate.not_valid_after_utc == START + LIFE == START + timedelta(days=7)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(access.authority))
    assert access.server == SERVER
    assert host.file.stat().st_mode & 0o777 == 0o600


def test_it_is_made_anew_when_it_is_due_and_not_before(host: Host) -> None:
    first = host.access()
    host.clock.advance(timedelta(days=4).total_seconds())
    assert host.access() == first
    (seen,) = host.users.look()
    assert (seen.name, seen.due(host.clock.now())) == ("credentials/ingress.conf", False)
    host.clock.advance(timedelta(days=1).total_seconds())
    (seen,) = host.users.look()
    assert seen.due(host.clock.now()) and not seen.worrying(host.clock.now())
    assert host.access() != first
    (seen,) = host.users.look()
    assert seen.ends == host.clock.now() + LIFE


@pytest.mark.parametrize(
    "change",
    [
        lambda host: host.trust(issue_authority("kubernetes", now=START)),
        lambda host: host.trust(authority_with_rsa()),
        lambda host: host.trust(
            KeyPair(*((host.kubernetes / f"pki/ca.{kind}").read_bytes() for kind in ("crt", "key"))),
            "https://192.0.2.3:6443",
        ),
        lambda host: host.file.write_text("nonsense"),
        lambda host: host.file.write_bytes(client_kubeconfig(SERVER, host.access().authority, KeyPair(b"", b""))),
        lambda host: host.file.unlink(),
    ],
    ids=["authority", "authority with RSA", "server", "nonsense", "no certificate", "gone"],
)
def test_it_is_made_anew_when_it_would_not_be_let_in(host: Host, change: Callable[[Host], None]) -> None:
    first = host.access()
    change(host)
    access, administrator = host.access(), access_from_kubeconfig(host.settings.admin_kubeconfig)
    assert access.client_certificate != first.client_certificate
    assert (access.server, access.authority) == (administrator.server, administrator.authority)
    certificate = x509.load_pem_x509_certificate(access.client_certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(access.authority))


def test_nothing_is_made_where_no_cluster_is(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.users.ensure()
    assert host.users.look() == []
    assert list(host.settings.state.iterdir()) == []


def authority_with_rsa() -> KeyPair:
    """Return an authority as somebody may have brought it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "company")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return KeyPair(certificate.public_bytes(pem), private)
