"""The reference of the command line, written from the command tree itself, as Markdown.

Neighbours: :mod:`haneul.app.reference` writes it to ``docs/reference/cli.md``. Help texts hold their own examples,
behind a line ``Examples:``; the tests of the documentation parse every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import typer

from haneul.app.main import command_tree

_HEAD: Final = """# Commands

`haneul` talks to the platform's API; only `up`, `down`, `status`, `doctor`, `demo` and `components` work on the host
itself. Every command has `--help`. Data goes to standard output, everything else to standard error. `-o` takes `table`,
`wide`, `json`, `yaml`, `name` and `csv` where the table below says so. Commands that take long wait, show what for, and
go on being carried out when you interrupt the wait; `--no-wait` does not wait. Nothing asks when there is no terminal.
Exit codes are those of the [errors](errors.md), 0 for success, 2 for a wrong command line, 130 after Ctrl-C.
`haneul --install-completion` sets up completion in your shell, `haneul --version` shows the version.

This page is generated from the commands.
"""


def cli_page() -> str:
    """Return the page."""
    tree: Any = typer.main.get_command(command_tree())
    return _HEAD + "".join(_section(path, command) for path, command in _leaves("haneul", tree))


def _leaves(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command that is not hidden, with the words that call it."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _leaves(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def _section(path: str, command: Any) -> str:
    description, _, examples = (command.help or "").partition("Example")
    arguments = [entry for entry in command.params if entry.param_type_name == "argument"]
    options = [entry for entry in command.params if entry.param_type_name == "option" and not entry.hidden]
    usage = " ".join([path, *(_argument(entry) for entry in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"\n## {path}\n\n{description.strip()}\n\n```text\n{usage}\n```\n"]
    rows = [*(_argument_row(entry) for entry in arguments), *(_option_row(entry) for entry in options)]
    if rows:
        parts.append("\n| argument, option | default | meaning |\n| --- | --- | --- |\n" + "".join(rows))
    if lines := [line.strip() for line in examples.partition(":")[2].splitlines() if line.strip()]:
        parts.append("\n```sh\n" + "\n".join(lines) + "\n```\n")
    return "".join(parts)


def _argument(entry: Any) -> str:
    name = entry.metavar or entry.name.upper()
    name = f"{name}..." if entry.nargs == -1 else name
    return name if entry.required else f"[{name}]"


def _argument_row(entry: Any) -> str:
    return f"| `{_argument(entry)}` | {_default(entry)} | {entry.help or ''} |\n".replace("|  |", "| |")


def _option_row(entry: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*entry.opts, *entry.secondary_opts))
    return f"| {names} | {_default(entry)} | {entry.help or ''} |\n".replace("|  |", "| |")


def _default(entry: Any) -> str:
    default = entry.default
    if entry.required:
        return "must be given"
    if default is None or default is False or callable(default) or default == "":
        return ""
    if default is True:
        return f"`{entry.opts[0]}`"
    return f"`{getattr(default, 'value', default)}`"
