"""Objects of a cluster that Ingress is about, as its API shows them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from haneul.ingress.claims import CONTROLLER
from haneul.ingress.observed import Observed
from haneul.kernel.kube import (
    ENDPOINT_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    SECRETS,
    Manifest,
    resource_of,
)
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf

NOW = datetime(2026, 11, 27, tzinfo=UTC)
HOST = "www.example.com"


def ingress_class(name: str = "haneul", controller: str = CONTROLLER, *, default: bool = False) -> Manifest:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": annotations}
    spec = {"controller": controller}
    return {"apiVersion": INGRESS_CLASSES.api_version, "kind": "IngressClass", "metadata": metadata, "spec": spec}


def path(text: str = "/", kind: str = "Prefix", service: str = "web", port: int | str = 80) -> Manifest:
    wanted = {"number": port} if isinstance(port, int) else {"name": port}
    return {"path": text, "pathType": kind, "backend": {"service": {"name": service, "port": wanted}}}


def ingress(
    name: str = "web",
    *paths: Manifest,
    host: str = HOST,
    namespace: str = "shop",
    annotations: dict[str, str] | None = None,
    tls: Sequence[Manifest] = (),
    age: int = 0,
    class_name: str | None = "haneul",
    **spec: Any,
) -> Manifest:
    """Return an Ingress of one host; of two with different ``age`` the one with the smaller is older."""
    rule: Manifest = {"http": {"paths": list(paths or (path(),))}}
    if host:
        rule["host"] = host
    metadata: Manifest = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "creationTimestamp": f"2026-11-27T00:00:{age:02}Z",
        "annotations": annotations or {},
    }
    spec = {"rules": [rule], "tls": list(tls), **spec}
    if class_name is not None:
        spec["ingressClassName"] = class_name
    return {"apiVersion": INGRESSES.api_version, "kind": "Ingress", "metadata": metadata, "spec": spec}


def service(name: str = "web", *, namespace: str = "shop", port: int = 80, **spec: Any) -> Manifest:
    ports = [{"name": "http", "port": port, "protocol": "TCP", "targetPort": 8080}]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}


def endpoint(address: str, **conditions: bool) -> Manifest:
    return {"addresses": [address], "conditions": {"ready": True, **conditions}}


def slice_of(
    service_name: str = "web", *endpoints: Manifest, namespace: str = "shop", port: int = 8080, name: str = ""
) -> Manifest:
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": "EndpointSlice",
        "metadata": {"name": name or f"{service_name}-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


def secret(name: str, *, namespace: str = "shop", kind: str = "Opaque", **data: bytes) -> Manifest:
    """Return a Secret; in names of data, ``_`` stands for ``.``."""
    metadata = {"name": name, "namespace": namespace}
    encoded = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": SECRETS.kind, "metadata": metadata, "type": kind, "data": encoded}


def certificate(*hosts: str, authority: KeyPair | None = None, now: datetime | None = None) -> KeyPair:
    moment = now or datetime.now(UTC)
    profile = LeafProfile(common_name=hosts[0], dns_names=hosts, server=True)
    return issue_leaf(authority or issue_authority("test", now=moment), profile, now=moment)


def tls_secret(name: str, pair: KeyPair, *, namespace: str = "shop") -> Manifest:
    data = {"tls_crt": pair.certificate, "tls_key": pair.key}
    return secret(name, namespace=namespace, kind="kubernetes.io/tls", **data)


def observed(*manifests: Manifest, classes: Iterable[Manifest] | None = None) -> Observed:
    """Return what is seen of a cluster with these objects, our class, and the Service ``web`` with one pod."""
    made = Observed()
    basis = [*(classes if classes is not None else [ingress_class()]), service(), slice_of("web", endpoint("10.0.0.1"))]
    for manifest in [*basis, *manifests]:
        made.see(resource_of(manifest), manifest)
    return made
