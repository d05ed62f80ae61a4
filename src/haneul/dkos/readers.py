"""Who works for clusters outside of them: what each may in a cluster, and where it learns of clusters. Pure.

Each reader is one program in a namespace of the management cluster that is its own. The operator puts a record for each
cluster there (:mod:`haneul.dkos.cluster_record`), and gives the reader's user its rights in the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haneul.dkos.control_plane import ROLE_LABEL
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import READ, rule


@dataclass(frozen=True)
class Reader:
    """``name`` is that of its namespace, its program and its account; ``role`` that of its records and rights.

    ``rules`` are what it may in a cluster. With ``nodes``, its records say where the cluster's machines are;
    with ``token_keys``, by which public keys tokens of its service accounts are checked.
    """

    name: str
    role: str
    rules: tuple[Manifest, ...]
    nodes: bool = False
    token_keys: bool = False

    @property
    def user(self) -> str:
        """Return as whom, and in which group, it comes to a cluster's API."""
        return f"haneul:{self.role}"

    @property
    def record_labels(self) -> str:
        """Return what selects its records."""
        return f"{ROLE_LABEL}={self.role}"

    def record_name(self, uid: str) -> str:
        """Return the name of a cluster's record in its namespace."""
        return f"{self.role}-{uid}"


#: By this namespace's id everybody who follows a cluster's objects knows it (:mod:`haneul.kernel.kube_following`).
IDENTITY_RULE: Final = rule("", ["namespaces"], ["get"], names=["kube-system"])
#: Publishes names: it reads what has some, and gives Services receipts.
NAMES: Final = Reader(
    "haneul-dns",
    "names",
    (
        rule("", ["services", "pods"], READ),
        rule("discovery.k8s.io", ["endpointslices"], READ),
        rule("", ["services/status"], ["patch"]),
        IDENTITY_RULE,
    ),
)
#: Tells the image hub whose pods may pull, and which images they run.
HUB: Final = Reader("haneul-hub", "images", (rule("", ["pods"], ["list"]), IDENTITY_RULE), token_keys=True)
