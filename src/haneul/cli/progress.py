"""Progress on a terminal: the step under way, its note, the time it takes; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from haneul.kernel.progress import Stage


class TerminalProgress:
    """Shows steps on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = sys.stderr.isatty()

    @contextmanager
    def stage(self, title: str, *, expected_seconds: float | None = None) -> Iterator[Stage]:
        """Show a step until the block ends, then how long it took."""
        started = time.monotonic()
        estimate = f" (about {expected_seconds:.0f} s)" if expected_seconds and expected_seconds >= 2 else ""
        if not self._live:
            self._console.print(f"… {title}{estimate}")
            yield _PlainStage()
        else:
            with self._console.status(f"{title}{estimate}") as status:
                yield _LiveStage(status, title, started, expected_seconds)
        self._console.print(f"✓ {title} [dim]{time.monotonic() - started:.1f} s[/dim]")


class _PlainStage:
    def note(self, text: str) -> None:
        """Notes change too often for plain lines."""


class _LiveStage:
    def __init__(self, status: Status, title: str, started: float, expected: float | None) -> None:
        self._status = status
        self._title = title
        self._started = started
        self._expected = expected

    def note(self, text: str) -> None:
        """Show what the step does just now."""
        passed = time.monotonic() - self._started
        of = f" of about {self._expected:.0f} s" if self._expected else ""
        self._status.update(f"{self._title}: {text} [dim]({passed:.0f} s{of})[/dim]")
