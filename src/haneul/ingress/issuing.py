"""Keeps hosts supplied with certificates: one order after the other, each with its own end and its own back-off.

An order that is refused is a refusal for its host alone; what the host had before is served on. What was given is kept
before it is served, and what was refused too, so that whoever comes later does not ask at once again. An order is kept
from when it was taken to its end: whoever comes after one that was killed goes on with it, and orders nothing anew.
New orders are counted before they are placed, and hosts that nobody wants any more are forgotten after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from haneul.ingress.certificates import checked_certificate
from haneul.ingress.issued import reasons
from haneul.ingress.model import Certificate
from haneul.ingress.new_orders import WINDOW, counted, held_up
from haneul.ingress.ports import Authority, Begun, CertificateRefusedError, CertificateStore
from haneul.ingress.renewals import Refusals, next_host, refused, renewal
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)
#: Seconds that the proxy has to show what an authority wants to find.
_PATIENCE: Final = 120.0
_LONGEST_WHY: Final = 500
#: Seconds that an issuer has to say which order it took, once this was told to end.
_LAST_WORD: Final = 5.0


@dataclass
class _News:
    """What happened to the proxy and the wishes since the last look."""

    wanted: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()


class Issuer:
    """The certificates of one controller's hosts."""

    def __init__(self, authority: Authority, store: CertificateStore, clock: Clock) -> None:
        self._authority = authority
        self._store = store
        self._clock = clock
        self._news = _News()
        self._woken = asyncio.Event()
        self._issued: dict[str, Certificate] = store.certificates()
        self._refusals: dict[str, Refusals] = store.refusals()
        self._orders: dict[str, datetime] = store.orders()
        self._held: dict[str, datetime] = {}
        self._heard = False
        self._challenges: dict[str, str] = {}
        self._changed: Callable[[], None] = lambda: None

    @property
    def issued(self) -> Mapping[str, Certificate]:
        """Return the certificates that were given, by host."""
        return self._issued

    @property
    def unissued(self) -> Mapping[str, str]:
        """Return why the last order of a host was refused, or why none is placed."""
        return reasons(self._refusals, self._held)

    @property
    def challenges(self) -> Mapping[str, str]:
        """Return what has to be shown now, by its tokens."""
        return self._challenges

    def when_changed(self, changed: Callable[[], None]) -> None:
        """Have something called after each change of what is to be served or told."""
        self._changed = changed

    def serves(self, hosts: Collection[str], shown: Collection[str]) -> None:
        """Take note of the hosts that are served and want certificates, and of the tokens that are shown."""
        news = _News(frozenset(hosts), frozenset(shown))
        if news != self._news or not self._heard:
            self._news, self._heard = news, True
            self._woken.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._woken.clear()
            now, wanted = self._clock.now(), self._news.wanted
            held = held_up(wanted, self._issued, self._orders, now)
            if held != self._held:
                self._held = held
                self._changed()
            host, pause = next_host(wanted, self._issued, self._refusals, held, now)
            if host is not None:
                await self._supply(host)
            else:
                self._tidy(wanted, now)
                await self._woken_within(pause)

    def _tidy(self, wanted: Collection[str], now: datetime) -> None:
        """Forget hosts that went; not before it was said which there are."""
        if not self._heard:
            return
        try:
            gone = self._store.tidy(wanted, now, WINDOW)
        except HaneulError as error:
            _log.warning("hosts that went cannot be forgotten", detail=error.detail)
            return
        for host in gone:
            self._issued.pop(host, None)
            _log.info("certificate deleted; nobody wants it", host=host)

    async def _supply(self, host: str) -> None:
        before = self._refusals.get(host)
        try:
            certificate = await self._ordered(host)
            self._store.keep(host, certificate)
        except HaneulError as error:
            wait = error.wait if isinstance(error, CertificateRefusedError) else None
            if isinstance(error, CertificateRefusedError) and error.over:
                self._forget_order(host)
            why = error.detail[:_LONGEST_WHY]
            self._refusals[host] = refused(before, host, why, wait, self._clock.now())
            _log.warning("no certificate", host=host, detail=why, again=str(self._refusals[host].after))
        else:
            self._issued[host] = certificate
            self._refusals.pop(host, None)
            _log.info("certificate given", host=host)
            if renewal(certificate, host) <= self._clock.now():
                # Without a pause it would be asked for again at once, and again.
                why = "what the issuer gave is due for renewal already; is this machine's clock right?"
                self._refusals[host] = refused(before, host, why, None, self._clock.now())
        now, wanted = self._clock.now(), self._news.wanted
        # A host that went and comes back waits on: else it would be ordered for each time that it comes.
        kept = {name: one for name, one in self._refusals.items() if name in wanted or one.after + WINDOW > now}
        self._refusals = kept
        try:
            self._store.remember(self._refusals)
        except HaneulError as error:
            # It holds for as long as this runs.
            _log.warning("refusals cannot be kept", detail=error.detail)
        self._changed()

    async def _ordered(self, host: str) -> Certificate:
        if kept := self._store.order(host):
            begun = await self._authority.resume(host, kept)
        else:
            begun = await self._begun(host)
        try:
            await self._show(begun)
            chain, key = await self._authority.finish(begun)
        finally:
            self._challenges = {}
        try:
            return checked_certificate(chain, key, host)
        except ValueError as error:
            why = f"what the issuer gave is no certificate for this: {error}"
            raise CertificateRefusedError(why, over=True) from error

    async def _begun(self, host: str) -> Begun:
        """Order a certificate; whoever is told to end meanwhile does so once the order is kept, or a little later."""
        self._count(host)
        ordering = asyncio.ensure_future(self._authority.begin(host))
        try:
            begun = await asyncio.shield(ordering)
        except asyncio.CancelledError:
            done, _ = await asyncio.wait([ordering], timeout=_LAST_WORD)
            # What cannot be kept is ordered once more; nothing may stand in the way of an end.
            with contextlib.suppress(HaneulError):
                for one in done:
                    self._store.ordered(host, one.result().kept)
            raise
        self._store.ordered(host, begun.kept)
        return begun

    def _count(self, host: str) -> None:
        """Count a new order, before it is placed: who is killed meanwhile has it counted. Raises UnavailableError."""
        if host in self._issued:
            return
        now = self._clock.now()
        orders = counted(self._orders, now) | {host: now}
        self._store.count(orders)
        self._orders = orders

    def _forget_order(self, host: str) -> None:
        try:
            self._store.ordered(host, "")
        except HaneulError as error:
            # Whoever goes on with it hears again that nothing comes of it.
            _log.warning("an order cannot be forgotten", host=host, detail=error.detail)

    async def _show(self, begun: Begun) -> None:
        """Wait until the proxy shows what the authority wants to find."""
        if not begun.challenges:
            return
        self._challenges = dict(begun.challenges)
        self._changed()
        deadline = self._clock.monotonic() + _PATIENCE
        while not self._news.shown >= begun.challenges.keys():
            if self._clock.monotonic() >= deadline:
                raise CertificateRefusedError("the proxy did not show in time what the issuer wants to find")
            self._woken.clear()
            await self._woken_within(deadline - self._clock.monotonic())

    async def _woken_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
