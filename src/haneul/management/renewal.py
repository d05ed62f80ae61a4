"""Renewing a host's certificates before they end, by kubeadm, and starting anew what reads them once.

:mod:`haneul.management.certificates` decides. What was done is seen in the files themselves: a renewal that was killed
at any instant is finished by the next one. A static pod's manifest names, by a digest, the certificates that it was
written for; as long as others lie there it is written again, and the kubelet starts the pod anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from haneul.kernel.clock import Clock
from haneul.kernel.documents import from_yaml
from haneul.kernel.errors import HaneulError
from haneul.kernel.files import write_atomically
from haneul.kernel.kube import PODS, KubeClient, is_ready
from haneul.kernel.waiting import wait_for
from haneul.management import kubeadm
from haneul.management.certificates import (
    AUTHORITIES,
    LEAVES,
    PHASES,
    STATIC_PODS,
    Held,
    held,
    outdated,
    used_by,
)
from haneul.management.settings import ManagementSettings

_log = structlog.get_logger(__name__)

_KUBELET_CONFIGURATION: Final = "kubelet.conf"
_KUBELET_CLIENT, _KUBELET_SERVING = "kubelet-client-current.pem", "kubelet.crt"
#: The kubelet renews its client certificate when 10 to 30 % of its life are left; with less, it did not get to it.
_KUBELET_MISSED: Final = 0.08
_RESTART_SECONDS: Final = 180.0


@dataclass(frozen=True)
class Doing:
    """How things are done on this host.

    ``kubeadm`` runs it with the given arguments, ``restart_kubelet`` starts the kubelet anew; pods do not notice.
    """

    kubeadm: Callable[[Sequence[str]], Awaitable[None]]
    restart_kubelet: Callable[[], Awaitable[None]]
    client: Callable[[], AbstractAsyncContextManager[KubeClient]]


class HostCertificates:
    """The certificates of this host's part of the management cluster."""

    def __init__(
        self,
        settings: ManagementSettings,
        doing: Doing,
        *,
        clock: Clock,
        kubernetes: Path = Path("/etc/kubernetes"),
        kubelet: Path = Path("/var/lib/kubelet/pki"),
    ) -> None:
        self._settings = settings
        self._doing = doing
        self._clock = clock
        self._kubernetes = kubernetes
        self._kubelet = kubelet

    def look(self) -> list[Held]:
        """Return every certificate that is there; none on a host that is not set up."""
        found = [self._held(name) for name in LEAVES]
        found += [self._held(name, authority=True) for name in AUTHORITIES]
        return [entry for entry in [*found, *self._of_kubelet()] if entry is not None]

    def pending(self) -> bool:
        """Say whether :meth:`renew` has something to do."""
        now = self._clock.now()
        leaves = [entry for entry in self.look() if not entry.authority]
        return any(entry.due(now) for entry in leaves) or (bool(leaves) and bool(self._outdated()))

    async def renew_files(self) -> bool:
        """Renew the files of what is due; return whether the kubelet must be started anew to read its own."""
        now = self._clock.now()
        leaves = [entry for name in LEAVES if (entry := self._held(name)) is not None]
        if not leaves:
            return False
        if any(entry.due(now) for entry in leaves):
            _log.info("the management cluster's certificates are renewed")
            # All at once: one renewal a year instead of eleven. Of each pair kubeadm only needs the certificate.
            await self._doing.kubeadm(["certs", "renew", "all", "--config", str(self._settings.kubeadm_file)])
        self.keep_administrator()
        stale = [entry.name for entry in self._of_kubelet() if entry.due(now)]
        if _KUBELET_SERVING in stale:
            # The kubelet makes itself another when it finds none.
            for name in (_KUBELET_SERVING, "kubelet.key"):
                (self._kubelet / name).unlink(missing_ok=True)
        if _KUBELET_CLIENT in stale:
            (self._kubelet / _KUBELET_CLIENT).unlink(missing_ok=True)
            (self._kubernetes / _KUBELET_CONFIGURATION).unlink(missing_ok=True)
        if not (self._kubernetes / _KUBELET_CONFIGURATION).exists():
            arguments = ["init", "phase", "kubeconfig", "kubelet", "--config", str(self._settings.kubeadm_file)]
            await self._doing.kubeadm(arguments)
            return True
        return bool(stale)

    def write_patches(self) -> None:
        """Tell kubeadm which certificates the static pods are to be written for."""
        for name, patch in kubeadm.patches(self._wanted()).items():
            write_atomically(self._settings.state / "kubeadm-patches" / name, patch)

    def keep_administrator(self) -> None:
        """Keep the administrator's kubeconfig as kubeadm has it, once there is one."""
        source = self._kubernetes / "super-admin.conf"
        if source.exists():
            write_atomically(self._settings.admin_kubeconfig, source.read_bytes(), mode=0o600)

    async def renew(self) -> None:
        """Renew what is due and start anew, one after the other, what reads it; wait until each serves again."""
        if await self.renew_files():
            await self._doing.restart_kubelet()
        self.write_patches()
        for pod in self._outdated():
            _log.info("started anew with other certificates", pod=pod)
            arguments = ["init", "phase", *PHASES[pod], "--config", str(self._settings.kubeadm_file)]
            await self._doing.kubeadm(arguments)
            await self._wait_for(pod)

    async def _wait_for(self, pod: str) -> None:
        wanted = self._wanted()[pod]
        async with self._doing.client() as client:

            async def serves() -> bool:
                try:
                    await client.raw_get("/readyz")
                    seen = await client.get(PODS, f"{pod}-{self._settings.host_name}", "kube-system") or {}
                except HaneulError:
                    return False
                annotations = seen.get("metadata", {}).get("annotations", {})
                return annotations.get(kubeadm.CERTIFICATES_ANNOTATION) == wanted and is_ready(seen)

            await wait_for(
                serves,
                what=f"{pod} to serve with its new certificates",
                timeout=_RESTART_SECONDS,
                clock=self._clock,
                hint=f"look at {self._settings.logs}/kubelet.log and at /var/log/pods",
            )

    def _wanted(self) -> dict[str, str]:
        names = {name for files in STATIC_PODS.values() for name in files}
        files = {name: path.read_bytes() for name in names if (path := self._kubernetes / name).exists()}
        return {pod: used_by(pod, files) for pod in STATIC_PODS}

    def _outdated(self) -> Sequence[str]:
        return outdated(self._wanted(), {pod: self._written(pod) for pod in STATIC_PODS})

    def _written(self, pod: str) -> str:
        manifest = self._kubernetes / "manifests" / f"{pod}.yaml"
        if not manifest.exists():
            return ""
        metadata = (from_yaml(manifest.read_text()) or {}).get("metadata", {})
        return str((metadata.get("annotations") or {}).get(kubeadm.CERTIFICATES_ANNOTATION, ""))

    def _held(self, name: str, *, authority: bool = False) -> Held | None:
        path = self._kubernetes / name
        if not path.exists():
            return None
        key = path.with_suffix(".key") if path.suffix == ".crt" and not authority else None
        content = path.read_bytes()
        return held(name, content, key.read_bytes() if key and key.exists() else None, authority=authority)

    def _of_kubelet(self) -> list[Held]:
        client, serving = self._kubelet / _KUBELET_CLIENT, self._kubelet / _KUBELET_SERVING
        found = []
        if client.exists():
            pair = client.read_bytes()
            found.append(held(_KUBELET_CLIENT, pair, pair, renew_at=_KUBELET_MISSED))
        if serving.exists():
            found.append(held(_KUBELET_SERVING, serving.read_bytes()))
        return found
