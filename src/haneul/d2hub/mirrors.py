"""The mirrors that a registry has, and what is remembered of their upstreams: who is left alone, what was not there.

A project is a mirror by its rules; changed rules make another mirror of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from haneul.d2hub.caches import Lru
from haneul.d2hub.errors import (
    MirrorReadOnlyError,
    NameUnknownError,
    UpstreamError,
    UpstreamLimitedError,
    UpstreamRefusedError,
    UpstreamWrongError,
)
from haneul.d2hub.names import project_of
from haneul.d2hub.ports import Upstream
from haneul.d2hub.rules import MirrorRules, Rules
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

#: An upstream that says to come back in a year is asked again after an hour.
LONGEST_REST: Final = 3600.0
_REMEMBERED: Final = 10_000


@dataclass(frozen=True)
class _Failure:
    until: float
    error: HaneulError


class UpstreamMemory:
    """What an upstream said that holds for a while. Times are a clock's monotonic seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rest: _Failure | None = None
        self._failures: Lru[str, _Failure] = Lru(_REMEMBERED)

    def check(self, what: str) -> None:
        """Raise what went wrong a short while ago, with everything or with this."""
        now = self._clock.monotonic()
        for failure in (self._rest, self._failures.get(what)):
            if failure is not None and now < failure.until:
                error = copy.copy(failure.error)
                if isinstance(error, UpstreamError) and error.rest is not None:
                    error.rest = failure.until - now
                raise error

    def failed(self, what: str, error: HaneulError, seconds: float) -> None:
        """Remember that something cannot be had; everything, if the upstream is to be left alone."""
        now = self._clock.monotonic()
        # A copy: what an error remembers of its way holds on to the request.
        kept = copy.copy(error)
        if isinstance(error, UpstreamError) and error.rest is not None:
            self._rest = _Failure(now + min(error.rest, LONGEST_REST), kept)
        else:
            self._failures.put(what, _Failure(now + seconds, kept))


@dataclass(frozen=True)
class Mirror:
    """One project that mirrors a registry."""

    project: str
    rules: MirrorRules
    upstream: Upstream
    memory: UpstreamMemory

    def upstream_name(self, repository: str) -> str:
        """Return what a repository is called there. Raises NameUnknownError if that is nothing."""
        name = self.rules.upstream_name(repository)
        if not name:
            raise NameUnknownError(
                f"{self.project} mirrors {self.rules.url} and is no repository itself",
                hint=f"put the name that it has there behind {self.project}/",
            )
        return name


def may_pass(error: HaneulError, *, begun: bool = False) -> bool:
    """Say whether the same request may go well a moment later; ``begun`` says that much of the answer is here."""
    final = (UpstreamLimitedError, UpstreamRefusedError, UpstreamWrongError)
    return isinstance(error, UpstreamError) and not isinstance(error, final) and (begun or error.rest is None)


class Mirrors:
    """The mirrors of a registry, each with one upstream, connected to when it is first asked."""

    def __init__(self, rules: Rules, connect: Callable[[MirrorRules], Upstream], *, clock: Clock) -> None:
        self._rules, self._connect, self._clock = rules, connect, clock
        self._mirrors: dict[str, Mirror] = {}
        #: Of rules that were changed; somebody may still be pulling through them.
        self._former: list[Upstream] = []

    def of(self, repository: str) -> Mirror | None:
        """Return the mirror that a repository belongs to."""
        project = project_of(repository)
        rules = self._rules.rules(project).mirror
        mirror = self._mirrors.get(project)
        if mirror is not None and mirror.rules == rules:
            return mirror
        if mirror is not None:
            self._former.append(self._mirrors.pop(project).upstream)
        if rules is None:
            return None
        made = Mirror(project, rules, self._connect(rules), UpstreamMemory(self._clock))
        self._mirrors[project] = made
        return made

    def refuse_push(self, repository: str) -> None:
        """Raise MirrorReadOnlyError for a repository of a mirror."""
        project = project_of(repository)
        if (rules := self._rules.rules(project).mirror) is not None:
            raise MirrorReadOnlyError(
                f"{project} is a mirror of {rules.url}", hint="push there, or into another project of this registry"
            )

    async def close(self) -> None:
        """Let all connections end."""
        for upstream in (*self._former, *(mirror.upstream for mirror in self._mirrors.values())):
            await upstream.close()
        self._mirrors.clear()
        self._former.clear()
