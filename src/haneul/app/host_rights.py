"""What programs of this host may do in the management cluster, each as a user of its own. Pure.

Each rule is there for one thing that the program does; nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping

from haneul.dkos.readers import INGRESS
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import rights_in_namespace, rule, user
from haneul.management import host_users


def host_rights(labels: Mapping[str, str]) -> list[Manifest]:
    """Return the rights of all programs of the host that have some."""
    return rights_in_namespace("host", INGRESS.name, ingress_rules(), user(host_users.INGRESS.name), labels)


def ingress_rules() -> list[Manifest]:
    """Return what the worker of ingress may do in the namespace of its records, where nothing else lies.

    It follows the records, writes on one why its cluster is not followed, and deletes that of one that is gone, whose
    address it gives back.
    """
    return [
        rule("", ["secrets"], ["list", "watch", "patch", "delete"]),
        rule("", ["configmaps"], ["list", "delete"]),
    ]
