"""Who may pass a route: the rule that the web server sends along with each question. Pure.

A rule is a list of words: ``anyone`` (who is signed on), ``project:NAME``, ``group:NAME``, ``person:NAME``,
``email:ADDRESS``. Whoever one of them fits may pass. Names are percent-encoded where they have other characters than
letters, digits and ``._@:/+-``. User names and addresses are kept apart: people may choose a user name that looks like
another's address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from haneul.kernel.errors import InvalidInputError
from haneul.signon.model import Who

_LONGEST: Final = 4096
_PLAIN: Final = "._@:/+-"
_ANYONE: Final = "anyone"


@dataclass(frozen=True)
class Rule:
    """Who may pass."""

    anyone: bool = False
    projects: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    #: In small letters.
    emails: frozenset[str] = frozenset()

    def admits(self, who: Who) -> bool:
        """Say whether somebody may pass."""
        return (
            self.anyone
            or not self.projects.isdisjoint(who.projects)
            or not self.groups.isdisjoint(who.groups)
            or who.user in self.people
            or (who.email != "" and who.email.lower() in self.emails)
        )

    def words(self) -> str:
        """Return the rule as :func:`parse_rule` reads it, always in the same order."""
        named = (("project", self.projects), ("group", self.groups), ("person", self.people), ("email", self.emails))
        words = [f"{kind}:{encoded(name)}" for kind, names in named for name in sorted(names)]
        return " ".join([_ANYONE] if self.anyone else words)

    def told(self) -> list[str]:
        """Return who may pass, in words for people."""
        if self.anyone:
            return ["everybody who is signed on"]
        return [
            *(f"members of the project {name}" for name in sorted(self.projects)),
            *(f"the group {name}" for name in sorted(self.groups)),
            *sorted(self.people | self.emails),
        ]


def rule_of(
    *,
    projects: Iterable[str] = (),
    groups: Iterable[str] = (),
    people: Iterable[str] = (),
    emails: Iterable[str] = (),
    anyone: bool = False,
) -> Rule:
    """Return a rule of names as people write them. Raises InvalidInputError."""
    rule = Rule(anyone, *map(frozenset, (projects, groups, people, map(str.lower, emails))))
    names = rule.projects | rule.groups | rule.people | rule.emails
    if anyone == bool(names):
        raise InvalidInputError(
            "a rule names projects, groups or people, or it is for anyone", hint="choose one of the two"
        )
    if "" in names:
        raise InvalidInputError("a name in a rule is empty", hint="leave it out")
    if len(rule.words()) > _LONGEST:
        raise InvalidInputError(f"a rule has {_LONGEST} characters at most", hint="make a group of the people")
    return rule


@lru_cache(maxsize=1024)
def parse_rule(text: str) -> Rule:
    """Return the rule of a header. Raises InvalidInputError; an empty one lets nobody pass, so it is none."""
    named: dict[str, set[str]] = {"project": set(), "group": set(), "person": set(), "email": set()}
    anyone = False
    for word in text.split(" ") if len(text) <= _LONGEST else [""]:
        kind, _, name = word.partition(":")
        if word == _ANYONE:
            anyone = True
        elif kind in named and name:
            named[kind].add(_decoded(name))
        else:
            raise InvalidInputError(
                f"{text[:80]!r} is no rule", hint="words are anyone, project:, group:, person: and email: with a name"
            )
    projects, groups, people, emails = named.values()
    return Rule(anyone, frozenset(projects), frozenset(groups), frozenset(people), frozenset(map(str.lower, emails)))


def _decoded(name: str) -> str:
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name[:80]!r} is no name", hint="encode its UTF-8 by percent signs") from error


def encoded(name: str) -> str:
    """Return a name so that it fits into a header and into a list with commas and spaces (RFC 3986, section 2.1)."""
    return quote(name, safe=_PLAIN)
