"""The versions of Kubernetes that clusters may have, and what Kubernetes allows between them. Pure.

Two minors are offered. The newest is the default, because it is what the management cluster itself runs and what every
test is run with; the older one is there for who needs it and to be upgraded from. A cluster may also have a version
that an earlier Haneul offered: it is kept as it is, and can be upgraded. The rules are those of Kubernetes'
version skew policy (https://kubernetes.io/releases/version-skew-policy/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_VERSION: Final = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})")
#: A kubelet may be so many minors older than the API server, and never newer.
KUBELET_MINORS: Final = 3


@dataclass(frozen=True)
class Release:
    """A version that is offered. A ``deprecated`` one is not offered any more once there is another minor."""

    version: str
    deprecated: bool = False


#: Newest first. The first is the default.
RELEASES: Final = (Release("1.37.2"), Release("1.36.5", deprecated=True))
VERSIONS: Final = tuple(release.version for release in RELEASES)


def parse(version: str) -> tuple[int, int, int] | None:
    """Return a version's numbers; None if it is none."""
    match = _VERSION.fullmatch(version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def is_newer(one: str, other: str) -> bool:
    """Say whether ``one`` is a newer version than ``other``; what is no version is not newer than anything."""
    first, second = parse(one), parse(other)
    return first is not None and second is not None and first > second


def way_of_masters(before: str, after: str) -> str:
    """Return in words why masters cannot go from one version to another; nothing if they can."""
    first, second = parse(before), parse(after)
    if second is None:
        return f"{after!r} is no version of Kubernetes"
    if first is None:
        return f"the masters run {before!r}, which is no version of Kubernetes"
    if second < first:
        return (
            f"masters cannot go back from {before} to {after}: what a newer API server has written, "
            "an older one may not be able to read"
        )
    if second[0] != first[0] or second[1] - first[1] > 1:
        return f"no minor may be skipped between {before} and {after}"
    return ""


def offered_after(version: str) -> str:
    """Return the version in which a cluster of this one can be made again: the same, or else the next; or nothing."""
    if version in VERSIONS:
        return version
    return next((one for one in reversed(VERSIONS) if not way_of_masters(version, one)), "")


def way_of_nodes(masters: str, nodes: str) -> str:
    """Return in words why nodes of one version cannot work with masters of another; nothing if they can."""
    first, second = parse(masters), parse(nodes)
    if second is None:
        return f"{nodes!r} is no version of Kubernetes"
    if first is None or second > first:
        return f"nodes of {nodes} cannot work with masters of {masters}: a kubelet is never newer than its API server"
    if first[0] != second[0] or first[1] - second[1] > KUBELET_MINORS:
        return (
            f"nodes of {nodes} cannot work with masters of {masters}: "
            f"a kubelet is at most {KUBELET_MINORS} minors older than its API server"
        )
    return ""
