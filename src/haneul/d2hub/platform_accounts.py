"""Accounts that are a platform's people and robots, who sign in with its tokens.

What the platform said of a token holds for some seconds. So whoever leaves, and whose token is revoked, loses the hub
that much later at the latest. The hub's own tokens live longer, but each carries the platform's token, closed, and is
looked at again. While the platform does not answer, what it said before holds as long as it would have otherwise, and
then nobody is let in (503); what everybody may pull needs no account.

```
role in a project     in repositories below PROJECT/
owner                 pull, push, delete
developer             pull, push
viewer                pull
role for the platform in all repositories
administrator         everything
auditor               pull
```
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from haneul.d2hub.caches import Lru
from haneul.d2hub.flights import Flights
from haneul.d2hub.model import ALL_PROJECTS, EVERY_ACTION, Account, Action, ProjectRole, Standing
from haneul.d2hub.ports import Platform
from haneul.d2hub.rules import Rules
from haneul.d2hub.sealing import Seal
from haneul.d2hub.turns import Turns, too_many
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError

_log = structlog.get_logger(__name__)
#: Seconds for which an answer of the platform holds. With what an answer may take it stays below a minute.
REMEMBER_SECONDS: Final = 30.0
#: Seconds for which a token that is nobody's is not asked for again.
_REFUSE_SECONDS: Final = 5.0
_MOST_REMEMBERED: Final = 10_000
_MOST_REFUSED: Final = 1000
#: Questions at once, and those that wait for their turn: a platform that hangs shall not gather them without end.
_MOST_ASKED: Final = 16
_MOST_WAITING: Final = 200
#: Bytes of a token: sessions' are the longest.
_LONGEST_SECRET: Final = 4096
_PULL: Final = frozenset({Action.PULL})
_ALLOWED: Final[Mapping[ProjectRole, frozenset[Action]]] = {
    ProjectRole.VIEWER: _PULL,
    ProjectRole.DEVELOPER: frozenset({Action.PULL, Action.PUSH}),
    ProjectRole.OWNER: EVERY_ACTION,
}
#: Before a robot's name. A client cannot sign in with it: in Basic authentication a colon ends the name (RFC 7617).
_ROBOT: Final = "robot:"


@dataclass(frozen=True)
class _Known:
    standing: Standing
    until: float


@dataclass(frozen=True)
class _Proved:
    """The key of what a proof closes, and the account that was made of an answer to it."""

    key: str
    standing: Standing
    account: Account


class PlatformAccounts:
    """Accounts of one platform. Which projects everybody may pull from, rules say."""

    def __init__(self, platform: Platform, rules: Rules, seal: Seal, *, clock: Clock) -> None:
        self._platform, self._rules, self._seal, self._clock = platform, rules, seal, clock
        self._known: Lru[str, _Known] = Lru(_MOST_REMEMBERED)
        self._refused: Lru[str, float] = Lru(_MOST_REFUSED)
        #: What proofs close: opening one with every request would cost more than the rest of looking it up.
        self._proofs: Lru[str, _Proved] = Lru(_MOST_REMEMBERED)
        self._accounts: Lru[str, Account] = Lru(_MOST_REMEMBERED)
        self._asking: Flights[str, Standing | None] = Flights()
        self._room = asyncio.Semaphore(_MOST_ASKED)
        self._waiting = 0
        self._turns = Turns()

    async def sign_in(self, name: str, secret: str, *, client: str = "") -> Account | None:
        """Ask the platform whose token this is, unless it said so just now."""
        if not 0 < len(secret) <= _LONGEST_SECRET:
            return None
        key = _key(secret)
        standing = self._remembered(key)
        if standing is None:
            async with self._turns.of(client):
                standing = await self._asked(key, secret)
        if standing is None or name not in (standing.name, standing.name.removeprefix(_ROBOT)):
            return None
        return self._account(standing, self._seal.close(secret))

    async def again(self, name: str, proof: str) -> Account | None:
        """Ask the platform about the token that signed somebody in, unless it answered just now."""
        proved = self._proofs.get(proof)
        standing = None if proved is None else self._remembered(proved.key)
        if proved is not None and standing is proved.standing and proved.account.name == name:
            self._accounts.put(name, proved.account)
            return proved.account
        secret = self._seal.open(proof)
        if secret is None:
            return None
        key = _key(secret)
        standing = self._remembered(key) or await self._asked(key, secret)
        if standing is None or standing.name != name:
            return None
        account = self._account(standing, proof)
        self._proofs.put(proof, _Proved(key, standing, account))
        return account

    async def account(self, name: str) -> Account | None:
        """Return who signed in, or was looked at again, last under a name."""
        return self._accounts.get(name)

    async def allowed(self, account: Account | None, project: str) -> frozenset[Action]:
        """Return the actions of somebody's role, and what everybody may."""
        open_to_all = _PULL if self._rules.rules(project).public else frozenset()
        if account is None:
            return open_to_all
        if account.admin:
            return EVERY_ACTION
        found = (account.projects.get(key, frozenset()) for key in (project, ALL_PROJECTS))
        return open_to_all.union(*found)

    async def end(self) -> None:
        """Wait for no answer any more."""
        await self._asking.end()

    def _remembered(self, key: str) -> Standing | None:
        known = self._known.get(key)
        return known.standing if known is not None and self._clock.monotonic() < known.until else None

    async def _asked(self, key: str, secret: str) -> Standing | None:
        if (until := self._refused.get(key)) is not None and self._clock.monotonic() < until:
            return None
        return await self._asking.join(key, lambda: self._ask(key, secret))

    async def _ask(self, key: str, secret: str) -> Standing | None:
        if self._waiting >= _MOST_WAITING:
            raise too_many()
        self._waiting += 1
        try:
            async with self._room:
                # From before the question on: the answer may be as old as that.
                asked = self._clock.monotonic()
                standing = await self._platform.standing(secret)
        except UnavailableError as error:
            _log.warning("the platform does not say who somebody is", why=error.detail)
            raise
        finally:
            self._waiting -= 1
        if standing is None:
            self._known.drop(key)
            self._refused.put(key, asked + _REFUSE_SECONDS)
        else:
            self._known.put(key, _Known(standing, asked + REMEMBER_SECONDS))
        return standing

    def _account(self, standing: Standing, proof: str) -> Account:
        projects = {project: _ALLOWED[role] for project, role in standing.roles.items()}
        if standing.auditor:
            projects[ALL_PROJECTS] = _PULL
        account = Account(standing.name, standing.admin, projects, proof=proof)
        self._accounts.put(account.name, account)
        return account


def _key(secret: str) -> str:
    """Return what a token is remembered by: not itself."""
    return hashlib.sha256(secret.encode()).hexdigest()
