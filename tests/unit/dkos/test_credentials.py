"""A cluster's PKI: every leaf verifies against its authority, is renewed in time and made anew for new names."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from haneul.dkos.credentials import (
    NODE_AUTHORITY_FILE,
    Endpoints,
    component_data,
    component_profiles,
    content_digest,
    decode,
    needs_issuing,
    node_kubeconfig,
    operator_access,
    profile_digest,
    secret_manifest,
)
from haneul.dkos.keyring import Authorities, Keyring, authorities_from, new_authorities
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import Manifest
from haneul.kernel.kubeconfig import client_kubeconfig

ISSUERS = {("etcd", "server"): "etcd", ("kube-apiserver", "etcd-client"): "etcd"}
ISSUERS |= {("kube-apiserver", "front-proxy-client"): "front_proxy"}


@pytest.fixture(scope="module")
def authorities(now: datetime) -> Authorities:
    return new_authorities("shop/plain", now)


def issued(component: str, authorities: Authorities, endpoints: Endpoints, now: datetime) -> Manifest:
    profiles = component_profiles(endpoints, cilium=True)[component]
    data = component_data(component, profiles, Keyring(authorities), endpoints, now)
    digest = profile_digest(profiles, endpoints.inside)
    return secret_manifest("masters", component, data, {}, issued_for=digest)


def test_every_leaf_comes_from_its_authority_and_from_no_other(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    pairs = {name: getattr(authorities, name) for name in ("cluster", "etcd", "front_proxy")}
    issuers = {name: x509.load_pem_x509_certificate(pair.certificate) for name, pair in pairs.items()}
    for component, profiles in component_profiles(endpoints, cilium=True).items():
        data = decode(issued(component, authorities, endpoints, now))
        for name, profile in profiles.items():
            leaf = x509.load_pem_x509_certificate(data[f"{name}.crt"])
            right = ISSUERS.get((component, name), "cluster")
            leaf.verify_directly_issued_by(issuers[right])
            for other in issuers.keys() - {right}:
                with pytest.raises(ValueError, match="Issuer"):
                    leaf.verify_directly_issued_by(issuers[other])
            key = serialization.load_pem_private_key(data[f"{name}.key"], None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            assert key.public_key() == leaf.public_key()
            assert _text(leaf, NameOID.COMMON_NAME) == [profile.common_name]
            assert _text(leaf, NameOID.ORGANIZATION_NAME) == list(profile.organizations)
            purposes = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
            assert (ExtendedKeyUsageOID.SERVER_AUTH in purposes) == profile.server
            assert (ExtendedKeyUsageOID.CLIENT_AUTH in purposes) == profile.client
            assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_servers_verify_at_every_address_at_which_they_are_reached(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    reached = {
        ("etcd", "etcd"): ("127.0.0.1", *endpoints.etcd_addresses),
        ("kube-apiserver", "cluster"): (
            endpoints.service_address,
            endpoints.kubernetes_service_address,
            endpoints.outside_address,
        ),
    }
    for (component, authority), addresses in reached.items():
        leaf = x509.load_pem_x509_certificate(decode(issued(component, authorities, endpoints, now))["server.crt"])
        root = x509.load_pem_x509_certificate(getattr(authorities, authority).certificate)
        policy = verification.PolicyBuilder().store(verification.Store([root])).time(now)
        policy = policy.extension_policies(
            ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(),
            ee_policy=verification.ExtensionPolicy.permit_all().require_present(
                x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
            ),
        )
        for address in addresses:
            chain = policy.build_server_verifier(x509.IPAddress(ipaddress.ip_address(address))).verify(leaf, [])
            assert chain == [leaf, root]


def test_no_component_but_the_controller_manager_and_api_server_holds_the_token_key(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    for component in component_profiles(endpoints, cilium=True):
        data = decode(issued(component, authorities, endpoints, now))
        holds = authorities.service_account_key in data.values()
        assert holds == (component in ("kube-apiserver", "kube-controller-manager"))
        # No component can sign for its cluster.
        for pair in (authorities.cluster, authorities.etcd, authorities.front_proxy):
            assert pair.key not in data.values()


def test_cilium_s_operator_has_a_credential_only_where_there_is_cilium(endpoints: Endpoints) -> None:
    assert "cilium-operator" in component_profiles(endpoints, cilium=True)
    assert "cilium-operator" not in component_profiles(endpoints, cilium=False)


def test_leaf_is_renewed_when_a_third_of_its_life_is_left(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    clock = VirtualClock(now)
    profiles = component_profiles(endpoints, cilium=False)["kube-apiserver"]
    secret = issued("kube-apiserver", authorities, endpoints, clock.now())
    for _ in range(59):
        assert not needs_issuing(secret, profiles, endpoints.inside, clock.now())
        clock.advance(timedelta(days=1).total_seconds())
    clock.advance(timedelta(days=2).total_seconds())
    assert needs_issuing(secret, profiles, endpoints.inside, clock.now())
    renewed = issued("kube-apiserver", authorities, endpoints, clock.now())
    assert not needs_issuing(renewed, profiles, endpoints.inside, clock.now())
    assert content_digest(renewed) != content_digest(secret)


def test_leaves_are_made_anew_for_other_names_or_another_endpoint(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    secret = issued("kube-apiserver", authorities, endpoints, now)
    moved = replace(endpoints, outside_address="192.0.2.99")
    profiles = component_profiles(moved, cilium=False)["kube-apiserver"]
    assert needs_issuing(secret, profiles, moved.inside, now)
    scheduler = issued("kube-scheduler", authorities, endpoints, now)
    moved = replace(endpoints, service_address="10.193.0.99")
    profiles = component_profiles(moved, cilium=False)["kube-scheduler"]
    assert needs_issuing(scheduler, profiles, moved.inside, now)


def test_missing_or_foreign_secret_needs_issuing(authorities: Authorities, endpoints: Endpoints, now: datetime) -> None:
    profiles = component_profiles(endpoints, cilium=False)["etcd"]
    assert needs_issuing(None, profiles, endpoints.inside, now)
    secret = issued("etcd", authorities, endpoints, now)
    del secret["metadata"]["annotations"]
    assert needs_issuing(secret, profiles, endpoints.inside, now)


def test_authorities_come_back_from_their_secret(authorities: Authorities) -> None:
    secret = secret_manifest("masters", "authorities", authorities.data(), {})
    assert authorities_from(decode(secret)) == authorities


def test_authorities_of_two_clusters_share_no_key(authorities: Authorities, now: datetime) -> None:
    other = new_authorities("shop/plain", now)
    keys = [value for name, value in [*authorities.data().items(), *other.data().items()] if name.endswith(".key")]
    assert len(set(keys)) == len(keys) == 10


def test_leaf_never_outlives_its_authority(authorities: Authorities, endpoints: Endpoints, now: datetime) -> None:
    late = now + timedelta(days=3650 - 10)
    leaf = decode(issued("kube-scheduler", authorities, endpoints, late))["client.crt"]
    end = x509.load_pem_x509_certificate(authorities.cluster.certificate).not_valid_after_utc
    assert x509.load_pem_x509_certificate(leaf).not_valid_after_utc == end


def test_secrets_are_encrypted_at_rest_with_the_cluster_s_own_key(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    text = decode(issued("kube-apiserver", authorities, endpoints, now))["encryption.yaml"]
    (rule,) = yaml.safe_load(text)["resources"]
    assert rule["resources"] == ["secrets"]
    # The first provider writes; what was written in the clear before can still be read.
    assert [next(iter(provider)) for provider in rule["providers"]] == ["secretbox", "identity"]
    key = rule["providers"][0]["secretbox"]["keys"][0]["secret"]
    assert key == authorities.encryption_key.decode() and len(base64.b64decode(key)) == 32


def test_kubeconfigs_say_where_as_whom_and_whom_to_trust(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    data = decode(issued("kube-scheduler", authorities, endpoints, now))
    config = yaml.safe_load(data["kubeconfig"])
    (cluster,), (user,) = config["clusters"], config["users"]
    assert cluster["cluster"]["server"] == "https://10.193.0.21:6443"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == authorities.cluster.certificate
    assert base64.b64decode(user["user"]["client-certificate-data"]) == data["client.crt"]
    token = yaml.safe_load(node_kubeconfig(endpoints.inside, "abcdef.0123456789abcdef"))
    assert token["clusters"][0]["cluster"]["certificate-authority"] == NODE_AUTHORITY_FILE
    assert token["users"][0]["user"] == {"token": "abcdef.0123456789abcdef"}
    leaf = authorities.cluster
    assert yaml.safe_load(client_kubeconfig(endpoints.outside, b"ca", leaf))["current-context"] == "default"


def test_operator_s_access_ends_within_the_hour_and_is_not_shown(
    authorities: Authorities, endpoints: Endpoints, now: datetime
) -> None:
    access = operator_access(Keyring(authorities), endpoints, now)
    leaf = x509.load_pem_x509_certificate(access.client_certificate)
    assert leaf.not_valid_after_utc == now + timedelta(hours=1)
    assert _text(leaf, NameOID.ORGANIZATION_NAME) == ["system:masters"]
    assert access.client_key.decode() not in repr(access)


def test_keys_are_not_shown_when_a_pair_is_printed(authorities: Authorities) -> None:
    assert "PRIVATE KEY" not in repr(authorities)
    assert authorities.encryption_key.decode() not in repr(authorities)


def _text(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(entry.value) for entry in certificate.subject.get_attributes_for_oid(oid)]
