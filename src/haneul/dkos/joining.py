"""Who may join a cluster as a node: the decision on a certificate request, pure.

The built-in approver of Kubernetes is switched off in every cluster. A request is granted only if it is exactly what
an announced node asks: the right signer, ``system:node:<name>`` of ``system:nodes`` and nothing else, the usages of
its kind, asked with the one credential that was made for this node (first certificate) or by the node itself
(renewal, serving), and for no address but the one at which its provider sees it. See Kubernetes documentation
"Certificates and Certificate Signing Requests", section "Kubernetes signers".
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haneul.kernel.kube import Manifest
from haneul.kernel.pki import LeafProfile

CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER: Final = "kubernetes.io/kubelet-serving"
NODE_CERTIFICATE_LIFE: Final = timedelta(days=7)

_CLIENT_USAGES: Final = ({"digital signature", "client auth"}, {"digital signature", "key encipherment", "client auth"})
_SERVING_USAGES: Final = (
    {"digital signature", "server auth"},
    {"digital signature", "key encipherment", "server auth"},
)


@dataclass(frozen=True)
class AnnouncedNode:
    """A node that may join: its name, the user name of its bootstrap token, and its address once it is known.

    ``barred`` says what has to happen before it gets any certificate, such as a firewall approver's decision.
    """

    name: str
    bootstrap_user: str
    address: str
    barred: str = ""


@dataclass(frozen=True)
class Grant:
    """The request of ``node`` is right; ``profile`` is what the certificate says."""

    profile: LeafProfile
    reason: str
    node: str


@dataclass(frozen=True)
class Refusal:
    """The request is wrong, and will not become right."""

    reason: str


@dataclass(frozen=True)
class NotYet:
    """The request may become right: its node's address is not known yet, or the node is barred."""

    reason: str


def decide(request: Manifest, announced: Mapping[str, AnnouncedNode]) -> Grant | Refusal | NotYet | None:
    """Return the decision on a CertificateSigningRequest; None if it is for a signer that is not ours.

    ``announced`` maps node names to nodes.
    """
    spec = request["spec"]
    if spec["signerName"] not in (CLIENT_SIGNER, SERVING_SIGNER):
        return None
    asked = _parse(spec["request"])
    if isinstance(asked, Refusal):
        return asked
    name = _node_name(asked)
    if name is None:
        return Refusal("the subject is not exactly O=system:nodes, CN=system:node:<name>")
    node = announced.get(name)
    if node is None:
        return Refusal(f"no pool of this cluster announced a node named {name}")
    client = spec["signerName"] == CLIENT_SIGNER
    decision = _decide_client(spec, asked, node) if client else _decide_serving(spec, asked, node)
    # Renewals too: a node whose approval was taken back gets no new certificate either.
    return NotYet(node.barred) if isinstance(decision, Grant) and node.barred else decision


@dataclass(frozen=True)
class _Asked:
    """What a request asks for, once its signature proved that the key is the asker's."""

    organizations: tuple[str, ...]
    common_names: tuple[str, ...]
    attributes: int
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]


def _parse(text: str) -> _Asked | Refusal:
    """Return what the PKCS #10 request (RFC 2986) asks for. Its parts are parsed only when looked at, so all are here.

    Whoever may ask at all may send any bytes; none of them may become an error of ours.
    """
    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(text))
        if not isinstance(parsed.public_key(), ec.EllipticCurvePublicKey):
            return Refusal("the key is not an elliptic-curve key")
        if not parsed.is_signature_valid:
            return Refusal("the request is not signed by its own key")
        subject = parsed.subject
        names, addresses = _alternative_names(parsed)
        return _Asked(
            tuple(str(entry.value) for entry in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
            tuple(str(entry.value) for entry in subject.get_attributes_for_oid(NameOID.COMMON_NAME)),
            len(list(subject)),
            names,
            addresses,
        )
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        return Refusal("the request is not a PKCS #10 request that can be understood")


def _decide_client(spec: Manifest, asked: _Asked, node: AnnouncedNode) -> Grant | Refusal:
    if asked.dns_names or asked.addresses:
        return Refusal("a client certificate of a node carries no alternative names")
    if set(spec.get("usages", [])) not in _CLIENT_USAGES:
        return Refusal("the usages are not those of a node's client certificate")
    if spec.get("username") not in (node.bootstrap_user, f"system:node:{node.name}"):
        return Refusal("the request was not made with the credential that was announced for this node")
    profile = LeafProfile(f"system:node:{node.name}", ("system:nodes",), client=True)
    return Grant(profile, "the node was announced by a pool of this cluster", node.name)


def _decide_serving(spec: Manifest, asked: _Asked, node: AnnouncedNode) -> Grant | Refusal | NotYet:
    if set(spec.get("usages", [])) not in _SERVING_USAGES:
        return Refusal("the usages are not those of a node's serving certificate")
    if spec.get("username") != f"system:node:{node.name}":
        return Refusal("a serving certificate is for its own node to ask")
    names, addresses = asked.dns_names, asked.addresses
    if set(names) - {node.name} or not addresses:
        return Refusal("the names are not the node's own")
    if not node.address:
        return NotYet("the node's address is not known yet")
    if set(addresses) != {node.address}:
        return Refusal(f"the addresses {', '.join(addresses)} are not the announced {node.address}")
    profile = LeafProfile(f"system:node:{node.name}", ("system:nodes",), names, addresses, server=True)
    return Grant(profile, "the addresses are the announced node's", node.name)


def _node_name(asked: _Asked) -> str | None:
    if asked.organizations != ("system:nodes",) or len(asked.common_names) != 1 or asked.attributes != 2:
        return None
    prefix, _, name = asked.common_names[0].rpartition(":")
    return name if prefix == "system:node" and name else None


def _alternative_names(parsed: x509.CertificateSigningRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the DNS names and the addresses; other kinds stand among the DNS names, where they never match."""
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    names: list[str] = []
    addresses: list[str] = []
    for entry in extension:
        if isinstance(entry, x509.DNSName):
            names.append(entry.value)
        elif isinstance(entry, x509.IPAddress) and isinstance(
            entry.value, (ipaddress.IPv4Address, ipaddress.IPv6Address)
        ):
            addresses.append(str(entry.value))
        else:
            names.append(f"{type(entry).__name__}:{entry.value}")
    return tuple(names), tuple(addresses)
