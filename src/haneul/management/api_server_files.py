"""Files that tell the management cluster's API server what it grants, takes and writes down. None holds a secret.

They lie beside the key of Secrets at rest on every host with an API server, which mounts them read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from haneul.kernel.documents import to_yaml
from haneul.kernel.files import write_atomically
from haneul.kernel.kube_manifests import HEALTH_PATHS, JOIN_PATH, admission_configuration, anonymous_access
from haneul.management.settings import ManagementSettings

_READING: Final = ["get", "list", "watch"]


def contents(settings: ManagementSettings) -> Mapping[Path, str]:
    """Return what the files say, by their paths."""
    return {
        settings.authentication: to_yaml(anonymous_access((*HEALTH_PATHS, JOIN_PATH))),
        settings.admission: to_yaml(admission_configuration()),
        settings.audit_policy: to_yaml(audit_policy()),
    }


def write(settings: ManagementSettings) -> None:
    """Write the files, for root only, and make the folder of the audit log."""
    for path, text in contents(settings).items():
        write_atomically(path, text, mode=0o600)
    settings.audit_log.mkdir(parents=True, exist_ok=True)
    settings.audit_log.chmod(0o700)


def audit_policy() -> dict[str, Any]:
    """Who changed what, and who read what that is no part of the machinery; never what is in it."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/livez*", "/readyz*", "/healthz*", "/version"]},
            {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {
                "level": "None",
                "resources": [{"group": group, "resources": ["events"]} for group in ("", "events.k8s.io")],
            },
            {
                "level": "None",
                "userGroups": ["system:nodes", "system:serviceaccounts"],
                "verbs": _READING,
            },
            {
                "level": "None",
                "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"],
                "verbs": _READING,
            },
            {
                "level": "None",
                "userGroups": ["system:nodes"],
                "resources": [{"group": "", "resources": ["nodes/status", "pods/status"]}],
            },
            {"level": "Metadata"},
        ],
    }
