"""Keys and ended sessions in this process alone."""

from __future__ import annotations

from collections.abc import Sequence

from haneul.signon.keyring import Key, Keyring


class MemoryKeys:
    """Keys that change when somebody sets them."""

    def __init__(self, domain: str, keys: Sequence[Key]) -> None:
        self._domain = domain
        self.keys = list(keys)

    def current(self) -> Keyring:
        """Return the keys."""
        return Keyring(self._domain, self.keys)

    def seen_anew(self) -> Keyring:
        """Return the keys."""
        return self.current()


class MemoryEnded:
    """Ended sessions."""

    def __init__(self) -> None:
        self._until: dict[str, int] = {}

    def end(self, session: str, until: int) -> None:
        """Remember that a session is over."""
        self._until[session] = until

    def ended(self, session: str) -> bool:
        """Say whether a session is over."""
        return session in self._until
