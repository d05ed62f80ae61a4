"""The port ``Certificates`` from an authority: one for each host, kept in a folder, renewed before it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from haneul.ingress.model import Certificate
from haneul.kernel.clock import Clock
from haneul.kernel.leaf_files import LeafFiles
from haneul.kernel.pki import KeyPair, LeafProfile

_LIFE: Final = timedelta(days=90)
_COMMON_NAME: Final = "Haneul ingress"


class IssuedCertificates:
    """Certificates of hosts in ``folder``, which root alone may read; ``authority`` reads what signs them."""

    def __init__(self, folder: Path, authority: Callable[[], KeyPair], *, clock: Clock) -> None:
        self._folder = folder
        self._authority = authority
        self._clock = clock

    async def certificates(self, hosts: Sequence[str]) -> Mapping[str, Certificate]:
        """Return each host's certificate, a fresh one if less than a third of its life is left, or it has none.

        Those of hosts that are not asked for any more are deleted.
        """
        return await asyncio.to_thread(self._certificates, hosts)

    def _certificates(self, hosts: Sequence[str]) -> dict[str, Certificate]:
        if not hosts and not self._folder.exists():
            return {}
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = self._authority()
        found = {host: self._of(host, authority) for host in hosts if host}
        kept = {self._file(host) for host in found}
        for file in self._folder.glob("*.pem"):
            if file not in kept:
                file.unlink(missing_ok=True)
        return found

    def _of(self, host: str, authority: KeyPair) -> Certificate:
        file, profile = self._file(host), LeafProfile(_COMMON_NAME, dns_names=(host,), server=True)
        leaf, _ = LeafFiles(file, file, chained=True).ensure(authority, profile, now=self._clock.now(), life=_LIFE)
        return Certificate(leaf.certificate, leaf.key)

    def _file(self, host: str) -> Path:
        return self._folder / f"{hashlib.sha256(host.encode()).hexdigest()[:32]}.pem"
