"""A cluster's authorities and keys, and which of them does what now. Pure.

A cluster has three authorities (cluster, etcd, front proxy; Kubernetes documentation "PKI certificates and
requirements"), a key for service account tokens and one for encryption at rest. While they are replaced
(:mod:`haneul.dkos.rotation`) there are two sets of them. All lie in the secret ``authorities``, which only the
operator reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets as randomness
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from haneul.dkos.rotation import USES, Age, Record, Step, Use, advanced
from haneul.kernel.pki import KeyPair, issue_authority, new_private_key, private_key_pem

_AUTHORITIES: Final = ("cluster", "etcd", "front-proxy")
_RECORD: Final = "rotation.json"
_NEXT: Final = "next."
#: The name of the first encryption key of a cluster. A key's name stands before everything that it encrypted.
_FIRST_KEY_NAME: Final = "first"


@dataclass(frozen=True)
class Authorities:
    """What a cluster's certificates, tokens and encryption come from."""

    cluster: KeyPair
    etcd: KeyPair
    front_proxy: KeyPair
    service_account_key: bytes = field(repr=False)
    encryption_key: bytes = field(repr=False)
    encryption_key_name: str = _FIRST_KEY_NAME

    def data(self) -> dict[str, bytes]:
        """Return them as files of the secret ``authorities``."""
        files = {f"{name}.crt": pair.certificate for name, pair in self.pairs().items()}
        files |= {f"{name}.key": pair.key for name, pair in self.pairs().items()}
        files |= {"service-account.key": self.service_account_key, "encryption.key": self.encryption_key}
        return files | {"encryption.name": self.encryption_key_name.encode()}

    def pairs(self) -> dict[str, KeyPair]:
        """Return the authorities by name."""
        return dict(zip(_AUTHORITIES, (self.cluster, self.etcd, self.front_proxy), strict=True))

    def expires(self) -> datetime:
        """Return when the first of them ends."""
        return min(pair.expires() for pair in self.pairs().values())


def new_authorities(cluster: str, now: datetime, *, era: int = 0) -> Authorities:
    """Return fresh authorities for the cluster of that name.

    The subject of each carries the era: two authorities of one subject could not be told apart by who verifies.
    """
    suffix = f" {era}" if era else ""
    key = base64.b64encode(randomness.token_bytes(32))
    return Authorities(
        cluster=issue_authority(f"{cluster} cluster{suffix}", now=now),
        etcd=issue_authority(f"{cluster} etcd{suffix}", now=now),
        front_proxy=issue_authority(f"{cluster} front proxy{suffix}", now=now),
        service_account_key=private_key_pem(new_private_key()),
        encryption_key=key,
        encryption_key_name=f"key-{hashlib.sha256(key).hexdigest()[:8]}" if era else _FIRST_KEY_NAME,
    )


def authorities_from(data: Mapping[str, bytes]) -> Authorities:
    """Return the authorities kept in a secret's data."""
    pairs = {name: KeyPair(data[f"{name}.crt"], data[f"{name}.key"]) for name in _AUTHORITIES}
    return Authorities(
        pairs["cluster"],
        pairs["etcd"],
        pairs["front-proxy"],
        data["service-account.key"],
        data["encryption.key"],
        data.get("encryption.name", _FIRST_KEY_NAME.encode()).decode(),
    )


@dataclass(frozen=True)
class Keyring:
    """All authorities and keys of a cluster. ``new`` is there exactly while a replacement is under way."""

    old: Authorities
    new: Authorities | None = None
    record: Record = field(default_factory=Record)

    @property
    def use(self) -> Use:
        """Return what is used for what now."""
        return USES[self.record.step]

    def of(self, age: Age) -> Authorities:
        """Return one of the two sets."""
        if age is Age.OLD:
            return self.old
        if self.new is None:
            raise ValueError("there are no new authorities: nothing is being replaced")
        return self.new

    def issuer(self, name: str) -> KeyPair:
        """Return the authority ``cluster``, ``etcd`` or ``front-proxy`` that signs masters' certificates now."""
        return self.of(self.use.masters).pairs()[name]

    def trusted(self, name: str) -> bytes:
        """Return the certificates of that name which are trusted now, one after the other in PEM."""
        return b"".join(self.of(age).pairs()[name].certificate for age in self.use.trusted)

    @property
    def request_signer(self) -> KeyPair:
        """Return what signs the certificates that nodes and people ask for now."""
        return self.of(self.use.requests).cluster

    @property
    def token_keys(self) -> tuple[bytes, ...]:
        """Return the keys of service account tokens; the first signs, all verify."""
        return tuple(self.of(age).service_account_key for age in self.use.tokens)

    @property
    def encryption_keys(self) -> tuple[tuple[str, bytes], ...]:
        """Return names and keys of encryption at rest; the first encrypts, all decrypt."""
        sets = [self.of(age) for age in self.use.secrets]
        return tuple((entry.encryption_key_name, entry.encryption_key) for entry in sets)

    @property
    def machine_era(self) -> int:
        """Return the number of the set from which machines are made now."""
        return self.record.era_of(self.use.machines)

    @property
    def expires(self) -> datetime:
        """Return when the first authority that is in use ends."""
        return self.of(self.use.masters).expires()

    def mark(self, component: str) -> str:
        """Return what of this keyring a component's secret is made from, in a word; it changes when that does.

        A keyring that was never replaced has none, as the secrets of clusters that are older than replacements.
        """
        record, use = self.record, self.use
        if record.step is Step.STEADY and record.era == 0:
            return ""

        def eras(ages: tuple[Age, ...]) -> str:
            return ",".join(str(record.era_of(age)) for age in ages)

        # In any order: a bundle trusts all that is in it.
        parts = [f"trust {sorted(map(record.era_of, use.trusted))}", f"from {record.era_of(use.masters)}"]
        if component in ("kube-apiserver", "kube-controller-manager"):
            parts.append(f"tokens {eras(use.tokens)}")
        if component == "kube-apiserver":
            parts.append(f"secrets {eras(use.secrets)}")
        return "; ".join(parts)

    def at(self, step: Step, *, cluster: str, requested: int, now: datetime) -> Keyring:
        """Return the keyring once ``step`` is begun. New authorities are made for the first step of a replacement."""
        record = advanced(self.record, step, requested=requested, now=now)
        if step is Step.STEADY:
            return Keyring(self.of(Age.NEW), None, record)
        new = new_authorities(cluster, now, era=record.era + 1) if step is Step.SPREAD else self.new
        return replace(self, new=new, record=record)

    def data(self) -> dict[str, bytes]:
        """Return the contents of the secret ``authorities``."""
        record = self.record
        kept = {"step": record.step.value, "era": record.era, "revision": record.revision}
        kept |= {"since": record.since.isoformat()} if record.since else {}
        coming = {f"{_NEXT}{name}": value for name, value in self.new.data().items()} if self.new else {}
        return self.old.data() | coming | {_RECORD: json.dumps(kept, sort_keys=True).encode()}


def keyring_from(data: Mapping[str, bytes]) -> Keyring:
    """Return the keyring kept in a secret's data, also of one that knows nothing of replacements yet."""
    coming = {name.removeprefix(_NEXT): value for name, value in data.items() if name.startswith(_NEXT)}
    kept = json.loads(data.get(_RECORD, b"{}"))
    record = Record(
        Step(kept.get("step", Step.STEADY)),
        kept.get("era", 0),
        kept.get("revision", 0),
        datetime.fromisoformat(kept["since"]) if "since" in kept else None,
    )
    return Keyring(authorities_from(data), authorities_from(coming) if coming else None, record)
