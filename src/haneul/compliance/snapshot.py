"""What a check decides on: one immutable look at a cluster, gathered at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from haneul.kernel.kube import Manifest

Kind = Literal["tenant", "management"]
#: A program's flags without their dashes; a flag without a value is ``true``.
Flags = Mapping[str, str]


class NotSeenError(Exception):
    """A check asked for something that was not gathered; the message says what and why."""


@dataclass(frozen=True)
class FileSeen:
    """A file of the host: its permission bits, and who owns it."""

    path: str
    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class Kubelet:
    """A kubelet: the configuration in effect, as it tells it, and the flags that it was started with."""

    node: str
    configuration: Mapping[str, Any]
    flags: Flags = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """One look. What could not be gathered is missing, and ``gaps`` says why."""

    kind: Kind
    #: Flags of each instance of a program, by the program's name.
    programs: Mapping[str, tuple[Flags, ...]] = field(default_factory=dict)
    #: Configuration files that are no secrets, parsed, and other facts, by name.
    documents: Mapping[str, Any] = field(default_factory=dict)
    #: Files of the host, by what they are; an empty entry says that there is none.
    files: Mapping[str, tuple[FileSeen, ...]] = field(default_factory=dict)
    kubelets: tuple[Kubelet, ...] = ()
    #: Objects by plural; ``masters`` are the pods of the masters, ``machines`` those that are nodes.
    objects: Mapping[str, tuple[Manifest, ...]] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)

    def flags_of(self, program: str) -> tuple[Flags, ...]:
        """Return the flags of each instance of a program that runs."""
        found = self.programs.get(program, ())
        return found or self._missing(program, "it does not run")

    def document(self, name: str) -> Any:
        """Return a document."""
        return self.documents[name] if name in self.documents else self._missing(name)

    def files_of(self, what: str) -> tuple[FileSeen, ...]:
        """Return the files of a sort, none if there are none."""
        return self.files[what] if what in self.files else self._missing(what)

    def all_kubelets(self) -> tuple[Kubelet, ...]:
        """Return every kubelet."""
        return self.kubelets or self._missing("kubelets", "there is no node, or none answered")

    def all_of(self, plural: str) -> tuple[Manifest, ...]:
        """Return the objects of a sort, none if there are none."""
        return self.objects[plural] if plural in self.objects else self._missing(plural)

    def _missing(self, what: str, otherwise: str = "it was not looked at") -> Any:
        raise NotSeenError(f"{what} could not be seen: {self.gaps.get(what, otherwise)}")
