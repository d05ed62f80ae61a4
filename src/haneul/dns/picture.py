"""What is known of a zone, found by name, so that a change of one name costs the same however many there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from haneul.dns.model import Change, Key, Present


class Picture:
    """The record sets of a zone, or of a part of it, as somebody last knew them."""

    def __init__(self, sets: Mapping[Key, Present]) -> None:
        self._names: dict[str, dict[Key, Present]] = {}
        for key, there in sets.items():
            self._names.setdefault(key.name, {})[key] = there

    def get(self, key: Key) -> Present | None:
        """Return one set."""
        return self._names.get(key.name, {}).get(key)

    def at(self, names: Iterable[str]) -> dict[Key, Present]:
        """Return all sets at some names."""
        return {key: there for name in names for key, there in self._names.get(name, {}).items()}

    def sets(self) -> dict[Key, Present]:
        """Return everything."""
        return {key: there for at_name in self._names.values() for key, there in at_name.items()}

    def take(self, owner: str, changes: Iterable[Change]) -> None:
        """Take note that an owner's changes were done."""
        for change in changes:
            if change.after is not None:
                self._names.setdefault(change.key.name, {})[change.key] = Present(change.after, owner)
            elif at_name := self._names.get(change.key.name):
                at_name.pop(change.key, None)
                if not at_name:
                    del self._names[change.key.name]
