"""Which Ingress objects are ours, and which of them has a host or a path that several want. Pure.

A host belongs to the namespace of the oldest Ingress that names it, a path of it to the oldest Ingress there; of two
that are equally old the one whose name comes first. So nobody takes what somebody else has, however precise the path.
HTTPRoutes have hosts of their own: a host is served either for Ingress objects or for HTTPRoutes, as they do not agree
on what goes first, and nobody is to slip a path into a host that is guarded by annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from haneul.ingress.model import ANY_HOST, Path
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_objects import Place

#: What an IngressClass names in ``spec.controller`` to be ours.
CONTROLLER: Final = "haneul.dev/ingress"
_DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"
#: What came before ``spec.ingressClassName``, and is still written.
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"


Age = tuple[str, str, str]


def ours(ingresses: Iterable[Manifest], classes: Iterable[Manifest]) -> list[Manifest]:
    """Return the Ingress objects of our classes, the oldest first."""
    mine = [found for found in classes if (found.get("spec") or {}).get("controller") == CONTROLLER]
    names = {found["metadata"]["name"] for found in mine}
    defaults = any((found["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true" for found in mine)
    return sorted((one for one in ingresses if _is_ours(one, names, defaults=defaults)), key=age)


def _is_ours(ingress: Manifest, names: set[str], *, defaults: bool) -> bool:
    metadata = ingress["metadata"]
    if metadata.get("deletionTimestamp"):
        return False
    name = (ingress.get("spec") or {}).get("ingressClassName") or (metadata.get("annotations") or {}).get(
        CLASS_ANNOTATION
    )
    return name in names if name else defaults


def age(manifest: Manifest) -> Age:
    """Return what objects are sorted by, the oldest first."""
    metadata = manifest["metadata"]
    return metadata.get("creationTimestamp") or "", metadata.get("namespace", ""), metadata["name"]


class Claims:
    """Which Ingress has which hosts and paths; whoever asks first gets them, unless an HTTPRoute is older."""

    def __init__(
        self, *, across_namespaces: bool = False, routes: Mapping[str, tuple[Age, Place]] | None = None
    ) -> None:
        """``routes`` are the hosts that HTTPRoutes want, each with the oldest of them."""
        self._across = across_namespaces
        self._routes = routes or {}
        self._hosts: dict[str, Place] = {}
        self._paths: dict[tuple[str, Path], Place] = {}

    def host(self, host: str, ingress: Place, born: Age) -> Place | None:
        """Take a host; return who has it instead if that is somebody of another namespace, or an HTTPRoute."""
        if host not in self._hosts and host in self._routes and self._routes[host][0] <= born:
            return self._routes[host][1]
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

    def hosts(self) -> Mapping[str, Place]:
        """Return every host that somebody has, with the oldest who does."""
        return self._hosts
