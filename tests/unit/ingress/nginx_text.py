"""Reads nginx's configuration as nginx's own parser does, independently of what writes it.

Rules: nginx 1.22, src/core/ngx_conf_file.c, ``ngx_conf_read_token``: outside quotes a word ends at white space, ``;``
or ``{``; in quotes only at the same quote; a backslash takes the next character along, and is taken off before quotes,
backslashes, ``t``, ``r`` and ``n``. Blocks of Lua end at the brace that closes them.
"""

from __future__ import annotations

from typing import Any

_TAKEN_OFF = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}


def parse(text: str) -> list[Any]:
    """Return directives: lists of words, the last one a list of directives if it is a block."""
    nodes, at = _block(text, 0)
    assert at == len(text), f"a brace too many before {text[at:][:80]!r}"
    return nodes


def _block(text: str, at: int) -> tuple[list[Any], int]:
    nodes: list[Any] = []
    words: list[Any] = []
    while at < len(text):
        character = text[at]
        if character in " \t\r\n":
            at += 1
        elif character == "#":
            at = text.index("\n", at)
        elif character == ";":
            assert words, "a directive has no name"
            nodes.append(words)
            words, at = [], at + 1
        elif character == "{" and words[0].endswith("_by_lua_block"):
            end = text.index("}", at)
            nodes.append([*words, text[at + 1 : end].strip()])
            words, at = [], end + 1
        elif character == "{":
            inside, at = _block(text, at + 1)
            nodes.append([*words, inside])
            words, at = [], at + 1
        elif character == "}":
            assert not words, f"{words} has no end"
            return nodes, at
        else:
            word, at = _word(text, at)
            words.append(word)
    assert not words, f"{words} has no end"
    return nodes, at


def _word(text: str, at: int) -> tuple[str, int]:
    quote = text[at] if text[at] in "\"'" else ""
    at += len(quote)
    found = ""
    while True:
        character = text[at]
        if character == "\\":
            following = text[at + 1]
            found += _TAKEN_OFF.get(following, f"\\{following}")
            at += 2
        elif quote and character == quote:
            assert text[at + 1] in " \t\r\n;{", f"something follows a quoted word: {text[at:][:40]!r}"
            return found, at + 1
        elif not quote and character in " \t\r\n;{":
            return found, at
        else:
            found += character
            at += 1


def names(nodes: list[Any]) -> list[str]:
    """Return the names of all directives, inner ones too."""
    found = []
    for node in nodes:
        found.append(node[0])
        if isinstance(node[-1], list):
            found += names(node[-1])
    return found
