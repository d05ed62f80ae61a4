"""Values of D2Hub: who calls, what is kept, what is served. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from haneul.d2hub.happenings import UNKNOWN, Origin
from haneul.d2hub.manifests import Manifest


class Action(StrEnum):
    """What may be done with a repository, in the words of token scopes."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


EVERY_ACTION = frozenset(Action)
#: Stands for every project.
ALL_PROJECTS: Final = "*"


@dataclass(frozen=True)
class Allowance:
    """Actions in repositories whose names match one of the patterns, which are those of file names."""

    repositories: tuple[str, ...]
    actions: frozenset[Action]


@dataclass(frozen=True)
class Account:
    """Somebody who proved who they are.

    ``projects`` is what they may in which projects, if whoever signed them in said so at once; ``allowances``, what a
    workload may besides everybody. ``proof`` is what their tokens carry for
    :meth:`~haneul.d2hub.ports.Accounts.again`; without one the tokens hold until they end.
    """

    name: str
    admin: bool = False
    projects: Mapping[str, frozenset[Action]] = field(default_factory=dict, compare=False)
    allowances: tuple[Allowance, ...] = field(default=(), compare=False)
    proof: str = field(default="", repr=False, compare=False)

    def permitted(self, repository: str) -> frozenset[Action]:
        """Return what allowances say of a repository."""
        found = (
            allowance.actions
            for allowance in self.allowances
            if any(fnmatch.fnmatchcase(repository, pattern) for pattern in allowance.repositories)
        )
        return frozenset().union(*found)


class ProjectRole(StrEnum):
    """What somebody is in a project of the platform."""

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"


@dataclass(frozen=True)
class Standing:
    """Who somebody is to the platform. ``name`` is what it calls them: people by their names, robots otherwise.

    ``auditor`` says that they may read everything; ``admin``, that they may do everything.
    """

    name: str
    admin: bool = False
    auditor: bool = False
    roles: Mapping[str, ProjectRole] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """What a token says: whose it is and what it allows until it ends (seconds since the epoch)."""

    account: str
    ends: float
    repositories: Mapping[str, frozenset[Action]] = field(default_factory=dict)
    #: What was asked for when the token was given out, granted or not.
    asked: Mapping[str, frozenset[Action]] = field(default_factory=dict)
    catalog: bool = False
    maintenance: bool = False
    #: Lets the account be looked at again (:class:`Account`).
    proof: str = field(default="", repr=False)

    def allows(self, repository: str, action: Action) -> bool:
        """Say whether the token allows an action."""
        return action in self.repositories.get(repository, ())


@dataclass(frozen=True)
class FileContent:
    """Bytes in a file of this machine."""

    path: Path
    size: int


@dataclass(frozen=True)
class BytesContent:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Return how many there are."""
        return len(self.data)


@dataclass(frozen=True)
class RemoteContent:
    """Bytes on other machines.

    ``read`` returns the bytes from the first to the last that it is given, once the first of them have arrived.
    ``link`` returns a URL by which clients fetch the content themselves, for a short time; it is None where they
    cannot reach those machines.
    """

    size: int
    read: Callable[[int, int], Awaitable[AsyncGenerator[bytes, None]]]
    link: Callable[[], Awaitable[str]] | None = None

    async def whole(self) -> bytes:
        """Return all bytes; for content that fits into memory."""
        if not self.size:
            return b""
        return b"".join([part async for part in await self.read(0, self.size - 1)])


Content = FileContent | BytesContent | RemoteContent


@dataclass(frozen=True)
class GrowingContent:
    """Bytes that are still arriving; ``parts`` yields them once, and raises if their end is not what it should be."""

    size: int
    parts: Callable[[], AsyncGenerator[bytes, None]]


@dataclass(frozen=True)
class StoredBlob:
    """Content that lies in the store under a key of its own; another copy of the same content has another key."""

    digest: str
    key: str
    size: int


@dataclass(frozen=True)
class LinkedBlob:
    """A blob as one repository has it. ``touched`` is when somebody last relied on it."""

    stored: StoredBlob
    touched: datetime


@dataclass(frozen=True)
class StoredManifest:
    """A manifest as one repository has it."""

    digest: str
    media_type: str
    content: bytes
    subject: str | None = None


@dataclass(frozen=True)
class ManifestPush:
    """A manifest that is to be taken, what was read from it, and the tag that shall name it, if any.

    ``immutable`` says that the tag, once set, stays what it is.
    """

    repository: str
    digest: str
    content: bytes
    manifest: Manifest
    now: datetime
    by: str
    tag: str = ""
    immutable: bool = False
    origin: Origin = UNKNOWN


@dataclass(frozen=True)
class UpstreamManifest:
    """A manifest as an upstream sent it. ``digest`` is what the upstream says it is, if it does."""

    content: bytes
    media_type: str
    digest: str = ""


@dataclass(frozen=True)
class UpstreamBlob:
    """A blob on its way from an upstream: its whole size, if that is known, and the bytes that are still to come."""

    size: int | None
    parts: AsyncIterator[bytes]


@dataclass(frozen=True)
class TagChange:
    """What an upstream's tag was seen to name from a moment on; without a digest, that it was not there any more."""

    number: int
    digest: str | None
    since: datetime


@dataclass(frozen=True)
class DeletionOrder:
    """A tag or manifest that is to be deleted, and who said so.

    With ``expected`` a tag is only deleted if nobody set it since. Tags for which ``stays`` holds are not taken away.
    What clusters run is only deleted if it is ``forced``.
    """

    repository: str
    reference: str
    now: datetime
    by: str
    expected: TagEntry | None = None
    stays: Callable[[str], bool] = field(default=lambda _: False)
    origin: Origin = UNKNOWN
    forced: bool = False


@dataclass(frozen=True)
class Referrer:
    """A manifest that names another as its subject, as the referrers list describes it."""

    digest: str
    media_type: str
    size: int
    artifact_type: str
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class ReferrersPage:
    """Some of a manifest's referrers, and whether there are more after the last."""

    entries: tuple[Referrer, ...] = ()
    more: bool = False


@dataclass(frozen=True)
class TagEntry:
    """A tag and what it names."""

    name: str
    digest: str
    media_type: str
    size: int
    updated: datetime


@dataclass(frozen=True)
class RepositoryEntry:
    """A repository, with counts."""

    name: str
    tags: int
    manifests: int
    updated: datetime | None


@dataclass(frozen=True)
class Deletion:
    """Something that was deleted and can still be brought back: a tag, or a manifest when ``tag`` is empty."""

    tag: str
    digest: str
    deleted: datetime
    by: str


@dataclass(frozen=True)
class Usage:
    """What a project keeps; a blob that several of its repositories have counts once."""

    project: str
    repositories: int
    manifests: int
    tags: int
    blobs: int
    blob_bytes: int


@dataclass(frozen=True)
class Collected:
    """What a collection removed, or would."""

    manifests: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0
    strays: int = 0
    uploads: int = 0
