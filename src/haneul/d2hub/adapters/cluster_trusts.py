"""Clusters of the platform whose pods may pull their project's images, a file for each in one folder.

```
CLUSTERS/ID.json     {"project", "cluster", "issuer", "audience", "keys": [JSON Web Keys (RFC 7517)]}
REPORTER             {"issuer", "audience", "subject", "keys"}: who tells what these clusters run
```

Whoever writes there says who may pull, and nobody may push by it: every account of a cluster may pull from its
project's repositories. The reporter may report for the projects of the clusters that there are. Nobody is asked for
keys, so pods are let in whether or not their cluster answers. A file that is wrong counts as none, and the log says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from haneul.d2hub.model import Action, Allowance
from haneul.d2hub.workloads import Trust, Trusts, WorkloadRule

_log = structlog.get_logger(__name__)
_Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
_PUBLIC: Final = frozenset({"RSA", "EC"})
_ACCOUNTS: Final = "system:serviceaccount:*"

_Mark = tuple[int, int, int]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid")

    issuer: _Text
    audience: _Text
    keys: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10)]

    @model_validator(mode="after")
    def _are_public(self) -> Self:
        if any(key.get("kty") not in _PUBLIC or not key.get("kid") or "d" in key for key in self.keys):
            raise ValueError("keys are public ones with names")
        return self

    def key_set(self) -> KeySet:
        return KeySet.import_key_set({"keys": self.keys})


class _Cluster(_Keys):
    project: _Name
    cluster: _Name

    def trust(self) -> Trust:
        pulls = Allowance((f"{self.project}/*",), frozenset({Action.PULL}))
        rule = WorkloadRule({"sub": (_ACCOUNTS,)}, pulls)
        return Trust(f"{self.project}/{self.cluster}", self.issuer, self.audience, (rule,), keys=self.key_set())


class _Reporter(_Keys):
    subject: _Text

    def trust(self, projects: Sequence[str]) -> Trust:
        # The repository that is called like a project stands for reports of its clusters.
        rule = WorkloadRule({"sub": (self.subject,)}, Allowance(tuple(projects), frozenset({Action.PUSH})))
        return Trust("reporter", self.issuer, self.audience, (rule,), keys=self.key_set())


class ClusterTrusts:
    """Trusted clusters of a folder, and whom ``others`` trusts besides."""

    def __init__(self, folder: Path, reporter: Path, others: Trusts) -> None:
        self._folder, self._reporter, self._others = folder, reporter, others
        self._read: dict[Path, tuple[_Mark, _Cluster | _Reporter | None]] = {}

    def trusts(self) -> Sequence[Trust]:
        """Return them; each file is read again if it is another one than before."""
        found = self._files()
        self._read = {path: self._entry(path, mark) for path, mark in found.items()}
        said = [entry for _, entry in self._read.values()]
        clusters = [entry for entry in said if isinstance(entry, _Cluster)]
        projects = sorted({entry.project for entry in clusters})
        reporters = [entry.trust(projects) for entry in said if isinstance(entry, _Reporter) and projects]
        return [*self._others.trusts(), *(entry.trust() for entry in clusters), *reporters]

    def _files(self) -> dict[Path, _Mark]:
        found = {}
        for path in (self._reporter, *sorted(self._folder.glob("[!.]*.json"))):
            try:
                seen = path.stat()
            except OSError:
                continue
            found[path] = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
        return found

    def _entry(self, path: Path, mark: _Mark) -> tuple[_Mark, _Cluster | _Reporter | None]:
        before = self._read.get(path)
        if before is not None and before[0] == mark:
            return before
        kind: type[_Cluster | _Reporter] = _Reporter if path == self._reporter else _Cluster
        try:
            entry = kind.model_validate(json.loads(path.read_text()))
            entry.key_set()
        except (OSError, ValueError, ValidationError, JoseError, KeyError, TypeError) as error:
            _log.error("a cluster's file cannot be read, so its pods are not let in", file=path.name, why=str(error))
            return mark, None
        return mark, entry
