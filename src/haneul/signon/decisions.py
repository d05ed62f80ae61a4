"""May a request go on? Who sends it, by its cookie or token, and whether the route's rule lets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from haneul.kernel.errors import InvalidInputError, UnauthenticatedError
from haneul.signon.cookies import SESSION, values_of
from haneul.signon.exchange import Request
from haneul.signon.model import RULE, MisconfiguredError, Who
from haneul.signon.programs import Programs
from haneul.signon.rules import Rule, parse_rule
from haneul.signon.sessions import Sessions

_BEARER: Final = "bearer"


class Verdict(StrEnum):
    """What is to be done with a request."""

    PASS = "pass"  # noqa: S105 - a word that counts are told by
    SIGN_ON = "sign-on"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """A verdict with what led to it. ``cookie`` is a session's new one.

    ``authorization`` is what the app may see of the request's own: all but tokens that concern the gate.
    """

    verdict: Verdict
    rule: Rule
    who: Who | None = None
    cookie: str = ""
    authorization: str = ""
    why: str = ""


class Decider:
    """Decides."""

    def __init__(self, sessions: Sessions, programs: Programs) -> None:
        self._sessions = sessions
        self._programs = programs

    async def decide(self, request: Request) -> Decision:
        """Return the decision. Raises MisconfiguredError, and UnavailableError where nothing can be said now."""
        rule = _rule(request.all(RULE))
        given = request.all("authorization")
        if len(given) > 1:
            return Decision(Verdict.SIGN_ON, rule, why="there is more than one Authorization header")
        authorization = given[0] if given else ""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() == _BEARER and self._programs.concerns(token):
            try:
                who = await self._programs.who(token)
            except UnauthenticatedError as error:
                return Decision(Verdict.SIGN_ON, rule, why=error.detail)
            return Decision(_verdict(rule, who), rule, who)
        known = await self._sessions.known(values_of(request.all("cookie"), SESSION))
        if known is None:
            return Decision(Verdict.SIGN_ON, rule)
        who = known.session.who
        return Decision(_verdict(rule, who), rule, who, known.cookie, authorization)


def _verdict(rule: Rule, who: Who) -> Verdict:
    return Verdict.PASS if rule.admits(who) else Verdict.REFUSE


def _rule(values: Sequence[str]) -> Rule:
    """Return the route's rule. Where the web server sends none, or the client could add its own, nobody passes."""
    if len(values) != 1:
        raise MisconfiguredError(
            f"the web server sent {len(values)} rules", hint="'haneul auth nginx' prints what its configuration needs"
        )
    try:
        return parse_rule(values[0])
    except InvalidInputError as error:
        raise MisconfiguredError(error.detail, hint=error.hint) from error
