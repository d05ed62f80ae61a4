"""What routes depend on besides a cluster's objects. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from haneul.ingress.model import Certificate, Scheme
from haneul.ingress.public_names import PublicNames
from haneul.kernel.kube_objects import Place


@dataclass(frozen=True)
class Options:
    """What whoever runs the proxy decided, and what it answered."""

    #: Whether there is a gate that people sign on at.
    gate: bool = False
    hosts_across_namespaces: bool = False
    #: Hosts that this cluster may not serve, and why.
    refused_hosts: Mapping[str, str] = field(default_factory=dict)
    #: Whether hosts that bring no certificate get one of an authority here, and those that they have.
    supplied: bool = False
    issued: Mapping[str, Certificate] = field(default_factory=dict)
    #: Objects that the proxy does not take, and what it says.
    excluded: Mapping[Place, str] = field(default_factory=dict)
    #: Those of them whose paths it does take: they are closed, or another object would serve what they guard.
    closed: Mapping[Place, str] = field(default_factory=dict)
    #: The ports that listeners of Gateways may have, and where clients reach the proxy.
    ports: Mapping[Scheme, Collection[int]] = field(default_factory=lambda: {Scheme.HTTP: (80,), Scheme.HTTPS: (443,)})
    addresses: tuple[str, ...] = ()
    #: Whether there is an issuer of certificates; those that it gave, and why it gave none, by host.
    issuer: bool = False
    by_acme: Mapping[str, Certificate] = field(default_factory=dict)
    unissued: Mapping[str, str] = field(default_factory=dict)
    #: Which hosts the issuer is asked for by itself, and for no others; without, those of objects that say so.
    by_itself: PublicNames | None = None
