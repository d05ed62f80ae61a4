"""What people see of a cluster's backup: the worker publishes it, the API shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.backup.names import Contents, Mark, Snapshot, moment_of
from haneul.dkos.backup.timeline import Window, gaps, windows
from haneul.dkos.model import NEVER, BackupState, BackupStatus


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Proof(_Value):
    """What a drill found: a restore of a snapshot, an etcd started on it, everything read back and compared."""

    at: datetime = Field(description="When it was tried last.")
    seconds: float = Field(description="How long the restore took, from the store to an etcd that had told everything.")
    keys: int = Field(default=0, description="How many keys there were.")
    revision: int = Field(default=0, description="Up to which revision changes were replayed on the snapshot.")
    compared: bool = Field(
        default=False, description="Whether the result was compared with a later snapshot, key by key."
    )
    problem: str = Field(default="", description="What went wrong; nothing if it can be restored.")


class SnapshotView(_Value):
    """A snapshot and its proof."""

    taken: datetime
    revision: int
    size: int = Field(description="Bytes, encrypted.")
    proof: Proof | None = None


class WindowView(_Value):
    """Moments and revisions between which every state can be restored."""

    begin: datetime
    end: datetime
    first: int
    last: int


class Gap(_Value):
    """Revisions that are missing between others."""

    first: int
    last: int


class Catalogue(_Value):
    """A cluster's backup."""

    uid: str
    project: str
    name: str
    state: BackupState = BackupState.STARTING
    message: str = ""
    as_of: datetime = Field(default=NEVER, description="When this was written.")
    complete_until: datetime = Field(
        default=NEVER, description="Everything that the cluster acknowledged before this moment is in the backup."
    )
    lag_seconds: float = Field(
        default=0.0, description="The most by which the backup was behind since this was written before."
    )
    revision: int = Field(default=0, description="The last revision in the backup.")
    size: int = Field(default=0, description="Bytes of the whole backup.")
    snapshots: tuple[SnapshotView, ...] = ()
    windows: tuple[WindowView, ...] = ()
    gaps: tuple[Gap, ...] = ()
    deleted: datetime | None = Field(default=None, description="When the cluster was deleted.")
    expires: datetime | None = Field(default=None, description="When the backup of a deleted cluster is deleted.")
    #: What the cluster was asked to be, for a new one like it.
    spec: dict[str, Any] = Field(default_factory=dict)

    @property
    def status(self) -> BackupStatus:
        """Return what stands of it in the cluster's status."""
        proofs = [one.proof for one in self.snapshots if one.proof is not None and not one.proof.problem]
        proven = max(proofs, key=lambda proof: proof.at, default=None)
        return BackupStatus(
            state=self.state,
            message=self.message,
            as_of=self.as_of,
            complete_until=self.complete_until,
            lag_seconds=self.lag_seconds,
            revision=self.revision,
            restorable_since=self.windows[0].begin if self.windows else None,
            snapshots=len(self.snapshots),
            size=self.size,
            proven_at=None if proven is None else proven.at,
            drill_seconds=0.0 if proven is None else proven.seconds,
        )


def snapshot_views(contents: Contents, proofs: dict[tuple[str, int], Proof]) -> tuple[SnapshotView, ...]:
    """Return all snapshots with their proofs, newest last."""

    def view(snapshot: Snapshot) -> SnapshotView:
        return SnapshotView(
            taken=moment_of(snapshot.taken),
            revision=snapshot.revision,
            size=snapshot.size,
            proof=proofs.get((snapshot.generation, snapshot.revision)),
        )

    return tuple(view(one) for one in sorted(contents.snapshots, key=lambda one: (one.generation, one.revision)))


def window_views(contents: Contents, marks: Mapping[str, Mark]) -> tuple[WindowView, ...]:
    """Return from when to when every state can be restored."""

    def view(window: Window) -> WindowView:
        return WindowView(begin=window.begin, end=window.end, first=window.first, last=window.last)

    return tuple(map(view, windows(contents, marks)))


def gap_views(contents: Contents) -> tuple[Gap, ...]:
    """Return what is missing."""
    return tuple(Gap(first=first, last=last) for first, last in gaps(contents))
