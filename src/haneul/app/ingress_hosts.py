"""Hosts beyond a cluster's own domain that it was granted: one file on the host, which root alone writes.

A host belongs to one cluster at most, and nobody is granted what lies below a wildcard of another one, or above it.
A grant is for the cluster that was there when it was given, known by its id: it ends with the cluster, and another one
that is made under the same name has none of it.
What lies in the platform's zone is no grant: there each cluster has its own domain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

from haneul.ingress.grammar import parse_host
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError
from haneul.kernel.files import write_atomically

_LOCK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Grantee:
    """A cluster: its name as ``PROJECT/CLUSTER``, and its id; a grant of a file that is older than ids has none."""

    name: str
    uid: str


class GrantedHosts:
    """The grants in a file: of each host, ``PROJECT/CLUSTER/UID``."""

    def __init__(self, file: Path, *, zone: str) -> None:
        self._file = file
        self._zone = zone

    def all(self) -> dict[str, Grantee]:
        """Return all grants. Raises InvalidInputError if the file was spoiled."""
        try:
            found = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InvalidInputError(f"{self._file} is no JSON: {error}", hint="mend it, or delete it") from error
        if not isinstance(found, dict) or not all(isinstance(owner, str) for owner in found.values()):
            raise InvalidInputError(f"{self._file} is no mapping of hosts to clusters", hint="mend it, or delete it")
        return {host: _grantee(owner) for host, owner in found.items()}

    def of(self, uid: str) -> list[str]:
        """Return the hosts of a cluster."""
        return sorted(host for host, found in self.all().items() if found.uid == uid)

    def adopt(self, owner: Grantee) -> None:
        """Write a cluster's id down in grants that are older than ids, and name it."""
        if not any(found == Grantee(owner.name, "") for found in self.all().values()):
            return
        with self._locked():
            grants = self.all()
            self._write({host: owner if found == Grantee(owner.name, "") else found for host, found in grants.items()})

    def end(self, owner: Grantee) -> list[str]:
        """Take everything back that a cluster was granted which is deleted, by its name alone too; return the hosts."""
        if not self._ends_with(owner):
            return []
        with self._locked():
            ended = self._ends_with(owner)
            self._write({host: found for host, found in self.all().items() if host not in ended})
        return ended

    def grant(self, host: str, owner: Grantee) -> None:
        """Let a cluster serve a host, or with ``*.`` all below one. Raises ConflictError, InvalidInputError."""
        try:
            wanted = parse_host(host)
        except ValueError as error:
            raise InvalidInputError(f"{host!r} is no host: {error}", hint="such as shop.example.com") from error
        if _overlap(wanted, f"*.{self._zone}") or wanted == self._zone:
            raise InvalidInputError(
                f"{wanted} lies in {self._zone}, where each cluster has its own domain",
                hint="clusters serve everything below CLUSTER.PROJECT there without a grant",
            )
        with self._locked():
            grants = self.all()
            for other, found in grants.items():
                if found != owner and _overlap(other, wanted):
                    raise ConflictError(
                        f"{other} is granted to {found.name}",
                        hint=f"'haneul ingress revoke {other}' takes it back first",
                    )
            self._write({**grants, wanted: owner})

    def revoke(self, host: str) -> None:
        """Take a host back. Raises NotFoundError."""
        with self._locked():
            grants = self.all()
            if grants.pop(host.lower(), None) is None:
                raise NotFoundError(f"{host} is granted to no cluster", hint="'haneul ingress hosts' shows all grants")
            self._write(grants)

    def _ends_with(self, owner: Grantee) -> list[str]:
        unnamed = Grantee(owner.name, "")
        return sorted(host for host, found in self.all().items() if found.uid == owner.uid or found == unnamed)

    def _locked(self) -> FileLock:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._file.with_suffix(".lock"), timeout=_LOCK_SECONDS)

    def _write(self, grants: Mapping[str, Grantee]) -> None:
        owners = {host: f"{owner.name}/{owner.uid}".rstrip("/") for host, owner in sorted(grants.items())}
        write_atomically(self._file, json.dumps(owners, indent=1) + "\n", mode=0o600)


def _grantee(owner: str) -> Grantee:
    project, _, rest = owner.partition("/")
    name, _, uid = rest.partition("/")
    return Grantee(f"{project}/{name}", uid)


def _overlap(one: str, other: str) -> bool:
    """Say whether two hosts, each perhaps with a wildcard for all below, are or have a host in common."""
    return _has(one, other) or _has(other, one)


def _has(host: str, other: str) -> bool:
    return host == other or (host.startswith("*.") and other.removeprefix("*").endswith(host[1:]))
