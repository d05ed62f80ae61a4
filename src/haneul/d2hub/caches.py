"""What a registry process remembers of repositories, exactly as long as it is true.

Content never changes, but which repository has it does. Each repository has a number that grows with every change made
by this process; what was read before a change is not remembered after it. So a deletion takes effect with its answer.
It holds where one process serves a database, which is what the embedded hub makes sure of. Where several do, caches of
size 0 remember nothing, and each request asks the database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
#: How often everything, and one repository, changed.
State = tuple[int, int]


class Lru(Generic[K, V]):
    """Keeps what was used last, up to a total weight."""

    def __init__(self, most: int, weight: Callable[[V], int] = lambda _: 1) -> None:
        self._most, self._weight = most, weight
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._total = 0

    def get(self, key: K) -> V | None:
        """Return an entry, which is the newest from now on."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Keep an entry; the oldest make room. What is larger than a quarter of everything is not kept."""
        weight = self._weight(value)
        if weight * 4 > self._most:
            return
        self.drop(key)
        self._entries[key] = value
        self._total += weight
        while self._total > self._most:
            _, gone = self._entries.popitem(last=False)
            self._total -= self._weight(gone)

    def drop(self, key: K) -> None:
        """Forget an entry."""
        gone = self._entries.pop(key, None)
        if gone is not None:
            self._total -= self._weight(gone)

    def __len__(self) -> int:
        return len(self._entries)


class RepositoryCache(Generic[V]):
    """Entries of repositories; those of one repository, or all, are forgotten at once."""

    def __init__(self, most: int, weight: Callable[[V], int] = lambda _: 1) -> None:
        self._entries: Lru[tuple[str, State, str], V] = Lru(most, weight)
        self._changes: dict[str, int] = {}
        self._cleared = 0

    def get(self, repository: str, name: str) -> V | None:
        """Return an entry that is still true."""
        return self._entries.get((repository, self.state(repository), name))

    def state(self, repository: str) -> State:
        """Return the repository's number, to be taken before reading what shall be remembered."""
        return self._cleared, self._changes.get(repository, 0)

    def put(self, repository: str, name: str, value: V, *, state: State) -> None:
        """Remember what was read when the repository had that number."""
        if state == self.state(repository):
            self._entries.put((repository, state, name), value)

    def changed(self, repository: str) -> None:
        """Forget everything of a repository."""
        self._changes[repository] = self._changes.get(repository, 0) + 1

    def clear(self) -> None:
        """Forget everything."""
        self._cleared += 1
