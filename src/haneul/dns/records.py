"""From a cluster's objects to the records that its DNS has to have. Pure.

Exactly what the specification says (Kubernetes DNS-Based Service Discovery, version 1.1.0); the sections are named
beside what they ask for. Where it leaves a choice:

========================  ===================================================================================
weight and priority       0 and 100, as resolvers in clusters answer
a hostname that is none   the endpoint's address with ``-`` in place of ``.`` and ``:``
port numbers, headless    the endpoints' own: nothing translates a port between a client and a headless service
pods                      each that is known and has not ended, instead of any address that somebody asks for: a
                          zone has no records that nobody wrote
hosts of Ingress          where the object's status says that it is served
load balancers            the specification knows no name for them: ``<service>.<namespace>.lb``, like ``svc``
========================  ===================================================================================

Manifests are the Kubernetes API's JSON. One that is not as the API makes them gives no records rather than an error: a
single odd object must not keep a whole cluster's names away.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from haneul.dns.model import AAAA, CNAME, PTR, SRV, TXT, A, ClusterDomain, Key, RecordSet, absolute, reverse_name
from haneul.kernel.errors import InvalidInputError

Manifest = Mapping[str, Any]

SCHEMA_VERSION: Final = "1.1.0"
_PRIORITY, _WEIGHT = 0, 100
_ENDED: Final = ("Succeeded", "Failed")
_RESERVED: Final = ("svc", "pod", "lb", "dns-version")
_HOST: Final = re.compile(r"(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?|\*")


def version_records(domain: ClusterDomain) -> list[RecordSet]:
    """Return the record of the schema's version (section 2.2)."""
    return [RecordSet(f"dns-version.{domain.name}", TXT, domain.ttl, (f'"{SCHEMA_VERSION}"',))]


def service_records(service: Manifest, slices: Iterable[Manifest], domain: ClusterDomain) -> list[RecordSet]:
    """Return the records of one Service, whose EndpointSlices are ``slices`` (sections 2.3, 2.4 and 2.5)."""
    spec = service.get("spec") or {}
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{domain.name}".lower()
    if spec.get("type") == "ExternalName":
        return _external_name_records(name, str(spec.get("externalName") or ""), domain.ttl)
    addresses = [address for address in spec.get("clusterIPs") or [spec.get("clusterIP")] if address]
    if "None" in addresses:
        collected = _headless(name, slices, domain, unready=bool(spec.get("publishNotReadyAddresses")))
    else:
        collected = _with_addresses(name, spec, addresses, domain)
    return _sets([*collected, *_balanced(service, domain)], domain.ttl)


def pod_records(pod: Manifest, domain: ClusterDomain) -> list[RecordSet]:
    """Return the records of one pod, named by its address (section 2.6)."""
    status = pod.get("status") or {}
    if status.get("phase") in _ENDED:
        return []
    addresses = [entry.get("ip") for entry in status.get("podIPs") or [{"ip": status.get("podIP")}]]
    below = f"{pod['metadata']['namespace']}.pod.{domain.name}".lower()
    return _sets(
        ((Key(f"{_dashed(address)}.{below}", _type_of(address)), address) for address in _valid(addresses)), domain.ttl
    )


def ingress_records(ingress: Manifest, domain: ClusterDomain) -> list[RecordSet]:
    """Return the records of an Ingress's hosts in the domain: the addresses that its status says it is served at.

    The specification knows no such names. They are none of those that it gives Services and pods.
    """
    status = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    addresses = list(_valid(entry.get("ip") for entry in status))
    hosts = {str(rule.get("host") or "").lower() for rule in (ingress.get("spec") or {}).get("rules") or []}
    names = sorted(f"{host}." for host in hosts if _is_free(f"{host}.", domain))
    return _sets(((Key(name, _type_of(address)), address) for name in names for address in addresses), domain.ttl)


def _is_free(host: str, domain: ClusterDomain) -> bool:
    """Say whether a host lies below the domain, but not where the specification has names."""
    above, end, _ = host.rpartition(f".{domain.name}")
    return bool(end) and bool(above) and _HOST.fullmatch(above) is not None and above.split(".")[-1] not in _RESERVED


