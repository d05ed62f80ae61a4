"""Regular expressions that an Ingress may use as paths: a small part of what PCRE knows, parsed whole. Pure.

```
expression  = sequence *("|" sequence)
sequence    = *(atom [quantifier])
atom        = character / "." / "^" / "$" / "\\" escaped / "[" class "]" / "(" ["?:"] expression ")"
quantifier  = ("*" / "+" / "?" / "{" number ["," [number]] "}") ["?"]
```

A group may be optional but not repeated, so that no request makes matching take exponential time; how often something
may be repeated without bound is limited, as each time is one more power of a path's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 400
MOST_UNBOUNDED: Final = 4
_DEEPEST: Final = 8
_MOST_GROUPS: Final = 9
_LARGEST_COUNT: Final = 200
_PLAIN: Final = re.compile(r"[A-Za-z0-9/_~%&=:@,-]")
_ESCAPES: Final = frozenset("dDwWsS./-_+*?()[]{}|^$~&=:@,")
_COUNT: Final = re.compile(r"\{([0-9]{1,3})(,([0-9]{1,3})?)?\}")
_CLASS: Final = re.compile(r"\[\^?((?:[A-Za-z0-9/_.~%&=:@,+*!|()?-]|\\[dwsDWS./-])+)\]")


@dataclass(frozen=True)
class Expression:
    """An expression that was read whole; ``groups`` is how many of its groups are numbered."""

    text: str
    groups: int


def parse_expression(text: str) -> Expression:
    """Return an expression for paths. Raises ValueError with the place of what is not taken."""
    if not text.startswith("/") or len(text) > LONGEST:
        raise ValueError(f"it begins with '/' and has at most {LONGEST} characters")
    reader = _Reader(text)
    reader.alternatives(0)
    if not reader.ended:
        raise reader.refusal("is not taken here")
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from error
    return Expression(text, reader.groups)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.groups = 0
        self._unbounded = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._text)

    def refusal(self, why: str) -> ValueError:
        return ValueError(f"character {self._at + 1}, {self._text[self._at : self._at + 1]!r}, {why}")

    def alternatives(self, depth: int) -> None:
        self._sequence(depth)
        while self._take("|"):
            self._sequence(depth)

    def _sequence(self, depth: int) -> None:
        while not self.ended and self._text[self._at] not in "|)":
            kind = self._atom(depth)
            self._quantifier(kind)

    def _atom(self, depth: int) -> str:
        character = self._text[self._at]
        if character == "(":
            return self._group(depth)
        if character == "[":
            found = _CLASS.match(self._text, self._at)
            if not found:
                raise self.refusal("begins no class of characters that is taken")
            self._at = found.end()
            return "one"
        if character == "\\":
            if self._text[self._at + 1 : self._at + 2] not in _ESCAPES or self._at + 1 >= len(self._text):
                raise self.refusal("begins no escape that is taken")
            self._at += 2
            return "one"
        if character in "^$":
            self._at += 1
            return "anchor"
        if character != "." and not _PLAIN.fullmatch(character):
            raise self.refusal("is not taken here")
        self._at += 1
        return "one"

    def _group(self, depth: int) -> str:
        if depth >= _DEEPEST:
            raise self.refusal(f"is more than {_DEEPEST} groups deep")
        self._at += 1
        if not self._take("?:"):
            self.groups += 1
        if self.groups > _MOST_GROUPS:
            raise self.refusal(f"is after more than {_MOST_GROUPS} groups")
        self.alternatives(depth + 1)
        if not self._take(")"):
            raise ValueError("a group has no end")
        return "group"

    def _quantifier(self, kind: str) -> None:
        if self.ended:
            return
        found = _COUNT.match(self._text, self._at)
        character = self._text[self._at]
        if not found and character not in "*+?":
            return
        if kind == "anchor" or (kind == "group" and character != "?"):
            raise self.refusal("repeats a group or an anchor; only characters may be repeated")
        if found and max(int(found[1]), int(found[3] or 0)) > _LARGEST_COUNT:
            raise self.refusal(f"repeats more than {_LARGEST_COUNT} times")
        if character in "*+" or (found and found[2] and not found[3]):
            self._unbounded += 1
        if self._unbounded > MOST_UNBOUNDED:
            raise self.refusal(f"is one repetition without bound more than {MOST_UNBOUNDED}")
        self._at = found.end() if found else self._at + 1
        self._take("?")

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False
