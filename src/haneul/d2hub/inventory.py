"""Which images run where, as clusters report it: whole reports, which hold until the next one. Pure.

A cluster is called ``PROJECT/NAME``: who may push in the project reports for it. A report that stays away changes
nothing: a cluster that cannot reach the hub still runs what it ran.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from haneul.d2hub.digests import is_digest
from haneul.d2hub.errors import NameInvalidError, RequestInvalidError
from haneul.d2hub.names import project_of

#: Entries in one report: workloads with each of their images.
MOST_ENTRIES: Final = 20_000
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_CLUSTER: Final = re.compile(rf"{_LABEL}/{_LABEL}")
_NAMESPACE: Final = re.compile(_LABEL)
#: A kind and a name, which Kubernetes allows 253 characters.
_WORKLOAD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}/[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_FIELDS: Final = ("namespace", "workload", "digest")
#: Uses of an image that an error names.
NAMED: Final = 3
#: Uses of an image that are looked at for one answer.
MOST_SHOWN: Final = 200


@dataclass(frozen=True, order=True)
class Running:
    """A workload, such as ``Deployment/web``, that runs an image."""

    namespace: str
    workload: str
    digest: str


@dataclass(frozen=True)
class Report:
    """Everything that one cluster runs."""

    cluster: str
    reporter: str
    running: frozenset[Running]


@dataclass(frozen=True)
class Use:
    """An image that runs somewhere, and when that was reported last."""

    cluster: str
    running: Running
    reported: datetime


@dataclass(frozen=True)
class Reported:
    """A cluster's last report, in short."""

    cluster: str
    reporter: str
    reported: datetime
    entries: int


def parse_cluster(text: str) -> str:
    """Return a cluster's name. Raises NameInvalidError."""
    if not _CLUSTER.fullmatch(text):
        raise NameInvalidError(f"{text[:130]!r} is no name of a cluster", hint="write PROJECT/NAME")
    return text


def parse_running(document: Mapping[str, Any]) -> frozenset[Running]:
    """Return what a report says: ``{"images": [{"namespace", "workload", "digest"}, ...]}``.

    Raises RequestInvalidError: a report that is understood in part would let go what it did not name.
    """
    entries = document.get("images")
    if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
        raise RequestInvalidError(f"images is no list of at most {MOST_ENTRIES} entries")
    return frozenset(_running(entry) for entry in entries)


def is_workload(text: str) -> bool:
    """Say whether a text is a kind and a name, as reports have them."""
    return _WORKLOAD.fullmatch(text) is not None


def _running(entry: Any) -> Running:
    found = [entry.get(name) for name in _FIELDS] if isinstance(entry, dict) else []
    said = [one for one in found if isinstance(one, str)]
    if len(said) != len(_FIELDS):
        raise RequestInvalidError(f"an image has {', '.join(_FIELDS)}, all of them text")
    namespace, workload, digest = said
    if not _NAMESPACE.fullmatch(namespace) or not is_workload(workload) or not is_digest(digest):
        raise RequestInvalidError(
            f"{namespace[:63]!r}, {workload[:80]!r}, {digest[:80]!r} are no namespace, KIND/NAME and digest"
        )
    return Running(namespace, workload, digest)


def shown_to(project: str, uses: Sequence[Use]) -> tuple[Sequence[Use], int]:
    """Return the uses in a project's own clusters, and how many there are in others'.

    The same bytes may lie in many projects' repositories: what a project calls its workloads is nobody else's business.
    """
    own = [use for use in uses if project_of(use.cluster) == project]
    return own, len(uses) - len(own)


def described(project: str, uses: Sequence[Use]) -> str:
    """Return who uses an image, in words for a project: a few of its own, and whether there are more."""
    own, others = shown_to(project, uses)
    named = [f"{use.running.workload} in namespace {use.running.namespace} of {use.cluster}" for use in own[:NAMED]]
    if len(own) > NAMED:
        named.append("others")
    if others:
        named.append("other projects' clusters" if named else "in other projects' clusters")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
