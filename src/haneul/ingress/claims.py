"""Which Ingress objects are ours, and which of them has a host or a path that several want. Pure.

A host belongs to the namespace of the oldest Ingress that names it, a path of it to the oldest Ingress there; of two
that are equally old the one whose name comes first. So nobody takes what somebody else has, however precise the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from haneul.ingress.model import ANY_HOST, Path
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_objects import Place

#: What an IngressClass names in ``spec.controller`` to be ours.
CONTROLLER: Final = "haneul.dev/ingress"
_DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"
#: What came before ``spec.ingressClassName``, and is still written.
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"


def ours(ingresses: Iterable[Manifest], classes: Iterable[Manifest]) -> list[Manifest]:
    """Return the Ingress objects of our classes, the oldest first."""
    mine = [found for found in classes if (found.get("spec") or {}).get("controller") == CONTROLLER]
    names = {found["metadata"]["name"] for found in mine}
    defaults = any((found["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true" for found in mine)
    return sorted((one for one in ingresses if _is_ours(one, names, defaults=defaults)), key=_age)


def _is_ours(ingress: Manifest, names: set[str], *, defaults: bool) -> bool:
    metadata = ingress["metadata"]
    if metadata.get("deletionTimestamp"):
        return False
    name = (ingress.get("spec") or {}).get("ingressClassName") or (metadata.get("annotations") or {}).get(
        CLASS_ANNOTATION
    )
    return name in names if name else defaults


def _age(ingress: Manifest) -> tuple[str, str, str]:
    metadata = ingress["metadata"]
    return metadata.get("creationTimestamp") or "", metadata["namespace"], metadata["name"]


class Claims:
    """Who has which hosts and paths; whoever asks first gets them."""

    def __init__(self, *, across_namespaces: bool = False) -> None:
        self._across = across_namespaces
        self._hosts: dict[str, Place] = {}
        self._paths: dict[tuple[str, Path], Place] = {}

    def host(self, host: str, ingress: Place) -> Place | None:
        """Take a host; return who has it instead if that is somebody of another namespace."""
        owner = self._hosts.setdefault(host, ingress)
        shared = self._across or host == ANY_HOST or owner.namespace == ingress.namespace
        return None if shared else owner

    def path(self, host: str, path: Path, ingress: Place) -> Place | None:
        """Take a path of a host; return who has it already, perhaps the same Ingress."""
        owner = self._paths.get((host, path))
        if owner is None:
            self._paths[host, path] = ingress
        return owner

    def may_certify(self, host: str, ingress: Place) -> bool:
        """Say whether an Ingress may bring the certificate of a host."""
        owner = self._hosts.get(host)
        return owner is not None and (self._across or owner.namespace == ingress.namespace)

    def hosts(self) -> Sequence[str]:
        """Return every host that somebody has."""
        return list(self._hosts)
