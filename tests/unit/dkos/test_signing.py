"""Requests are answered once, those that came too early as soon as they can be, and failures are tried again."""

from __future__ import annotations

import base64
import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haneul.dkos.events import Event
from haneul.dkos.joining import SERVING_SIGNER, AnnouncedNode
from haneul.dkos.model import Cluster
from haneul.dkos.signing import NodeSigner
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import CERTIFICATE_REQUESTS, KubeApiError, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import KeyPair, issue_authority

ADDRESS = "192.0.2.7"


async def barred_by_nothing(_: str) -> str:
    return ""


class FailingOnce(MemoryKubeClient):
    """Does not answer the next patch."""

    failures = 0

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the Kubernetes API does not answer")
        return await super().patch(resource, name, patch, namespace, subresource=subresource)


@pytest.fixture
def clock(native: Cluster) -> VirtualClock:
    return VirtualClock(native.created)


@pytest.fixture
def authority(clock: VirtualClock) -> KeyPair:
    return issue_authority("test", now=clock.now())


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def signer(authority: KeyPair, clock: VirtualClock, told: list[Event]) -> NodeSigner:
    return NodeSigner(authority=authority, clock=clock, tell=told.append, bars=barred_by_nothing)


@pytest.fixture
def client(clock: VirtualClock) -> FailingOnce:
    return FailingOnce(clock=clock)


async def _ask(client: MemoryKubeClient, *, address: str = ADDRESS) -> Manifest:
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, "system:node:default-0"),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    names = [x509.DNSName("default-0"), x509.IPAddress(ipaddress.ip_address(address))]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    spec = {
        "signerName": SERVING_SIGNER,
        "username": "system:node:default-0",
        "usages": ["digital signature", "server auth"],
        "request": base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode(),
    }
    return await client.create(CERTIFICATE_REQUESTS, {"metadata": {"name": "csr-1"}, "spec": spec})


async def _status(client: MemoryKubeClient) -> Manifest:
    found = await client.get(CERTIFICATE_REQUESTS, "csr-1")
    assert found is not None
    status: Manifest = found.get("status", {})
    return status


def _announced(address: str = ADDRESS) -> dict[str, AnnouncedNode]:
    return {"default-0": AnnouncedNode("default-0", "system:bootstrap:abcdef", address)}


async def test_signed_certificate_is_the_authority_s_and_ends_within_the_week(
    signer: NodeSigner, client: FailingOnce, authority: KeyPair, clock: VirtualClock, told: list[Event]
) -> None:
    await signer.announce(client, _announced())
    await signer.answer(client, await _ask(client))
    leaf = x509.load_pem_x509_certificate(base64.b64decode((await _status(client))["certificate"]))
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    assert leaf.not_valid_after_utc == clock.now() + timedelta(days=7)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(ADDRESS)]
    assert [(event.reason, event.message) for event in told] == [
        ("NodeCertificateSigned", "node default-0 got a certificate to be reached with")
    ]


async def test_request_before_the_address_is_known_is_kept_and_answered_then(
    signer: NodeSigner, client: FailingOnce
) -> None:
    await signer.announce(client, _announced(""))
    await signer.answer(client, await _ask(client))
    assert await _status(client) == {}
    await signer.announce(client, _announced(""))
    assert await _status(client) == {}
    await signer.announce(client, _announced())
    assert (await _status(client))["certificate"]


async def test_kept_request_for_another_address_is_denied_then(
    signer: NodeSigner, client: FailingOnce, told: list[Event]
) -> None:
    await signer.announce(client, _announced(""))
    await signer.answer(client, await _ask(client, address="192.0.2.99"))
    await signer.announce(client, _announced())
    status = await _status(client)
    assert [entry["type"] for entry in status["conditions"]] == ["Denied"] and "certificate" not in status
    assert [(event.type, event.reason) for event in told] == [("Warning", "NodeCertificateRefused")]
    assert told[0].message.startswith("system:node:default-0 got no certificate of a node: the addresses 192.0.2.99")


async def test_kept_request_that_is_gone_is_forgotten(signer: NodeSigner, client: FailingOnce) -> None:
    await signer.announce(client, _announced(""))
    request = await _ask(client)
    await signer.answer(client, request)
    await client.delete(CERTIFICATE_REQUESTS, "csr-1")
    signer.forget(request)
    await signer.announce(client, _announced())


async def test_answered_requests_are_not_answered_again(signer: NodeSigner, client: FailingOnce) -> None:
    await signer.announce(client, _announced())
    early = await _ask(client)
    await signer.answer(client, early)
    answered = await client.get(CERTIFICATE_REQUESTS, "csr-1")
    assert answered is not None
    for state in (answered, early):
        await signer.answer(client, state)
    assert await client.get(CERTIFICATE_REQUESTS, "csr-1") == answered


async def test_answer_that_could_not_be_written_is_written_the_next_time(
    signer: NodeSigner, client: FailingOnce, told: list[Event]
) -> None:
    await signer.announce(client, _announced())
    request = await _ask(client)
    client.failures = 1
    with pytest.raises(UnavailableError):
        await signer.answer(client, request)
    assert told == []
    await signer.announce(client, _announced())
    assert (await _status(client))["certificate"]


async def test_request_that_went_while_it_was_answered_is_not_tried_again(
    signer: NodeSigner, client: FailingOnce
) -> None:
    await signer.announce(client, _announced())
    request = await _ask(client)
    await client.delete(CERTIFICATE_REQUESTS, "csr-1")
    with pytest.raises(KubeApiError):
        await signer.answer(client, request)
    await _ask(client)
    await signer.announce(client, _announced())
    assert await _status(client) == {}


async def test_approval_without_a_certificate_is_completed(signer: NodeSigner, client: FailingOnce) -> None:
    """Another process may have ended between the approval and the certificate."""
    await signer.announce(client, _announced())
    request = await _ask(client)
    status = {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}
    approved = await client.patch(CERTIFICATE_REQUESTS, "csr-1", status, subresource="approval")
    await signer.answer(client, approved)
    assert request and (await _status(client))["certificate"]


async def test_kept_request_whose_answer_fails_is_still_kept(signer: NodeSigner, client: FailingOnce) -> None:
    await signer.announce(client, _announced(""))
    await signer.answer(client, await _ask(client))
    client.failures = 1
    await signer.announce(client, _announced())
    assert await _status(client) == {}
    await signer.announce(client, _announced())
    assert (await _status(client))["certificate"]
