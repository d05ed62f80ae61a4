"""The documentation holds together: links resolve, generated pages are up to date, commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer

from haneul.app.main import command_tree
from haneul.app.reference import pages

PROJECT = Path(__file__).parents[3]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```(\w*)$")
_COMMAND = re.compile(r"'(haneul [^']*)'|`(haneul [^`]*)`")
#: What stands for a name in prose, and for a list that goes on.
_NOT_COMMANDS = ("…", "|", "<", "/", "PRODUCT")


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each fenced block's language and text."""
    language, lines = "", list[str]()
    inside = False
    for line in path.read_text().splitlines():
        fence = _FENCE.match(line)
        if fence and not inside:
            inside, language, lines = True, fence[1], []
        elif fence:
            inside = False
            yield language, "\n".join(lines)
        elif inside:
            lines.append(line.strip())


def prose(path: Path) -> str:
    kept, inside = [], False
    for line in path.read_text().splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def anchors(path: Path) -> set[str]:
    """Return the names under which a page's headings are reached."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_resolves(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = (page.parent / target) if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("file", sorted(pages()))
def test_generated_pages_are_what_the_code_says(file: str) -> None:
    written = (PROJECT / "docs" / "reference" / file).read_text()
    assert written == pages()[file](), "run 'python -m haneul.app.reference'"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((PROJECT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", sorted((PROJECT / "docs" / "decisions").glob("*.md")), ids=name)
def test_a_decision_has_its_four_parts(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", prose(page), re.MULTILINE)
    assert headings == ["Situation", "Decision", "Other ways", "What follows"]
    assert re.search(r"^Status: (accepted · \d{4}-\d\d-\d\d|replaced by \d+)", page.read_text(), re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """Yield every command line of ours that a page shows, in blocks and in prose."""
    for language, text in blocks(page):
        if language in ("", "sh"):
            yield from (line for line in text.splitlines() if line.startswith("haneul "))
    for quoted, marked in _COMMAND.findall(prose(page)):
        shown = quoted or marked
        if not any(sign in shown for sign in _NOT_COMMANDS):
            yield shown


def hinted(source: Path) -> Iterator[str]:
    """Yield every command that a message of the program tells people to run, with a word for what is filled in."""
    for quoted in re.findall(r"'(haneul [a-z][^'\n]*)'", source.read_text()):
        shown = re.sub(r"\{[^}]*\}", "word", quoted)
        if not any(sign in shown for sign in _NOT_COMMANDS):
            yield shown


SHOWN = sorted({(name(page), command) for page in PAGES for command in commands(page)})
HINTED = sorted({(name(source), command) for source in (PROJECT / "src").rglob("*.py") for command in hinted(source)})


@pytest.fixture(scope="module")
def tree() -> Any:
    return typer.main.get_command(command_tree())


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_every_command_exists(page: str, command: str, tree: Any) -> None:
    check(tree, command, whole=command not in prose(PROJECT / page))


@pytest.mark.parametrize(("source", "command"), HINTED)
def test_every_hint_names_a_command_that_exists(source: str, command: str, tree: Any) -> None:
    check(tree, command, whole=False)


def check(tree: Any, command: str, *, whole: bool) -> None:
    """Parse a command line against the tree; if it is not ``whole``, its arguments may be missing."""
    words = shlex.split(command, comments=True)[1:]
    found = tree
    context = found.context_class(found, info_name="haneul")
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words[0]]
        context = found.context_class(found, info_name=words[0], parent=context)
        words = words[1:]
    if hasattr(found, "commands"):
        # Prose may name a group alone; the name of a command that is not there would be left over.
        assert [word for word in words if not word.startswith("-")] == []
    options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in options]
    assert unknown == []
    if whole and not hasattr(found, "commands"):
        found.make_context(found.name, words, parent=context.parent)
