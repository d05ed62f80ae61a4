"""What `haneul up` is told by its options, and keeps for the next times: the hub, the object store, the issuer.

Each is a mark or a file of the installation's state, written by who holds the host's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from haneul.app import platform_kage
from haneul.app.platform_issuer import PlatformIssuer
from haneul.kernel.errors import InvalidInputError
from haneul.management import image_hub
from haneul.management.ingress_host import IngressFiles


@dataclass(frozen=True)
class Switches:
    """What one `up` was told; None, and no file of an issuer, leave what is kept as it is."""

    hub: bool | None = None
    kage: bool | None = None
    acme: Path | None = None
    no_acme: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot both be."""
        if self.acme is not None and self.no_acme:
            raise InvalidInputError("--acme and --no-acme are opposites", hint="give one of them")

    def hub_is_wanted(self, state: Path) -> bool:
        """Say whether the hub runs: as told, else as kept in the installation's state folder."""
        return image_hub.is_wanted(state) if self.hub is None else self.hub

    def kage_is_wanted(self, state: Path) -> bool:
        """Say whether the object store runs: as told, else as kept in the installation's state folder."""
        return platform_kage.is_wanted(state) if self.kage is None else self.kage

    def keep(self, state: Path) -> None:
        """Write what was told; the caller holds the host's lock.

        Raises InvalidInputError, before anything is written, for a file that names no issuer.
        """
        issuer = PlatformIssuer(IngressFiles(state))
        if self.acme is not None:
            issuer.name(self.acme)
        if self.no_acme:
            issuer.forget()
        if self.hub is not None:
            image_hub.want(state, wanted=self.hub)
        if self.kage is not None:
            platform_kage.want(state, wanted=self.kage)


NOTHING_TOLD: Final = Switches()
