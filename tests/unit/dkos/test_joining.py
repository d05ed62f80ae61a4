"""Which certificate requests are granted: only an announced node's own, for its own name and address."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.dkos.joining import CLIENT_SIGNER, SERVING_SIGNER, AnnouncedNode, Grant, NotYet, Refusal, decide
from haneul.kernel.kube import Manifest

NODE = AnnouncedNode("default-0", "system:bootstrap:abcdef", "192.0.2.7")
OTHER = AnnouncedNode("default-1", "system:bootstrap:ghijkl", "192.0.2.8")
UNKNOWN_ADDRESS = AnnouncedNode("default-2", "system:bootstrap:mnopqr", "")
ANNOUNCED = {node.name: node for node in (NODE, OTHER, UNKNOWN_ADDRESS)}
CLIENT_USAGES = ("digital signature", "client auth")
SERVING_USAGES = ("digital signature", "server auth")
SELF = "system:node:default-0"
OWN_SUBJECT = (("O", "system:nodes"), ("CN", SELF))
_OIDS = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
_KEY = ec.generate_private_key(ec.SECP256R1())


def names(dns: Sequence[str] = (), addresses: Sequence[str] = ()) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    return found + [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]


def pem(
    subject: Sequence[tuple[str, str]] = OWN_SUBJECT,
    alternatives: Sequence[x509.GeneralName] = (),
    key: Any = _KEY,
) -> bytes:
    attributes = [x509.NameAttribute(_OIDS[kind], value) for kind, value in subject]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def request(
    csr: bytes, signer: str = CLIENT_SIGNER, user: str = NODE.bootstrap_user, usages: Sequence[str] = CLIENT_USAGES
) -> Manifest:
    return {
        "metadata": {"name": "csr-1"},
        "spec": {
            "signerName": signer,
            "username": user,
            "usages": list(usages),
            "request": base64.b64encode(csr).decode(),
        },
    }


def serving(csr: bytes, user: str = SELF, usages: Sequence[str] = SERVING_USAGES) -> Manifest:
    return request(csr, SERVING_SIGNER, user, usages)


def refused(manifest: Manifest) -> str:
    decision = decide(manifest, ANNOUNCED)
    assert isinstance(decision, Refusal), decision
    return decision.reason


def test_announced_node_gets_its_first_client_certificate_and_its_renewal() -> None:
    for user in (NODE.bootstrap_user, SELF):
        decision = decide(request(pem(), user=user), ANNOUNCED)
        assert isinstance(decision, Grant)
        profile = decision.profile
        assert (profile.common_name, profile.organizations) == (SELF, ("system:nodes",))
        assert (profile.client, profile.server, profile.dns_names, profile.addresses) == (True, False, (), ())


def test_announced_node_gets_a_serving_certificate_for_its_name_and_address() -> None:
    decision = decide(serving(pem(alternatives=names(["default-0"], ["192.0.2.7"]))), ANNOUNCED)
    assert isinstance(decision, Grant)
    profile = decision.profile
    assert (profile.client, profile.server) == (False, True)
    assert (profile.dns_names, profile.addresses) == (("default-0",), ("192.0.2.7",))


def test_request_with_the_usage_of_rsa_times_is_granted_too() -> None:
    usages = (*CLIENT_USAGES, "key encipherment")
    assert isinstance(decide(request(pem(), usages=usages), ANNOUNCED), Grant)


@pytest.mark.parametrize("signer", ["kubernetes.io/kube-apiserver-client", "kubernetes.io/legacy-unknown", "other/x"])
def test_other_signers_are_not_ours_to_answer(signer: str) -> None:
    assert decide(request(pem(), signer), ANNOUNCED) is None


@pytest.mark.parametrize(
    "subject",
    [
        (("O", "system:masters"), ("CN", SELF)),
        (("O", "system:nodes"), ("O", "system:masters"), ("CN", SELF)),
        (("O", "system:nodes"), ("CN", "kubernetes-admin")),
        (("O", "system:nodes"), ("CN", "system:node:")),
        (("O", "system:nodes"), ("CN", "default-0")),
        (("O", "system:nodes"), ("CN", "x:system:node:default-0")),
        (("O", "system:nodes"), ("CN", "system:node:x:default-0")),
        (("O", "system:nodes"), ("CN", SELF), ("CN", SELF)),
        (("O", "system:nodes"), ("CN", SELF), ("OU", "more")),
        (("CN", SELF),),
        (("O", "system:nodes"),),
        (),
    ],
)
def test_any_other_subject_is_refused(subject: tuple[tuple[str, str], ...]) -> None:
    assert "subject" in refused(request(pem(subject)))
    assert "subject" in refused(serving(pem(subject, names(["default-0"], ["192.0.2.7"]))))


def test_node_that_nobody_announced_is_refused() -> None:
    csr = pem((("O", "system:nodes"), ("CN", "system:node:stranger")))
    assert "announced" in refused(request(csr, user="system:node:stranger"))


@pytest.mark.parametrize(
    "user", [OTHER.bootstrap_user, "system:node:default-1", "system:admin", "", "system:bootstrap:"]
)
def test_client_certificate_is_for_the_node_s_own_credential_only(user: str) -> None:
    assert "credential" in refused(request(pem(), user=user))


@pytest.mark.parametrize("user", [NODE.bootstrap_user, "system:node:default-1", "system:admin"])
def test_serving_certificate_is_for_the_node_itself_only(user: str) -> None:
    assert "own node" in refused(serving(pem(alternatives=names(["default-0"], ["192.0.2.7"])), user))


@pytest.mark.parametrize(
    "usages",
    [(), ("client auth",), (*CLIENT_USAGES, "server auth"), SERVING_USAGES, (*CLIENT_USAGES, "cert sign"), ("any",)],
)
def test_other_usages_of_a_client_certificate_are_refused(usages: tuple[str, ...]) -> None:
    assert "usages" in refused(request(pem(), usages=usages))


@pytest.mark.parametrize("usages", [(), CLIENT_USAGES, (*SERVING_USAGES, "client auth"), ("server auth",)])
def test_other_usages_of_a_serving_certificate_are_refused(usages: tuple[str, ...]) -> None:
    assert "usages" in refused(serving(pem(alternatives=names(["default-0"], ["192.0.2.7"])), usages=usages))


@pytest.mark.parametrize("alternatives", [names(["default-0"]), names((), ["192.0.2.7"]), [x509.RFC822Name("a@b.c")]])
def test_client_certificate_carries_no_alternative_names(alternatives: list[x509.GeneralName]) -> None:
    assert "alternative names" in refused(request(pem(alternatives=alternatives)))


@pytest.mark.parametrize(
    "alternatives",
    [
        names(["default-1"], ["192.0.2.7"]),
        names(["default-0", "kubernetes.default.svc"], ["192.0.2.7"]),
        names(["*"], ["192.0.2.7"]),
        [*names(["default-0"], ["192.0.2.7"]), x509.RFC822Name("node@example.com")],
        [*names(["default-0"], ["192.0.2.7"]), x509.UniformResourceIdentifier("spiffe://other")],
        names(["default-0"]),
        [],
    ],
)
def test_serving_certificate_for_other_names_is_refused(alternatives: list[x509.GeneralName]) -> None:
    assert "names" in refused(serving(pem(alternatives=alternatives)))


@pytest.mark.parametrize("addresses", [["192.0.2.8"], ["192.0.2.7", "192.0.2.8"], ["127.0.0.1"], ["2001:db8::7"]])
def test_serving_certificate_for_other_addresses_is_refused(addresses: list[str]) -> None:
    assert "addresses" in refused(serving(pem(alternatives=names(["default-0"], addresses))))


def test_serving_request_waits_until_the_node_s_address_is_known() -> None:
    csr = pem((("O", "system:nodes"), ("CN", "system:node:default-2")), names(["default-2"], ["192.0.2.9"]))
    assert isinstance(decide(serving(csr, "system:node:default-2"), ANNOUNCED), NotYet)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(public_exponent=65537, key_size=2048), ed25519.Ed25519PrivateKey.generate()],
    ids=["rsa", "ed25519"],
)
def test_key_that_is_not_on_an_elliptic_curve_is_refused_in_words(key: object) -> None:
    assert "key" in refused(request(pem(key=key)))


@pytest.mark.parametrize("text", ["", "!", "AAAA", base64.b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\n").decode()])
def test_what_is_no_request_is_refused(text: str) -> None:
    manifest = request(pem())
    manifest["spec"]["request"] = text
    assert "PKCS" in refused(manifest)


def test_request_signed_by_another_key_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(pem()).public_bytes(serialization.Encoding.DER))
    der[der.index(b"default-0") + 8] = ord("1")
    text = base64.encodebytes(bytes(der)).decode()
    forged = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode()
    assert "signed" in refused(request(forged, user=OTHER.bootstrap_user))


def test_request_with_an_extension_that_is_none_is_refused() -> None:
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x05a")
    attributes = [x509.NameAttribute(_OIDS[kind], value) for kind, value in OWN_SUBJECT]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    csr = builder.add_extension(broken, critical=False).sign(_KEY, hashes.SHA256())
    assert refused(request(csr.public_bytes(serialization.Encoding.PEM)))


_node_names = st.sampled_from([*ANNOUNCED, "stranger", "default-00", "", "default-0:x"])
_subjects = st.lists(
    st.one_of(
        st.tuples(st.just("CN"), _node_names.map(lambda name: f"system:node:{name}")),
        st.tuples(st.sampled_from(["O", "OU"]), st.sampled_from(["system:nodes", "system:masters"])),
    ),
    max_size=3,
) | _node_names.map(lambda name: [("O", "system:nodes"), ("CN", f"system:node:{name}")])
_addresses = st.sampled_from([NODE.address, OTHER.address, "127.0.0.1", "2001:db8::1"])
_alternatives = st.builds(
    names,
    st.lists(_node_names.filter(bool).filter(lambda name: ":" not in name), max_size=2),
    st.lists(_addresses, max_size=2),
)
_users = st.sampled_from(
    [NODE.bootstrap_user, OTHER.bootstrap_user, SELF, "system:node:default-1", "system:node:stranger", "admin"]
)
_usages = st.sampled_from([CLIENT_USAGES, SERVING_USAGES, (), (*CLIENT_USAGES, "server auth")])


@settings(max_examples=300, deadline=None)
@given(_subjects, _alternatives, _users, _usages, st.sampled_from([CLIENT_SIGNER, SERVING_SIGNER]))
def test_no_grant_says_more_than_one_announced_node_s_own_name_and_address(
    subject: list[tuple[str, str]],
    alternatives: list[x509.GeneralName],
    user: str,
    usages: tuple[str, ...],
    signer: str,
) -> None:
    csr = pem(subject, alternatives)
    decision = decide(request(csr, signer, user, usages), ANNOUNCED)
    if not isinstance(decision, Grant):
        return
    profile = decision.profile
    node = ANNOUNCED[profile.common_name.removeprefix("system:node:")]
    assert profile.common_name == f"system:node:{node.name}"
    assert profile.organizations == ("system:nodes",)
    assert set(profile.dns_names) <= {node.name}
    assert set(profile.addresses) <= {node.address} - {""}
    assert (profile.client, profile.server) in ((True, False), (False, True))
    assert user in ({node.bootstrap_user, f"system:node:{node.name}"} if profile.client else {profile.common_name})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_the_decision_fail(data: bytes) -> None:
    for csr in (data, b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(data)):
        assert isinstance(decide(request(csr), ANNOUNCED), Refusal)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_change_of_a_byte_makes_the_decision_fail_or_wider(data: st.DataObject) -> None:
    der = bytearray(x509.load_pem_x509_csr(_SERVING_CSR).public_bytes(serialization.Encoding.DER))
    der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    text = base64.encodebytes(bytes(der))
    csr = b"-----BEGIN CERTIFICATE REQUEST-----\n" + text + b"-----END CERTIFICATE REQUEST-----\n"
    decision = decide(serving(csr), ANNOUNCED)
    assert isinstance(decision, Refusal | Grant)
    if isinstance(decision, Grant):
        assert (decision.profile.dns_names, decision.profile.addresses) == ((NODE.name,), (NODE.address,))


_SERVING_CSR = pem(alternatives=names(["default-0"], ["192.0.2.7"]))


@pytest.mark.parametrize("user", [NODE.bootstrap_user, "system:node:default-0"])
def test_a_barred_node_gets_neither_its_first_certificate_nor_a_renewal(user: str) -> None:
    barred = replace(NODE, barred="waits for a firewall approver: db-prod 10.1.2.3:5432")
    decision = decide(request(pem(), user=user), {NODE.name: barred})
    assert decision == NotYet(barred.barred)
    # What is wrong stays wrong.
    assert isinstance(decide(request(pem(), user="system:admin"), {NODE.name: barred}), Refusal)


def test_a_barred_node_gets_no_serving_certificate() -> None:
    asked = serving(pem(alternatives=names(["default-0"], ["192.0.2.7"])))
    assert isinstance(decide(asked, {NODE.name: replace(NODE, barred="waits")}), NotYet)
