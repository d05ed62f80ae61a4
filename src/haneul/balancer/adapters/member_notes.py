"""What is known of members beside what they are: which do not answer, and which leave since when.

It is kept in a file beside the truth, as whoever checks members, whoever takes one away and whoever looks at them are
different processes, and as a process that begins anew goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from haneul.balancer.model import Frontend, Frontends, HealthCheck, Listener, Member, Present, Protocol
from haneul.kernel.files import write_atomically


@dataclass(frozen=True, order=True)
class Leaving:
    """A member that gets nothing new of a listener; ``since`` in seconds of the epoch."""

    listener: Listener
    member: Member
    since: float


@dataclass(frozen=True)
class Target:
    """A member as it is asked whether it is well."""

    member: Member
    protocol: Protocol
    check: HealthCheck


@dataclass(frozen=True)
class Notes:
    """``down`` are members that do not answer."""

    down: frozenset[Target] = frozenset()
    leaving: tuple[Leaving, ...] = ()

    def after(self, before: Frontends, present: Frontends, now: float) -> Notes:
        """Return the notes when ``before`` has become ``present``: who came back stays, who went is leaving."""
        noted = {(one.listener, one.member): one for one in self.leaving if one.listener in present}
        for listener, there in present.items():
            gone: set[Member] = set()
            if listener in before:
                gone = set(before[listener].frontend.members) - set(there.frontend.members)
            for member in gone:
                noted.setdefault((listener, member), Leaving(listener, member, now))
            for member in there.frontend.members:
                noted.pop((listener, member), None)
        return replace(self.among(targets(present)), leaving=tuple(sorted(noted.values())))

    def among(self, known: Iterable[Target]) -> Notes:
        """Forget what does not answer and is nobody's any more."""
        return replace(self, down=self.down & frozenset(known))

    def turned(self, flips: Mapping[Target, bool]) -> Notes:
        """Return the notes when some members answer again (True) or do so no more."""
        ups = {target for target, up in flips.items() if up}
        return replace(self, down=(self.down | frozenset(flips)) - ups)

    def without(self, ended: Iterable[Leaving]) -> Notes:
        """Return the notes when some have left for good."""
        over = set(ended)
        return replace(self, leaving=tuple(one for one in self.leaving if one not in over))

    def usable(self, frontend: Frontend) -> tuple[Member, ...]:
        """Return the members that answer, as far as is known."""
        return tuple(member for member in frontend.members if target_of(frontend, member) not in self.down)


def target_of(frontend: Frontend, member: Member) -> Target:
    """Return how a frontend's member is asked."""
    return Target(member, frontend.listener.protocol, frontend.options.check)


def targets(present: Mapping[Listener, Present]) -> set[Target]:
    """Return all that are to be asked; of listeners with the same members and check, once."""
    return {target_of(there.frontend, member) for there in present.values() for member in there.frontend.members}


class Notebook:
    """The file ``members.json`` in a balancer's folder; who writes holds the folder's lock."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "members.json"
        self._read: tuple[bytes, Notes] | None = None

    def load(self) -> Notes:
        """Return what is noted. What cannot be read is nothing: it is found out again."""
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return Notes()
        if self._read is None or self._read[0] != text:
            try:
                self._read = (text, _NOTES.validate_json(text))
            except ValidationError:
                self._read = (text, Notes())
        return self._read[1]

    def store(self, notes: Notes) -> None:
        """Note something, if it is news."""
        if notes != self.load():
            write_atomically(self._file, _NOTES.dump_json(notes, indent=1), mode=0o600)


_NOTES: Final = TypeAdapter(Notes)
