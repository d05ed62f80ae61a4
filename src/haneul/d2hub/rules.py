"""What a project's owners decided about its images: who may pull, which tags stay, which may go. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from haneul.d2hub.happenings import Happening
from haneul.d2hub.model import TagEntry
from haneul.d2hub.receivers import Receiver


@dataclass(frozen=True)
class Retention:
    """Which tags may go: those that match no ``keep``, are not among the newest ``newest``, and older than ``days``."""

    newest: int = 0
    days: int = 0
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProjectRules:
    """The rules of one project. Patterns are those of file names: ``v*``, ``release-?``."""

    public: bool = False
    immutable_tags: tuple[str, ...] = ()
    retention: Retention | None = None
    #: Days after which a manifest without a tag goes; None keeps it, as somebody may use it by its digest.
    untagged_days: int | None = None
    #: One in so many pulls is written into the audit record: 1 is all of them, 0 none.
    audit_pulls: int = 0
    notify: tuple[Receiver, ...] = ()
    #: Bytes that the project may keep; None is as many as there is room for.
    quota_bytes: int | None = None

    def receivers_of(self, happening: Happening) -> tuple[str, ...]:
        """Return the addresses of those who are told of something."""
        return tuple(receiver.url for receiver in self.notify if happening in receiver.happenings)

    def receiver(self, url: str) -> Receiver | None:
        """Return the receiver at an address, if there still is one."""
        return next((receiver for receiver in self.notify if receiver.url == url), None)

    def keeps_tag(self, tag: str) -> bool:
        """Say whether a tag, once set, stays what it is."""
        return _matches(tag, self.immutable_tags)


class Rules(Protocol):
    """Knows each project's rules; those of a project that nobody made rules for are the defaults."""

    def rules(self, project: str) -> ProjectRules:
        """Return a project's rules."""
        ...


def expired_tags(tags: Sequence[TagEntry], rules: ProjectRules, *, now: datetime) -> list[TagEntry]:
    """Return the tags that retention lets go, the oldest first. Immutable tags never go."""
    policy = rules.retention
    if policy is None:
        return []
    newest_first = sorted(tags, key=lambda tag: (tag.updated, tag.name), reverse=True)
    kept = {tag.name for tag in newest_first[: policy.newest]}
    limit = now - timedelta(days=policy.days)
    gone = [
        tag
        for tag in newest_first
        if tag.name not in kept
        and tag.updated < limit
        and not _matches(tag.name, policy.keep)
        and not rules.keeps_tag(tag.name)
    ]
    return gone[::-1]


def _matches(tag: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(tag, pattern) for pattern in patterns)