def merged(sets: Iterable[RecordSet]) -> dict[Key, RecordSet]:
    """Return the sets by key, the values of equal keys together: an address may be of several services' endpoints."""
    same: dict[Key, list[RecordSet]] = {}
    for records in sets:
        same.setdefault(records.key, []).append(records)
    return {key: found[0] if len(found) == 1 else _together(found) for key, found in same.items()}


def _together(sets: list[RecordSet]) -> RecordSet:
    values = {value for records in sets for value in records.values}
    return replace(sets[0], ttl=min(records.ttl for records in sets), values=tuple(sorted(values)))


def _external_name_records(name: str, target: str, ttl: int) -> list[RecordSet]:
    """Section 2.5."""
    try:
        return [RecordSet(name, CNAME, ttl, (absolute(target),))]
    except InvalidInputError:
        return []


def _with_addresses(
    name: str, spec: Manifest, addresses: Iterable[Any], domain: ClusterDomain
) -> Iterator[tuple[Key, str]]:
    """Section 2.3; a Service that has no address yet has no records."""
    found = list(_valid(addresses))
    for address in found:
        yield Key(name, _type_of(address)), address
        if domain.has(address):
            yield Key(reverse_name(address), PTR), name
    for port in spec.get("ports") or [] if found else []:
        if label := _port_label(port):
            yield Key(f"{label}.{name}", SRV), _srv(port["port"], name)


def _balanced(service: Manifest, domain: ClusterDomain) -> Iterator[tuple[Key, str]]:
    """Where a Service is reached from outside of its cluster, once its load balancer said so; the name is ours."""
    spec = service.get("spec") or {}
    if spec.get("type") != "LoadBalancer":
        return
    told = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.lb.{domain.name}".lower()
    yield from _with_addresses(name, spec, [entry.get("ip") for entry in told], domain)


def _headless(
    name: str, slices: Iterable[Manifest], domain: ClusterDomain, *, unready: bool
) -> Iterator[tuple[Key, str]]:
    """Section 2.4: without a ready endpoint there is no record, so the name is not there (NXDOMAIN)."""
    for piece in slices:
        for endpoint in piece.get("endpoints") or []:
            # An endpoint that does not say whether it is ready is (API reference "EndpointConditions").
            ready = (endpoint.get("conditions") or {}).get("ready")
            if ready is False and not unready:
                continue
            for address in _valid(endpoint.get("addresses") or []):
                host = f"{str(endpoint.get('hostname') or _dashed(address)).lower()}.{name}"
                yield Key(name, _type_of(address)), address
                yield Key(host, _type_of(address)), address
                if domain.has(address):
                    yield Key(reverse_name(address), PTR), host
                for port in piece.get("ports") or []:
                    if (label := _port_label(port)) and port.get("port"):
                        yield Key(f"{label}.{name}", SRV), _srv(port["port"], host)


def _sets(collected: Iterable[tuple[Key, str]], ttl: int) -> list[RecordSet]:
    return list(merged(RecordSet(key.name, key.type, ttl, (value,)) for key, value in collected).values())


def _port_label(port: Manifest) -> str:
    """Return ``_name._protocol`` of a port; ports without a name have no SRV record (sections 2.3.2 and 2.4.2)."""
    return f"_{port['name']}._{port.get('protocol') or 'TCP'}".lower() if port.get("name") else ""


def _srv(port: int, target: str) -> str:
    """RFC 2782, "The format of the SRV RR"."""
    return f"{_PRIORITY} {_WEIGHT} {port} {target}"


def _valid(addresses: Iterable[Any]) -> Iterator[str]:
    """Yield the addresses in one spelling; what is none (an endpoint may be a name) is left out."""
    for address in addresses:
        try:
            yield str(ipaddress.ip_address(address or ""))
        except ValueError:
            continue


def _type_of(address: str) -> str:
    return AAAA if ":" in address else A


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")
