"""The addresses that machines share, put together: keepalived beside the balancer, and which part this machine has."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from haneul.balancer.adapters import haproxy_alive
from haneul.balancer.adapters.haproxy_configuration import Process
from haneul.balancer.adapters.keepalived import Keepalived
from haneul.balancer.adapters.keepalived_configuration import Sharing
from haneul.balancer.adapters.nftables_rules import STAMP, Kernel, Mode
from haneul.balancer.adapters.truth import Truth
from haneul.balancer.model import Part
from haneul.balancer.settings import HaproxySettings, NftablesSettings
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)
_PAUSE: Final = 0.5


class SharedAddresses:
    """Sees to keepalived, and looks whether this machine has the addresses."""

    def __init__(self, keepalived: Keepalived, clock: Clock) -> None:
        self._keepalived = keepalived
        self._clock = clock
        self.part = Part.STANDBY

    async def run(self, changed: Callable[[], None]) -> None:
        """Do so until cancelled; ``changed`` is called when this machine has got the addresses or lost them."""
        while True:
            try:
                await in_own_task(self._keepalived.settle())
                active = await in_own_task(self._keepalived.has_addresses())
            except HaneulError as error:
                _log.warning("shared addresses are not seen to; tried again", detail=error.detail)
            else:
                part = Part.ACTIVE if active else Part.STANDBY
                if part is not self.part:
                    self.part = part
                    _log.info("addresses", part=part.value)
                    changed()
            await self._clock.sleep(_PAUSE)


def sharing_of(settings: HaproxySettings | NftablesSettings, clock: Clock) -> SharedAddresses | None:
    """Return what sees to the addresses that a balancer shares; None if they are its own."""
    share = settings.share
    if share is None:
        return None
    sharing = Sharing(
        settings.addresses(),
        share.device,
        str(share.address),
        tuple(str(peer) for peer in share.peers),
        share.router,
        share.priority,
        share.advert_milliseconds // 10,
        _alive(settings),
    )
    return SharedAddresses(Keepalived(sharing, Truth(settings.folder), clock=clock), clock)


def kernel_of(settings: NftablesSettings) -> Kernel:
    """Return how the kernel is used."""
    return Kernel(Mode(settings.mode), masquerade=settings.masquerade, device=settings.device)


def process_of(settings: HaproxySettings) -> Process:
    """Return how HAProxy runs."""
    return Process(settings.folder, settings.user, settings.max_connections, settings.keep_seconds)


def _alive(settings: HaproxySettings | NftablesSettings) -> tuple[str, ...]:
    """Return the command that tells whether the balancer answers, whoever wrote its rules."""
    if isinstance(settings, NftablesSettings):
        place = kernel_of(settings).place.split()
        return (shutil.which("nft") or "/usr/sbin/nft", "list", "chain", *place, STAMP)
    # An environment's own name for it may lie where keepalived trusts nothing; the file needs none of its packages.
    return (str(Path(sys.executable).resolve()), "-I", "-S", haproxy_alive.__file__, str(process_of(settings).worker))
