"""The management cluster's Secrets, encrypted before etcd sees them: the key, and those that are older than it.

Among them are the authorities and keys of every tenant. The key lies in a file of root's on the host, beside etcd's
data but not in it: a copy of etcd's files or a backup of them says nothing. It is made once; without it no Secret can
be read again, so nothing ever writes over it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final

from haneul.kernel.clock import Clock
from haneul.kernel.documents import to_yaml
from haneul.kernel.errors import ConflictError
from haneul.kernel.files import write_atomically
from haneul.kernel.kube import PODS, SECRETS, KubeApiError, KubeClient
from haneul.kernel.kube_manifests import encryption_configuration
from haneul.kernel.waiting import wait_for
from haneul.management.settings import ManagementSettings

#: Bytes of a key of the provider ``secretbox``.
_KEY_BYTES: Final = 32


def ensure_key(settings: ManagementSettings, random_bytes: Callable[[int], bytes]) -> None:
    """Write the API server's encryption configuration with a fresh key, for root only, unless there is one.

    Raises ConflictError if there was one: another key would not read what that one wrote.
    """
    if not settings.encryption.exists():
        if not (settings.state / "etcd").exists():
            # Nothing was ever stored, so nothing can be older than the key.
            write_atomically(_mark(settings), "")
        elif _mark(settings).exists():
            raise ConflictError(
                f"{settings.encryption}, the key of the management cluster's Secrets, is lost",
                hint="restore the file from your backup, or give all up with 'haneul down --purge'",
            )
        key = base64.b64encode(random_bytes(_KEY_BYTES))
        write_atomically(settings.encryption, to_yaml(encryption_configuration([("first", key)])), mode=0o600)


async def encrypt_older_secrets(settings: ManagementSettings, client: KubeClient, *, clock: Clock) -> None:
    """Have every Secret written again, once, so that those from before the key are encrypted too.

    A write that changes nothing is enough: the API server sees that what etcd holds is not as it would write it
    (Kubernetes documentation "Encrypting Confidential Data at Rest", section "Ensure all relevant data are
    encrypted"). Waits for the API server that knows the key: the kubelet may not have replaced an older one yet.
    """
    if _mark(settings).exists():
        return
    await wait_for(
        lambda: _server_encrypts(settings, client),
        what="the management API server that encrypts Secrets",
        timeout=120,
        clock=clock,
        hint=f"look at {settings.logs}/kubelet.log and at /var/log/pods",
    )
    for secret in await client.list(SECRETS):
        metadata = secret["metadata"]
        try:
            await client.patch(SECRETS, metadata["name"], {}, metadata["namespace"])
        except KubeApiError as error:
            # One that was deleted meanwhile need not be encrypted.
            if error.reason != "NotFound":
                raise
    write_atomically(_mark(settings), "")


def _mark(settings: ManagementSettings) -> Path:
    return settings.state / "secrets-encrypted"


async def _server_encrypts(settings: ManagementSettings, client: KubeClient) -> bool:
    """Say whether the API server's pod has the key: the kubelet shows the new pod only after the old one ended."""
    pod = await client.get(PODS, f"kube-apiserver-{settings.host_name}", "kube-system")
    containers = (pod or {}).get("spec", {}).get("containers", [])
    argument = f"--encryption-provider-config={settings.encryption}"
    return any(argument in entry.get("command", []) for entry in containers)
