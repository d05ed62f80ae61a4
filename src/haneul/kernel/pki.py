"""Certificates: authorities and what they issue.

All keys are ECDSA P-256 (FIPS 186-5): a key pair costs a millisecond, so a cluster's whole PKI is made while its
namespace is. Certificates follow RFC 5280 profiles as Kubernetes wants them (documentation "PKI certificates and
requirements").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of nodes may lag behind the issuer's; a certificate is valid a little before it was made.
_BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def expires(self) -> datetime:
        """Return the moment after which the certificate is void, in UTC."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    def needs_renewal(self, now: datetime) -> bool:
        """Say whether less than a third of the certificate's life is left."""
        loaded = x509.load_pem_x509_certificate(self.certificate)
        life = loaded.not_valid_after_utc - loaded.not_valid_before_utc
        return loaded.not_valid_after_utc - now < life / 3


@dataclass(frozen=True)
class LeafProfile:
    """What a leaf certificate says: who, for which names and addresses, as server, as client, or both."""

    common_name: str
    organizations: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    server: bool = False
    client: bool = False


def new_private_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted SEC 1 PEM, which every Kubernetes program reads."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def issue_authority(common_name: str, *, now: datetime, life: timedelta = timedelta(days=3650)) -> KeyPair:
    """Return a new self-signed authority."""
    key = new_private_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_authority_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), private_key_pem(key))


def issue_leaf(
    authority: KeyPair, profile: LeafProfile, *, now: datetime, life: timedelta = timedelta(days=90)
) -> KeyPair:
    """Return a new key and the certificate that ``authority`` gives it."""
    key = new_private_key()
    certificate = _sign(authority, key.public_key(), profile, now=now, life=life)
    return KeyPair(certificate, private_key_pem(key))


def sign_request(authority: KeyPair, request: bytes, profile: LeafProfile, *, now: datetime, life: timedelta) -> bytes:
    """Return a PEM certificate for the public key of the PKCS #10 ``request`` (RFC 2986).

    The caller decides every word of the certificate through ``profile``: of the request only the key is used, after
    its signature proved possession. Raises ValueError if the request is no valid one.
    """
    loaded = x509.load_pem_x509_csr(request)
    if not loaded.is_signature_valid:
        raise ValueError("the request is not signed by its own key")
    public = loaded.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("the request's key is not an elliptic-curve key")
    return _sign(authority, public, profile, now=now, life=life)


def _sign(
    authority: KeyPair,
    public_key: ec.EllipticCurvePublicKey,
    profile: LeafProfile,
    *,
    now: datetime,
    life: timedelta,
) -> bytes:
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    # Those made here have elliptic-curve keys; an authority that somebody brings to a host may have another.
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise TypeError("an authority has an elliptic-curve or an RSA key")
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(profile))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + life, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_leaf_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_purposes(profile)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in profile.dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in profile.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _subject(profile: LeafProfile) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text) for text in profile.organizations]
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, profile.common_name))
    return x509.Name(attributes)


def _purposes(profile: LeafProfile) -> Sequence[x509.ObjectIdentifier]:
    purposes = []
    if profile.server:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if profile.client:
        purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    return purposes


def _authority_usage() -> x509.KeyUsage:
    return _usage(signature=True, cert_sign=True)


def _leaf_usage() -> x509.KeyUsage:
    return _usage(signature=True, cert_sign=False)


def _usage(*, signature: bool, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )
