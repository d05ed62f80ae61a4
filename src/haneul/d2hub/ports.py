"""What D2Hub needs of others: a store of blobs, what is known of them, and accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from haneul.d2hub.happenings import UNKNOWN, Origin
from haneul.d2hub.model import (
    Account,
    Action,
    Collected,
    Content,
    Deletion,
    DeletionOrder,
    LinkedBlob,
    ManifestPush,
    ReferrersPage,
    RepositoryEntry,
    Standing,
    StoredBlob,
    StoredManifest,
    TagChange,
    TagEntry,
    UpstreamBlob,
    UpstreamManifest,
    Usage,
)


class BlobStore(Protocol):
    """Keeps immutable content under keys that are never used twice, and the uploads that become such content.

    An upload belongs to a scope, which is its repository's name: under another scope it is not there. What is
    acknowledged survives a crash of the machine: ``finish`` returns when content and its name are on the disk.
    Errors: BlobUploadUnknownError, DigestInvalidError, BlobUploadInvalidError, StorageFullError.
    """

    async def begin(self, scope: str) -> str:
        """Begin an upload and return its id."""
        ...

    async def append(self, scope: str, upload: str, parts: AsyncIterator[bytes], *, at: int | None = None) -> int:
        """Add bytes to an upload, at its end, and return its size; ``at`` is where the caller thinks that is.

        Whatever arrived before ``parts`` failed stays; nothing does of what there is no room for. Raises
        RangeNotSatisfiableError if ``at`` is not the end.
        """
        ...

    async def size(self, scope: str, upload: str) -> int:
        """Return how many bytes an upload has."""
        ...

    async def finish(self, scope: str, upload: str, digest: str) -> StoredBlob:
        """Make an upload's bytes content, durably, if ``digest`` is theirs; the upload is over.

        If it is not theirs, the upload is over too: no more bytes could make it right.
        """
        ...

    async def cancel(self, scope: str, upload: str) -> None:
        """Forget an upload."""
        ...

    async def content(self, key: str) -> Content | None:
        """Return content, or None if it is not there."""
        ...

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove content; what is not there does not matter."""
        ...

    async def strays(self, *, older_than: float) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
        """Return the keys of content, and scope marks and ids of uploads, unchanged for that many seconds."""
        ...

    async def abandon(self, uploads: Sequence[tuple[str, str]]) -> int:
        """Remove uploads that :meth:`strays` named, except those that are being written; return how many."""
        ...


class UploadReader(Protocol):
    """Reads an upload while it grows, and what it was until then after its end, whatever that is."""

    async def read(self, at: int, most: int) -> bytes:
        """Return bytes from a position on; none if they have not arrived yet."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class GrowingStore(BlobStore, Protocol):
    """A store whose uploads can be read while they grow."""

    def follow(self, scope: str, upload: str) -> UploadReader:
        """Return what reads an upload. Raises BlobUploadUnknownError if it is over."""
        ...


class Upstream(Protocol):
    """Another registry, which this one mirrors. Names of repositories are its own.

    Errors: ManifestUnknownError or BlobUnknownError if it says that there is no such thing; UpstreamError and what
    derives from it. Nothing is asked twice here except to sign in.
    """

    async def tag(self, repository: str, tag: str, *, known: str = "") -> str:
        """Return the digest that a tag names, or nothing if the upstream does not say; ``known`` is our last one."""
        ...

    async def manifest(self, repository: str, reference: str, *, most: int) -> UpstreamManifest:
        """Return a manifest of at most so many bytes, not verified."""
        ...

    def blob(self, repository: str, digest: str, *, at: int = 0) -> AbstractAsyncContextManager[UpstreamBlob]:
        """Return a blob from byte ``at`` on, not verified. The bytes raise UpstreamError if they end early."""
        ...

    async def close(self) -> None:
        """Let connections end."""
        ...


class MirrorRecords(Protocol):
    """What is known of mirrored repositories besides what every repository has.

    ``seen`` is what a tag named here when its upstream was asked, or nothing. If it names something else by now,
    somebody else has asked since, whose answer stays: the tag is left as it is, and nothing is noted of it.
    """

    async def keep(self, change: ManifestPush, *, seen: str) -> bool:
        """Take an upstream's manifest, and let a tag name it, though not all that it refers to is here yet.

        Until it is pushed whole, no pushed index may refer to it. Notes what the tag names in its history; True if it
        named something else at the upstream before.
        """
        ...

    async def note(self, repository: str, tag: str, digest: str | None, *, seen: str, now: datetime) -> bool:
        """Note in a tag's history what the upstream's tag names, or that it has it no more; False if that is known."""
        ...

    async def history(self, repository: str, tag: str, *, before: int | None = None, limit: int) -> Sequence[TagChange]:
        """Return what a tag named, the latest first; ``before`` is the number that the page before ended with."""
        ...


class Accounts(Protocol):
    """Who there is, and what they may do in a project, which is the first part of repositories' names."""

    async def sign_in(self, name: str, secret: str, *, client: str = "") -> Account | None:
        """Return the account whose secret this is, or None, after the same time whatever is wrong.

        ``client`` is the address that asks: who guesses secrets makes others of the same address wait, nobody else.
        Raises UnavailableError if too many wait.
        """
        ...

    async def again(self, name: str, proof: str) -> Account | None:
        """Return an account by what its token carries, as it is now; None if the sign-in holds no more.

        Asked with every request: while nothing changed it is the very same object. Raises UnavailableError if nobody
        can say.
        """
        ...

    async def account(self, name: str) -> Account | None:
        """Return an account that a token of this request names, or None if it is gone."""
        ...

    async def allowed(self, account: Account | None, project: str) -> frozenset[Action]:
        """Return what an account, or somebody unknown, may do in a project."""
        ...


class Platform(Protocol):
    """A platform that knows people, robots and projects, and what they are to each other."""

    async def standing(self, secret: str) -> Standing | None:
        """Return who holds a token of the platform, or None if it is nobody's.

        Raises UnavailableError if the platform does not say.
        """
        ...


class Metadata(Protocol):
    """Knows which repository has which blobs, manifests and tags. Each change is one transaction, whole or not at all.

    Pushes of manifests, deletions and what is brought back are written into the audit record, and events are enqueued
    for those whom the change's origin names, in the same transaction.

    What is deleted is gone for readers at once and kept for a time; a manifest is only taken while all that it refers
    to is there, and what a manifest refers to stays as long as the manifest, or its undo, does.
    """

    async def blob(self, repository: str, digest: str) -> LinkedBlob | None:
        """Return a repository's blob."""
        ...

    async def link_blob(self, repository: str, stored: StoredBlob, *, now: datetime, lost_key: str = "") -> StoredBlob:
        """Give a repository a blob whose content is in the store.

        Returns where the content lies, which is another place than ``stored`` says if the content was there before.
        ``lost_key`` is a place where nothing lies any more: if the content is said to be there, it moves to ``stored``.
        """
        ...

    async def mount_blob(self, digest: str, *, source: str, target: str, now: datetime) -> bool:
        """Give a repository the blob of another; False if that has none."""
        ...

    async def touch_blob(self, repository: str, digest: str, *, now: datetime) -> bool:
        """Note that somebody relies on a blob; False if it is gone."""
        ...

    async def delete_blob(
        self, repository: str, digest: str, *, now: datetime, by: str = "", origin: Origin = UNKNOWN
    ) -> bool:
        """Take a blob from a repository; False if it has none. Raises UnsupportedError if a manifest needs it."""
        ...

    async def manifest(self, repository: str, reference: str) -> StoredManifest | None:
        """Return what a tag or digest names."""
        ...

    async def put_manifest(self, change: ManifestPush) -> None:
        """Take a manifest, and let a tag name it.

        Raises ManifestBlobUnknownError if something it refers to is not there, TagImmutableError.
        """
        ...

    async def delete(self, deletion: DeletionOrder) -> bool:
        """Delete a tag, or a manifest with all tags that name it; False if it is not there, or not as expected.

        Raises UnsupportedError if another manifest refers to it, TagImmutableError if a tag stays, ImageInUseError if a
        cluster runs it.
        """
        ...


class Catalog(Protocol):
    """Lists what there is."""

    async def tags(self, repository: str, *, after: str = "", limit: int | None = None) -> Sequence[TagEntry] | None:
        """Return tags in the order of their bytes, or None if there is no such repository."""
        ...

    async def referrers(
        self, repository: str, subject: str, artifact_type: str = "", *, after: str = ""
    ) -> ReferrersPage:
        """Return the manifests whose subject this is, in the order of their digests, as many as fit into one answer.

        ``after`` is the digest that the page before ended with.
        """
        ...

    async def repositories(
        self, *, projects: Sequence[str] | None = None, after: str = "", limit: int | None = None
    ) -> Sequence[RepositoryEntry]:
        """Return repositories in the order of their names, of some projects or of all."""
        ...

    async def names(self, *, after: str = "", limit: int) -> Sequence[str]:
        """Return names of repositories that have manifests, in their order; nothing of them is counted."""
        ...

    async def projects(self) -> Sequence[str]:
        """Return the projects that have repositories."""
        ...

    async def homes(self, digest: str, *, project: str) -> Sequence[str]:
        """Return repositories of a project that have a blob."""
        ...

    async def deletions(self, repository: str) -> Sequence[Deletion]:
        """Return what can be brought back, the latest first."""
        ...

    async def undelete(
        self, repository: str, reference: str, *, now: datetime, by: str = "", origin: Origin = UNKNOWN
    ) -> bool:
        """Bring back a tag or manifest with all that it refers to; False if there is nothing to bring back.

        Raises ConflictError if the tag names something else by now.
        """
        ...

    async def usage(self, projects: Sequence[str] | None = None) -> Sequence[Usage]:
        """Return what projects keep."""
        ...


class Keeping(Protocol):
    """The part of a collection that is decided by references, ``limit`` rows in a transaction.

    Manifests that go are written into the audit record by the transaction in which they do.
    """

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Keep other processes from collecting. Raises ConflictError if one does."""
        ...

    def delete_untagged(
        self, project: str, *, released_before: datetime, now: datetime, limit: int, origin: Origin = UNKNOWN
    ) -> AsyncIterator[Sequence[str]]:
        """Delete manifests of a project that had no tag since a moment, so that they can be brought back.

        Not what an index refers to, nor what has a subject, until that is removed for good; nor what clusters run.
        Yields the repositories that changed, after each transaction.
        """
        ...

    async def purge_deleted(self, *, before: datetime, now: datetime, limit: int) -> int:
        """Remove manifests and tags that were deleted before a moment, for good; return how many manifests.

        What clusters run stays, to be brought back.
        """
        ...

    def unlink_unreferenced(self, *, untouched_since: datetime, limit: int) -> AsyncIterator[int]:
        """Take blobs from repositories that no manifest there refers to; yield how many, after each transaction."""
        ...

    def drop_unlinked(self, *, untouched_since: datetime, limit: int) -> AsyncIterator[Sequence[StoredBlob]]:
        """Forget blobs that no repository has; yield them, for their content to be removed."""
        ...

    async def drop_empty(self, *, untouched_since: datetime, limit: int) -> int:
        """Forget repositories in which nothing is left; return how many."""
        ...

    async def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those keys that no blob has."""
        ...

    async def collectable(self, *, deleted_before: datetime, untouched_since: datetime) -> Collected:
        """Return what a collection would remove now."""
        ...
