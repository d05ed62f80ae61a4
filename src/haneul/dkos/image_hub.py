"""The platform's image hub, as clusters know it: where nodes pull from, and as whom. Pure.

Nodes reach it by its address, so that pulls need no DNS; its name is what people write. They pull by tokens of pods'
own service accounts, which the kubelet asks for and nobody stores (Kubernetes documentation "Configure a kubelet image
credential provider", KEP-4412). Pods without a token, such as static ones, pull what everybody may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from haneul.kernel.documents import to_yaml
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import rule

#: Who issues service accounts' tokens, by its name in each cluster.
TOKEN_ISSUER: Final = "https://kubernetes.default.svc"  # noqa: S105 - a name
#: The node image's program that makes a token of a pod what a registry takes.
_PROVIDER: Final = "haneul-hub"
_AUTHORITY: Final = "hub-ca.crt"
#: On by default since Kubernetes 1.34.
_TOKENS_GATE: Final = "KubeletServiceAccountTokenForCredentialProviders"


@dataclass(frozen=True)
class ImageHub:
    """A hub: its name, the IPv4 address and port at which it serves, and the certificate of its authority in PEM."""

    name: str
    address: str
    port: int
    authority: str

    @property
    def audience(self) -> str:
        """Return whom tokens for it are for."""
        return self.name

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return what images of it begin with: nodes know it without its port too."""
        return self.name, f"{self.name}:{self.port}"


def hub_files(hub: ImageHub, feature_gates: Mapping[str, bool]) -> dict[str, str]:
    """Return what a node has to be told, files by their names beside its others.

    A kubelet that was told to do without tokens for pulls would not start if it were told how to ask for some.
    """
    files = {_AUTHORITY: hub.authority, "hub-hosts.toml": _hosts(hub)}
    if feature_gates.get(_TOKENS_GATE, feature_gates.get("AllBeta", True)):
        files["image-credentials.yaml"] = to_yaml(_credentials(hub))
    return files


def token_rules(hub: ImageHub) -> list[Manifest]:
    """Return what nodes need to ask for tokens for the hub: else they may only for whom a pod's own volumes name.

    See Kubernetes documentation "Admission control in Kubernetes", NodeRestriction.
    """
    return [rule("", [hub.audience], ["request-serviceaccounts-token-audience"])]


def _hosts(hub: ImageHub) -> str:
    """Return how the container runtime reaches it, and nobody else by its name (containerd, "hosts.md")."""
    return f"""server = "https://{hub.address}:{hub.port}"
capabilities = ["pull", "resolve"]
ca = "/etc/haneul/node/{_AUTHORITY}"
"""


def _credentials(hub: ImageHub) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [
            {
                "name": _PROVIDER,
                "matchImages": list(hub.hosts),
                "args": list(hub.hosts),
                "defaultCacheDuration": "0s",
                "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
                "tokenAttributes": {
                    "serviceAccountTokenAudience": hub.audience,
                    # What is given back ends with the token.
                    "cacheType": "Token",
                    "requireServiceAccount": True,
                },
            }
        ],
    }
