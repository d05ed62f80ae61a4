"""Browsers that are signed on: their cookies, and asking the provider again whether people are still there.

A session lies in its cookie, sealed; the gate keeps nothing that it needs for serving. It remembers the newest form of
each session, because of many requests that a browser sends at once only one may use the provider's refresh token, which
is good once: the others, and those that come later with the older cookie, get what that one got.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import structlog

from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, UnauthenticatedError, UnavailableError
from haneul.kernel.openid import GrantRefusedError
from haneul.signon.claims import who_of
from haneul.signon.cookies import LONGEST
from haneul.signon.model import Session, Who
from haneul.signon.ports import EndedSessions, Keys, Provider
from haneul.signon.settings import ProviderSettings

_log = structlog.get_logger(__name__)
_PURPOSE: Final = "session"
_MOST: Final = 10_000
#: Cookies that are remembered as they were opened: to open one takes longer than all else that a question needs.
_MOST_OPENED: Final = 2_000
#: Cookies of our name that one request may have, of which browsers send those of all paths and domains.
_MOST_COOKIES: Final = 4
#: Between two questions to a provider that did not answer.
_APART: Final = 20
#: How long somebody stays signed on whom the provider cannot be asked about again, for want of a refresh token.
_UNCONFIRMED: Final = 3600
_LARGEST: Final = 64 << 10


@dataclass(frozen=True)
class Lives:
    """How long sessions last, how often the provider is asked, and for how long it may be silent; in seconds."""

    session: int
    confirm: int
    outage: int


@dataclass(frozen=True)
class Known:
    """A session that is good, and its new cookie if the browser shall have one."""

    session: Session
    cookie: str = ""


class Sessions:
    """All sessions of one domain."""

    def __init__(
        self,
        providers: Mapping[str, tuple[ProviderSettings, Provider]],
        keys: Keys,
        ended: EndedSessions,
        lives: Lives,
        *,
        clock: Clock,
    ) -> None:
        self._providers = providers
        self._keys = keys
        self._ended = ended
        self._lives = lives
        self._clock = clock
        self._ring = keys.current()
        self._opened_before: OrderedDict[str, Session] = OrderedDict()
        self._newest: OrderedDict[str, Session] = OrderedDict()
        self._asked: dict[str, int] = {}
        self._asking: dict[str, asyncio.Task[Session | None]] = {}

    def begin(self, who: Who, refresh: str) -> tuple[Session, str]:
        """Return a session and its cookie. Raises UnauthenticatedError for somebody of whom too much is said."""
        now = self._now()
        session = Session(secrets.token_hex(12), who, now, now + self._lives.session, now, refresh)
        cookie = self._sealed(session)
        self._remember(session)
        return session, cookie

    async def known(self, cookies: Sequence[str]) -> Known | None:
        """Return the session of a request's cookies. Raises UnavailableError if the provider was silent for too long.

        Of several good ones none counts: another host of the domain may have added its own, so that somebody works in
        the name of another without noticing.
        """
        found = {
            session.id: session
            for cookie in cookies[:_MOST_COOKIES]
            if (session := self._opened(cookie)) is not None and self._lives_on(session)
        }
        if len(found) != 1 or len(cookies) > _MOST_COOKIES:
            return None
        (session,) = found.values()
        newest = self._newest.get(session.id, session)
        if newest.confirmed < session.confirmed:
            newest = session
        age = self._now() - newest.confirmed
        if not newest.refresh and age >= _UNCONFIRMED:
            return None
        if newest.refresh and age >= self._lives.confirm:
            again = await self._confirmed(newest)
            if again is None or not self._lives_on(again):
                return None
            newest = again
        return Known(newest, self._sealed(newest) if newest.confirmed > session.confirmed else "")

    async def end(self, cookies: Sequence[str]) -> list[Session]:
        """End every session of a request's cookies, here and at the provider; return them."""
        found = [session for cookie in cookies[:_MOST_COOKIES] if (session := self._opened(cookie)) is not None]
        for session in found:
            newest = self._newest.pop(session.id, session)
            self._ended.end(session.id, session.ends)
            _, provider = self._providers.get(session.who.provider, (None, None))
            if newest.refresh and provider is not None:
                try:
                    await provider.revoke(newest.refresh)
                except HaneulError as error:
                    _log.warning("the provider was not told of a sign-out", detail=error.detail)
        return found

    def _opened(self, cookie: str) -> Session | None:
        if len(cookie) > LONGEST:
            return None
        ring = self._keys.current()
        if ring is not self._ring:
            # What other keys had sealed may be void.
            self._ring, self._opened_before = ring, OrderedDict()
        if (before := self._opened_before.get(cookie)) is not None:
            return before
        if not ring.knows(cookie):
            ring = self._keys.seen_anew()
        content = ring.open(_PURPOSE, cookie)
        session = None if content is None else _session(content)
        if session is not None and ring is self._ring:
            self._opened_before[cookie] = session
            if len(self._opened_before) > _MOST_OPENED:
                self._opened_before.popitem(last=False)
        return session

    def _lives_on(self, session: Session) -> bool:
        known = session.who.provider in self._providers
        return known and self._now() < session.ends and not self._ended.ended(session.id)

    def _sealed(self, session: Session) -> str:
        """Return a session's cookie. A refresh token that would make it too long stays in this process alone."""
        for kept in (session, replace(session, refresh="")):
            cookie = self._keys.current().seal(_PURPOSE, _content(kept), now=self._clock.now())
            if len(cookie) <= LONGEST:
                return cookie
        raise UnauthenticatedError(
            f"so many groups and projects are said of you ({len(session.who.groups)} and {len(session.who.projects)}) "
            "that no cookie holds them",
            hint="whoever runs this gate asks the provider for fewer: its scopes, or a filter there",
        )

    async def _confirmed(self, session: Session) -> Session | None:
        """Ask about a session's person, once for all requests that want to know; None if they are out."""
        asking = self._asking.get(session.id)
        if asking is None:
            asking = asyncio.create_task(self._ask(session))
            self._asking[session.id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(session.id, None))
        # Who asked first may go away; the others still want to know.
        return await asyncio.shield(asking)

    async def _ask(self, session: Session) -> Session | None:
        now = self._now()
        settings, provider = self._providers.get(session.who.provider, (None, None))
        if settings is None or provider is None:
            return None
        if now - self._asked.get(session.id, 0) < _APART:
            return self._unconfirmed(session, now)
        try:
            said = await provider.refresh(session.refresh)
            who = session.who if said.claims is None else who_of(settings, said.claims)
        except (GrantRefusedError, UnauthenticatedError):
            self._over(session, "the provider said no")
            return None
        except UnavailableError as error:
            _log.warning("the provider cannot be asked", provider=settings.name, detail=error.detail)
            self._asked[session.id] = now
            return self._unconfirmed(session, now)
        if who.subject != session.who.subject:
            self._over(session, "the provider spoke of somebody else")
            return None
        again = replace(session, who=who, confirmed=now, refresh=said.refresh_token or session.refresh)
        self._remember(again)
        return again

    def _unconfirmed(self, session: Session, now: int) -> Session:
        if now - session.confirmed > self._lives.confirm + self._lives.outage:
            raise UnavailableError("the sign-on provider has not answered for too long", hint="try again in a while")
        return session

    def _over(self, session: Session, why: str) -> None:
        _log.info("a session ends", user=session.who.user, why=why)
        self._newest.pop(session.id, None)
        self._ended.end(session.id, session.ends)

    def _remember(self, session: Session) -> None:
        self._asked.pop(session.id, None)
        self._newest[session.id] = session
        self._newest.move_to_end(session.id)
        while len(self._newest) > _MOST:
            gone, _ = self._newest.popitem(last=False)
            self._asked.pop(gone, None)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _content(session: Session) -> bytes:
    document = asdict(session)
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)


def _session(content: bytes) -> Session | None:
    """Return the session of what a key of ours had sealed; an older form of it is none."""
    try:
        opened = zlib.decompressobj()
        document: dict[str, Any] = json.loads(opened.decompress(content, _LARGEST))
        who = document.pop("who")
        who |= {name: tuple(who[name]) for name in ("groups", "projects")}
        return Session(who=Who(**who), **document)
    except (ValueError, TypeError, KeyError, zlib.error):
        return None
