"""Cluster access for kubectl: kubeconfig entries merged under a lock, and the exec plugin's short-lived credentials.

The plugin speaks ``client.authentication.k8s.io/v1`` (Kubernetes documentation "client-go credential plugins"). The
platform gives a token of half a minute; where clusters do not trust its tokens, a private key is made here, which never
leaves this machine, and the platform signs its certificate for an hour.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from haneul.cli.client import ApiClient
from haneul.cli.locked import locked
from haneul.kernel.documents import from_yaml, to_yaml
from haneul.kernel.errors import ConflictError
from haneul.kernel.files import write_atomically

# Certificates live an hour, tokens half a minute.
_SPARE_OF_CERTIFICATES = timedelta(minutes=10)
_SPARE_OF_TOKENS = timedelta(seconds=5)
_LOCK_SECONDS = 30.0


def default_path() -> Path:
    """Return the kubeconfig that kubectl would change: the first of ``$KUBECONFIG``, or ``~/.kube/config``."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


def entries(project: str, name: str, *, server: str, authority: str) -> dict[str, Any]:
    """Return a kubeconfig for one cluster; whoever uses it asks for credentials of their own."""
    context = f"{project}/{name}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": base64.b64encode(authority.encode()).decode(),
                },
            }
        ],
        "users": [
            {
                "name": context,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": "haneul",
                        "args": ["cluster", "credential", name, "--project", project],
                        "interactiveMode": "Never",
                        "installHint": "The haneul command gives short-lived credentials; install it and sign in.",
                    }
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }


def merge_into(path: Path, new: dict[str, Any]) -> None:
    """Put the entries of ``new`` into the file, keeping all others; concurrent callers wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, seconds=_LOCK_SECONDS):
        kept: dict[str, Any] = (from_yaml(path.read_text()) if path.exists() else None) or {}
        merged = {"apiVersion": "v1", "kind": "Config", **kept, "current-context": new["current-context"]}
        for section in ("clusters", "users", "contexts"):
            names = {entry["name"] for entry in new[section]}
            others = [entry for entry in kept.get(section) or [] if entry["name"] not in names]
            merged[section] = [*others, *new[section]]
        write_atomically(path, to_yaml(merged), mode=0o600)


def remove_from(path: Path, project: str, name: str) -> None:
    """Take one cluster's entries out of the file, if it is there."""
    if not path.exists():
        return
    context = f"{project}/{name}"
    with locked(path, seconds=_LOCK_SECONDS):
        kept: dict[str, Any] = from_yaml(path.read_text()) or {}
        for section in ("clusters", "users", "contexts"):
            kept[section] = [entry for entry in kept.get(section) or [] if entry["name"] != context]
        if kept.get("current-context") == context:
            kept["current-context"] = ""
        write_atomically(path, to_yaml(kept), mode=0o600)


class Credentials:
    """Short-lived credentials, kept in files of their owner's until shortly before they end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def default(cls) -> Credentials:
        """Return the caller's own."""
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        base = Path(runtime) if runtime else Path.home() / ".cache"
        return cls(base / "haneul" / "credentials")

    def kept(self, server: str, project: str, name: str, now: datetime) -> dict[str, Any] | None:
        """Return the kept credential if it still lives for a while."""
        path = self._path(server, project, name)
        if not path.exists():
            return None
        credential: dict[str, Any] = json.loads(path.read_text())
        until = datetime.fromisoformat(credential["status"]["expirationTimestamp"])
        spare = _SPARE_OF_TOKENS if "token" in credential["status"] else _SPARE_OF_CERTIFICATES
        return credential if until - now > spare else None

    def fetch(self, client: ApiClient, server: str, project: str, name: str) -> dict[str, Any]:
        """Ask for a token, or a certificate where clusters trust no tokens; keep and return it as an ExecCredential."""
        status: dict[str, Any]
        if (token := request_token(client, project, name)) is not None:
            status = {"expirationTimestamp": token["expires"], "token": token["token"]}
        else:
            made, key = request_credential(client, project, name)
            status = {
                "expirationTimestamp": made["expires"],
                "clientCertificateData": made["certificate"],
                "clientKeyData": key,
            }
        credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
        path = self._path(server, project, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, json.dumps(credential), mode=0o600)
        return credential

    def forget(self, server: str, project: str, name: str) -> None:
        """Drop what is kept; the next call of kubectl fetches anew."""
        self._path(server, project, name).unlink(missing_ok=True)

    def _path(self, server: str, project: str, name: str) -> Path:
        digest = hashlib.sha256(f"{server}|{project}|{name}".encode()).hexdigest()[:24]
        return self._folder / f"{digest}.json"


def request_token(client: ApiClient, project: str, name: str) -> dict[str, Any] | None:
    """Return a token for a cluster, or None where clusters do not trust the platform's issuer."""
    try:
        made: dict[str, Any] = client.post(f"/projects/{project}/clusters/{name}/token", None)
    except ConflictError:
        return None
    return made


def request_credential(client: ApiClient, project: str, name: str) -> tuple[dict[str, Any], str]:
    """Return what the platform signed for a fresh key, and the key in PEM."""
    from cryptography import x509  # noqa: PLC0415 - heavy, and only needed when the kept credential ended
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    from haneul.kernel.pki import new_private_key, private_key_pem  # noqa: PLC0415

    key = new_private_key()
    # The platform takes nothing but the key from the request; it decides the name by who asks.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    made: dict[str, Any] = client.post(f"/projects/{project}/clusters/{name}/credentials", {"certificateRequest": pem})
    return made, private_key_pem(key).decode()


def utc_now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)
