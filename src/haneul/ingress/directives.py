"""nginx's configuration as a tree of directives, written so that a word stays one word. Pure.

Every word of a directive is of one of three kinds, and only what this code wrote itself may name variables. Words are
put in quotes as nginx's parser reads them: inside double quotes a backslash before a quote or a backslash is taken off,
and nothing else ends the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_BARE: Final = re.compile(r"[A-Za-z0-9_./:=@$~*^()-]+")
#: nginx reads a configuration in pieces of this many bytes, and no word may be longer.
LONGEST_WORD: Final = 4000


class Word(str):
    """What this code wrote; it may name variables."""

    __slots__ = ()


class Text(str):
    """What came from an object, for where nginx reads variables: it may have no dollar sign."""

    __slots__ = ()

    def __new__(cls, text: str) -> Text:
        """Take a text. Raises ValueError if nginx would read a variable in it."""
        if "$" in text:
            raise ValueError("a dollar sign would name a variable")
        return super().__new__(cls, text)


class Pattern(str):
    """What came from an object, for where nginx reads none: expressions, paths of locations."""

    __slots__ = ()


@dataclass(frozen=True)
class Joined:
    """One word of several parts."""

    parts: tuple[Word | Text, ...]


Argument = Word | Text | Pattern | Joined


@dataclass(frozen=True)
class Line:
    """A directive that ends with a semicolon, or an entry of a map: its key and what it becomes."""

    name: Argument
    words: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class Lua:
    """A block of Lua: one call that this code wrote."""

    name: str
    call: str


@dataclass(frozen=True)
class Block:
    """A directive with others inside."""

    name: str
    words: tuple[Argument, ...]
    inside: tuple[Line | Block | Lua, ...]


Node = Line | Block | Lua


def line(name: Argument | str, *words: Argument | str | int) -> Line:
    """Return a directive; plain strings and numbers are words that this code wrote."""
    return Line(_argument(name), tuple(_argument(word) for word in words))


def block(name: str, *words: Argument | str, inside: Iterable[Node]) -> Block:
    """Return a directive with others inside."""
    return Block(name, tuple(_argument(word) for word in words), tuple(inside))


def joined(*parts: Word | Text) -> Joined:
    """Return one word of several parts."""
    return Joined(parts)


def render(nodes: Iterable[Node]) -> str:
    """Return the configuration. Raises ValueError if a word cannot be one."""
    return "".join(f"{text}\n" for text in _lines(nodes, ""))


def _argument(word: Argument | str | int) -> Argument:
    if isinstance(word, Word | Text | Pattern | Joined):
        return word
    return Word(word)


def _lines(nodes: Iterable[Node], indent: str) -> Iterator[str]:
    for node in nodes:
        match node:
            case Line(name, words):
                yield f"{indent}{' '.join(map(_written, (name, *words)))};"
            case Lua(name, call):
                yield f"{indent}{name} {{ {call} }}"
            case Block(name, words, inside):
                yield f"{indent}{' '.join([name, *map(_written, words)])} {{"
                yield from _lines(inside, f"{indent}    ")
                yield f"{indent}}}"


def _written(word: Argument) -> str:
    text = "".join(word.parts) if isinstance(word, Joined) else str(word)
    if isinstance(word, Word) and _BARE.fullmatch(text):
        return text
    if any(not character.isprintable() for character in text):
        raise ValueError("a word has a control character")
    if len(text.encode()) > LONGEST_WORD // 2:
        raise ValueError(f"a word has more than {LONGEST_WORD // 2} bytes")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
