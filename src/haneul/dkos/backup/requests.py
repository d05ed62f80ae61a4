"""What people ask of backups: a moment, a revision, or the newest state there is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.interruptions import nearest
from haneul.dkos.model import (
    NEVER,
    AuthoritiesRequest,
    ClusterSpec,
    Hibernation,
    NodePool,
    NodeProviderName,
    RestoreRequest,
)
from haneul.dkos.releases import offered_after
from haneul.kernel.errors import BackupIncompleteError, ConflictError, InvalidInputError


@dataclass(frozen=True)
class Asked:
    """A moment or a revision; neither means the newest state in the backup."""

    revision: int | None = None
    moment: datetime | None = None


def from_backup(catalogue: Catalogue, asked: Asked, *, number: int, source: str = "") -> RestoreRequest:
    """Return the request for what was asked for, or raise InvalidInputError or BackupIncompleteError."""
    if asked.revision is not None and asked.moment is not None:
        raise InvalidInputError("a moment and a revision contradict each other", hint="name one of them")
    if not catalogue.snapshots:
        raise BackupIncompleteError(
            f"the backup of {catalogue.name} has no snapshot yet", hint="wait a minute, then ask again"
        )
    if asked.moment is not None:
        return _at(catalogue, asked.moment, number, source)
    if asked.revision is None:
        # Should less be there than is known now, that is an error, and no older state.
        return RestoreRequest(number=number, source=source, least=catalogue.revision)
    if not any(window.first <= asked.revision <= window.last for window in catalogue.windows):
        raise _not_there(catalogue, f"revision {asked.revision}")
    return RestoreRequest(number=number, source=source, revision=asked.revision, least=asked.revision)


def _at(catalogue: Catalogue, moment: datetime, number: int, source: str) -> RestoreRequest:
    if moment.tzinfo is None:
        raise InvalidInputError("the moment has no time zone", hint="write it like 2026-11-27T14:30:00Z")
    words = f"{moment:%Y-%m-%d %H:%M:%S %Z}"
    last = catalogue.windows[-1]
    if moment > max(catalogue.complete_until, last.end):
        raise BackupIncompleteError(
            f"the backup of {catalogue.name} is complete until {catalogue.complete_until:%Y-%m-%d %H:%M:%S} UTC, "
            f"and {words} is later",
            hint="wait a few seconds, or leave the moment out for the newest state",
        )
    is_in_last = moment >= last.begin
    if not is_in_last and not any(window.begin <= moment <= window.end for window in catalogue.windows):
        raise _not_there(catalogue, words, moment)
    # After all that came, the state is the newest one, which the backup has to have.
    least = catalogue.revision if moment >= catalogue.complete_until else 0
    return RestoreRequest(number=number, source=source, moment=moment, least=least)


def _not_there(catalogue: Catalogue, what: str, moment: datetime | None = None) -> BackupIncompleteError:
    """Return the error for what lies before the backup, or between what it has: nobody saw it then."""
    hint = f"'haneul cluster backup list {catalogue.name}' shows all moments and revisions"
    if moment is not None:
        before = max((one.end for one in catalogue.windows if one.end < moment), default=None)
        after = min((one.begin for one in catalogue.windows if one.begin > moment), default=None)
        hint = f"{nearest(before, after)}; {hint}"
    spans = [f"{one.begin:%Y-%m-%d %H:%M:%S} to {one.end:%Y-%m-%d %H:%M:%S}" for one in catalogue.windows[-3:]]
    return BackupIncompleteError(
        f"the backup of {catalogue.name} does not have {what}; it has {', '.join(spans)} UTC",
        hint=hint,
    )


def as_new(catalogue: Catalogue, asked: Asked) -> ClusterSpec:
    """Return the spec of a new cluster from a backup: as the old one was, but awake, and with no machine of its.

    The range of services stays, for objects hold addresses of it; pods get another one, for they are other pods. The
    version of Kubernetes stays while it is offered; then the next one takes its place.
    """
    try:
        spec = ClusterSpec.model_validate(catalogue.spec)
    except ValidationError as error:
        raise ConflictError(
            f"what {catalogue.name} was cannot be made any more: {error.errors()[0]['msg']}",
            hint="restore it with the version of Haneul that made it",
        ) from error
    version = offered_after(spec.version)
    if not version:
        raise ConflictError(
            f"{catalogue.name} had Kubernetes {spec.version}, and no version that is built here can read what it wrote",
            hint="restore it with a version of Haneul that has that minor or the next, and upgrade it from there",
        )
    request = from_backup(catalogue, asked, number=1, source=catalogue.uid)
    return spec.model_copy(
        update={
            "restore": request,
            "version": version,
            "node_version": "",
            "hibernation": Hibernation(asked=NEVER, wake_on_request=spec.hibernation.wake_on_request),
            "authorities": AuthoritiesRequest(grace_seconds=spec.authorities.grace_seconds),
            "network": spec.network.model_copy(update={"pods": None}),
            "node_pools": tuple(map(_without_machines, spec.node_pools)),
        }
    )


def _without_machines(pool: NodePool) -> NodePool:
    """A machine is one cluster's; somebody names others for the new one."""
    if pool.provider is not NodeProviderName.SSH:
        return pool
    return pool.model_copy(update={"machines": (), "count": 0})
