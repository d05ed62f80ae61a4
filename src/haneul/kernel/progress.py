"""Progress, not silence: the port through which long work says what it does and how long that may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Stage(Protocol):
    """One step under way."""

    def note(self, text: str) -> None:
        """Say what the step does or waits on just now."""
        ...


class Progress(Protocol):
    """Receives the steps of long work."""

    @contextmanager
    def stage(self, title: str, *, expected_seconds: float | None = None) -> Iterator[Stage]:
        """Show ``title`` as under way until the block ends; the estimate is a hint for people."""
        ...


class SilentProgress:
    """For callers that show nothing, such as controllers."""

    class _Stage:
        def note(self, text: str) -> None:
            """Drop the note."""

    @contextmanager
    def stage(self, title: str, *, expected_seconds: float | None = None) -> Iterator[Stage]:
        """Show nothing."""
        yield self._Stage()
