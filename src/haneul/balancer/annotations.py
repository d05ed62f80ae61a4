"""What a Service's annotations say of how it is balanced, read strictly. Pure.

An annotation that says nothing of use is an error that names it, what it may be, and what it is; one that begins with
our prefix and is none of ours is one too, as a setting that is written wrongly would be passed over without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Network, ip_network
from typing import Any, Final, TypeVar

from haneul.balancer.model import Algorithm, HealthCheck, Options, ProxyProtocol, canonical, is_port
from haneul.kernel.kube import Manifest

PREFIX: Final = "balancer.haneul.dev/"
ADDRESS, POOL, SHARE = f"{PREFIX}address", f"{PREFIX}pool", f"{PREFIX}share"
ALGORITHM, DRAIN, PROXY_PROTOCOL = f"{PREFIX}algorithm", f"{PREFIX}drain-time", f"{PREFIX}proxy-protocol"
CHECK_INTERVAL, CHECK_TIMEOUT = f"{PREFIX}health-check-interval", f"{PREFIX}health-check-timeout"
CHECK_RISE, CHECK_FALL = f"{PREFIX}health-check-rise", f"{PREFIX}health-check-fall"
_ALL: Final = frozenset(
    {ADDRESS, POOL, SHARE, ALGORITHM, DRAIN, PROXY_PROTOCOL, CHECK_INTERVAL, CHECK_TIMEOUT, CHECK_RISE, CHECK_FALL}
)

_DURATION: Final = re.compile(r"([1-9][0-9]{0,7}|0)(ms|s|m|h)", re.ASCII)
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_WORD: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
#: So much of a wrong value is repeated.
_SHOWN: Final = 40
#: Kubernetes' own: how a kube-proxy is asked whether its node has a pod of the Service.
_HEALTH_PATH: Final = "/healthz"
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What a Service asks for; ``errors`` are what cannot be. ``address`` is empty if any will do."""

    options: Options
    address: str = ""
    pool: str = ""
    share: str = ""
    errors: tuple[str, ...] = ()


class _Reader:
    """Reads values one by one and gathers what is wrong."""

    def __init__(self, annotations: Mapping[str, Any]) -> None:
        self._annotations = annotations
        self.errors = [
            f"{_shown(name)} is no setting"
            for name in sorted(annotations)
            if name.startswith(PREFIX) and name not in _ALL
        ]

    def take(self, name: str, otherwise: T, parse: Callable[[str], T], what: str) -> T:
        """Return what an annotation says; ``what`` is what it may be, in words."""
        text = self._annotations.get(name)
        if text is None:
            return otherwise
        return self.parsed(name, text, otherwise, parse, what)

    def parsed(self, name: str, text: object, otherwise: T, parse: Callable[[str], T], what: str) -> T:
        """Return what a text says, or note that it says nothing."""
        try:
            return parse(str(text).strip())
        except ValueError:
            self.errors.append(f"{name} must be {what}, and is {_shown(text)}")
            return otherwise


def asked(service: Manifest, defaults: Options) -> Asked:
    """Return what a Service asks for beyond its ports; what it is silent of, or wrong about, is as in ``defaults``."""
    spec = service["spec"]
    reader = _Reader(service["metadata"].get("annotations") or {})
    sources = [
        reader.parsed("spec.loadBalancerSourceRanges", text, "", _network, "networks such as 192.0.2.0/24")
        for text in spec.get("loadBalancerSourceRanges") or []
    ]
    options = Options(
        algorithm=_algorithm(reader, spec, defaults),
        check=_check(reader, spec, defaults.check),
        drain=reader.take(DRAIN, defaults.drain * 1000, _between(0, 3_600_000), "a time from 0s to 1h") // 1000,
        proxy_protocol=reader.take(PROXY_PROTOCOL, defaults.proxy_protocol, ProxyProtocol, "off, v1 or v2"),
        sources=tuple(sorted(set(sources))),
    )
    address = reader.take(ADDRESS, "", canonical, "one address")
    field = spec.get("loadBalancerIP")
    if field and not address:
        address = reader.parsed("spec.loadBalancerIP", field, "", canonical, "one address")
    return Asked(
        options,
        address,
        reader.take(POOL, "", _word, "a pool's name"),
        reader.take(SHARE, "", _word, "a word that Services have in common"),
        tuple(reader.errors),
    )


def _algorithm(reader: _Reader, spec: Mapping[str, Any], defaults: Options) -> Algorithm:
    choices = ", ".join(Algorithm)
    chosen = reader.take(ALGORITHM, defaults.algorithm, Algorithm, f"one of {choices}")
    return Algorithm.SOURCE if spec.get("sessionAffinity") == "ClientIP" else chosen


def _check(reader: _Reader, spec: Mapping[str, Any], defaults: HealthCheck) -> HealthCheck:
    times = _between(100, 300_000)
    check = replace(
        defaults,
        interval=reader.take(CHECK_INTERVAL, defaults.interval, times, "a time from 100ms to 5m"),
        timeout=reader.take(CHECK_TIMEOUT, defaults.timeout, times, "a time from 100ms to 5m"),
        rise=reader.take(CHECK_RISE, defaults.rise, _count, "a number from 1 to 100"),
        fall=reader.take(CHECK_FALL, defaults.fall, _count, "a number from 1 to 100"),
    )
    port = spec.get("healthCheckNodePort")
    if spec.get("externalTrafficPolicy") == "Local" and is_port(port):
        return replace(check, path=_HEALTH_PATH, port=port)
    return check


def _between(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a time such as ``500ms``, ``5s`` or ``2m`` as milliseconds."""

    def parse(text: str) -> int:
        found = _DURATION.fullmatch(text)
        if not found:
            raise ValueError(text)
        value = int(found[1]) * _UNITS[found[2]]
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return parse


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= 100):
        raise ValueError(text)
    return int(text[:4])


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(text)
    return text


def _network(text: str) -> str:
    network = ip_network(text, strict=False)
    # A zone may be any text, and no balancer knows this machine's links by the cluster's words.
    if isinstance(network, IPv6Network) and network.network_address.scope_id:
        raise ValueError(text)
    return str(network)


def _shown(text: object) -> str:
    shown = repr(str(text)[:_SHOWN])
    return shown if len(str(text)) <= _SHOWN else f"{shown}…"
