"""As whom programs of this host come to the management cluster: each as a user of its own, never its administrator.

A user is a kubeconfig for root alone with a client certificate of a week, as Kubernetes cannot revoke one. `up` makes
it, and what renews this host's certificates makes it anew; the program that reads it begins anew with it. What a user
may do is a role of the management cluster (:mod:`haneul.app.host_rights`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import write_atomically
from haneul.kernel.kube import KubeAccess
from haneul.kernel.kube_http import access_from_kubeconfig
from haneul.kernel.kubeconfig import client_kubeconfig
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf
from haneul.management.certificates import Held, held
from haneul.management.settings import ManagementSettings

LIFE: Final = timedelta(days=7)
_ROOT_ONLY: Final = 0o600
_KUBERNETES: Final = Path("/etc/kubernetes")


@dataclass(frozen=True)
class HostUser:
    """Who a program of this host is to the management cluster."""

    program: str

    @property
    def name(self) -> str:
        """Return the user's name, which its certificate says; it is in no group."""
        return f"haneul:host:{self.program}"

    def kubeconfig(self, state: Path) -> Path:
        """Return its kubeconfig below the installation's state folder."""
        return state / self._file

    def held(self, state: Path) -> Held:
        """Return its certificate. Raises ValueError if there is none in its file."""
        return held(self._file, self.kubeconfig(state).read_bytes())

    @property
    def _file(self) -> str:
        return f"credentials/{self.program}.conf"


#: What tells the proxies of clusters' ingress what to serve.
INGRESS: Final = HostUser("ingress")
HOST_USERS: Final = (INGRESS,)


class HostUsers:
    """The kubeconfigs of this host's programs."""

    def __init__(self, settings: ManagementSettings, *, clock: Clock, kubernetes: Path = _KUBERNETES) -> None:
        self._settings = settings
        self._clock = clock
        self._kubernetes = kubernetes

    def ensure(self) -> None:
        """Make what is missing, what is due, and what is of another server or authority; none before there is one."""
        if not self._settings.admin_kubeconfig.exists():
            return
        administrator, now = access_from_kubeconfig(self._settings.admin_kubeconfig), self._clock.now()
        for user in HOST_USERS:
            if not self._is_good(user, administrator, now):
                leaf = issue_leaf(self._authority(), LeafProfile(user.name, client=True), now=now, life=LIFE)
                content = client_kubeconfig(administrator.server, administrator.authority, leaf)
                write_atomically(user.kubeconfig(self._settings.state), content, mode=_ROOT_ONLY)

    def look(self) -> list[Held]:
        """Return every certificate that is there."""
        state = self._settings.state
        return [user.held(state) for user in HOST_USERS if user.kubeconfig(state).exists()]

    def _is_good(self, user: HostUser, wanted: KubeAccess, now: datetime) -> bool:
        state = self._settings.state
        try:
            kept = access_from_kubeconfig(user.kubeconfig(state))
            return (kept.server, kept.authority) == (wanted.server, wanted.authority) and not user.held(state).due(now)
        except (InvalidInputError, ValueError):
            return False

    def _authority(self) -> KeyPair:
        folder = self._kubernetes / "pki"
        return KeyPair((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
