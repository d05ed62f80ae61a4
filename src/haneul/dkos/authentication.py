"""Whom a tenant's API server believes: the structured authentication of Kubernetes, rendered purely.

Besides certificates an API server may trust the platform's issuer, for tokens made for exactly this cluster. A person
is ``haneul:<name>`` and their role the group ``haneul:owners``, ``haneul:developers`` or ``haneul:viewers``, as with
certificates, so the same bindings give the same rights. No other group gets in by a token, whatever it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from haneul.dkos.model import Cluster
from haneul.kernel.documents import to_yaml
from haneul.kernel.kube_manifests import HEALTH_PATHS, anonymous_access

PREFIX: Final = "haneul:"
_GROUPS: Final = ("owners", "developers", "viewers")
#: Seconds that a token may live at most, whoever made it so.
LONGEST_TOKEN: Final = 300


@dataclass(frozen=True)
class IssuerTrust:
    """The platform's issuer as tenants' API servers reach it.

    ``url`` is its name in tokens and, if ``discovery_url`` does not say otherwise, where its keys are found; both are
    https. ``namespace`` and ``labels`` say which pods of the management cluster answer there, at ``port``.
    """

    url: str
    authority: str
    discovery_url: str = ""
    namespace: str = "haneul-system"
    application: str = "haneul-api"
    port: int = 7443


def token_audience(cluster: Cluster) -> str:
    """Return the audience of tokens for one cluster."""
    return f"haneul:cluster:{cluster.uid}"


def authentication(cluster: Cluster, trust: IssuerTrust | None) -> str:
    """Return the API server's ``AuthenticationConfiguration``; without a credential it answers health checks only."""
    configuration: dict[str, Any] = anonymous_access(HEALTH_PATHS)
    if trust is not None:
        configuration["jwt"] = [_authenticator(cluster, trust)]
    return to_yaml(configuration)


def _authenticator(cluster: Cluster, trust: IssuerTrust) -> dict[str, Any]:
    issuer: dict[str, Any] = {"url": trust.url}
    if trust.discovery_url:
        issuer["discoveryURL"] = trust.discovery_url
    issuer |= {"certificateAuthority": trust.authority, "audiences": [token_audience(cluster)]}
    known = ", ".join(f"'{group}'" for group in _GROUPS)
    return {
        "issuer": issuer,
        "claimMappings": {
            "username": {"claim": "sub", "prefix": PREFIX},
            "groups": {"claim": "groups", "prefix": PREFIX},
        },
        "claimValidationRules": [
            {
                "expression": f"dyn(claims.groups).all(group, group in [{known}])",
                "message": "a token gives the groups of roles and no others",
            },
            {
                "expression": f"claims.exp - claims.iat <= {LONGEST_TOKEN}",
                "message": "a token lives five minutes at most",
            },
        ],
    }
