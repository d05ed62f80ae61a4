"""Certificates for hosts that bring none."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from haneul.ingress.adapters.issued_certificates import IssuedCertificates
from haneul.ingress.certificates import uncovered
from haneul.kernel.clock import VirtualClock
from haneul.kernel.pki import issue_authority
from tests.unit.ingress.objects import NOW

HOST = "web.first.shop.k8s.example"
LONG = f"{'a' * 60}.{'b' * 60}.k8s.example"


async def test_a_host_keeps_its_certificate_until_it_is_due(tmp_path: Path) -> None:
    clock = VirtualClock(NOW)
    authority = issue_authority("platform", now=NOW)
    issued = IssuedCertificates(tmp_path / "hosts", lambda: authority, clock=clock)
    first = (await issued.certificates([HOST, LONG]))[HOST]
    assert uncovered(first, HOST) == ""
    leaf, signer = x509.load_pem_x509_certificates(first.chain)
    assert leaf.issuer == signer.subject
    again = IssuedCertificates(tmp_path / "hosts", lambda: authority, clock=clock)
    assert (await again.certificates([HOST]))[HOST] == first
    await clock.sleep(timedelta(days=61).total_seconds())
    renewed = (await issued.certificates([HOST]))[HOST]
    assert renewed.digest != first.digest
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    assert context.cert_store_stats()["x509_ca"] == 1


async def test_nobody_else_may_read_them_and_they_go_with_their_hosts(tmp_path: Path) -> None:
    authority = issue_authority("platform", now=NOW)
    folder = tmp_path / "hosts"
    issued = IssuedCertificates(folder, lambda: authority, clock=VirtualClock(NOW))
    found = await issued.certificates([HOST, LONG, "*.apps.k8s.example", ""])
    assert set(found) == {HOST, LONG, "*.apps.k8s.example"}
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    await issued.certificates([HOST])
    assert len(list(folder.iterdir())) == 1


async def test_another_authority_signs_anew(tmp_path: Path) -> None:
    clock = VirtualClock(NOW)
    first, second = (issue_authority(name, now=NOW) for name in ("first", "second"))
    before = await IssuedCertificates(tmp_path, lambda: first, clock=clock).certificates([HOST])
    after = await IssuedCertificates(tmp_path, lambda: second, clock=clock).certificates([HOST])
    assert before[HOST] != after[HOST]
