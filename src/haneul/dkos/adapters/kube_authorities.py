"""Clusters' client authorities from the secrets that the operator makes for the platform's API."""

from __future__ import annotations

from haneul.dkos.credentials import decode
from haneul.dkos.masters import CLIENT_AUTHORITY
from haneul.dkos.model import Cluster
from haneul.dkos.service import ClientAuthority
from haneul.kernel.kube import SECRETS, KubeApiError, KubeClient
from haneul.kernel.pki import KeyPair


class KubeAuthorities:
    """Reads one secret of each cluster's masters namespace, which is all that the API may read there."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def of(self, cluster: Cluster) -> ClientAuthority | None:
        """Return the authority, or None while the operator has not made it."""
        try:
            secret = await self._client.get(SECRETS, CLIENT_AUTHORITY, cluster.masters_namespace)
        except KubeApiError as error:
            # The right to read the secret is made with the cluster, a moment before the secret.
            if error.status == 403:
                return None
            raise
        if secret is None:
            return None
        data = decode(secret)
        signer = KeyPair(data["ca.crt"], data["ca.key"])
        return ClientAuthority(signer, data["server"].decode(), data.get("bundle.crt", signer.certificate))
