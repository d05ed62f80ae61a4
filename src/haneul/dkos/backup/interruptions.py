"""Times in which changes came to an etcd and nobody saw when: what is written down of them, and who learns of it. Pure.

A worker that was away goes on where it was, and gets every change that it missed, but none with the moment at which it
came. So each revision can be restored, and no moment in between. The generation's mark says which.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from haneul.dkos.backup.names import Interruption, Mark, milliseconds, moment_of
from haneul.kernel.errors import BackupIncompleteError

#: Moments are exact to some seconds anyway, so that nobody learns of an interruption that was shorter.
_EXACT_MILLISECONDS: Final = 10_000


def interrupted(mark: Mark | None, *, last: int, end: int, reached: int, now: int) -> Mark | None:
    """Return the mark of a generation that is gone on with, if changes came meanwhile; else None.

    ``last`` is the last revision in the backup, which came at ``end``, ``reached`` the one that etcd has ``now``.
    """
    since = end if mark is None or mark.revision > last else max(end, mark.complete)
    if reached <= last or now - since <= _EXACT_MILLISECONDS:
        return None
    mark = mark or Mark(since, last)
    # One after which nothing was stored is the same one.
    before = tuple(one for one in mark.interruptions if one.revision < last)
    return replace(mark, interruptions=(*before, Interruption(since, now, last)))


def caught_up(interruptions: tuple[Interruption, ...], until: int, first: int) -> tuple[Interruption, ...]:
    """Return the interruptions when all that came during the last one is there, and what came since ``until`` is seen.

    Those before the first snapshot, of revision ``first``, part nothing any more.
    """
    kept = tuple(one for one in interruptions if one.revision >= first)
    return (*kept[:-1], replace(kept[-1], until=until)) if kept else ()


def check_moment(moment: datetime | None, mark: Mark | None) -> None:
    """Raise BackupIncompleteError if nobody saw what changed by then, as the generation's mark says."""
    if mark is None or moment is None:
        return
    limit = milliseconds(moment)
    for one in mark.interruptions:
        if one.since < limit < one.until:
            raise BackupIncompleteError(
                f"nobody saw what changed by {moment:%Y-%m-%d %H:%M:%S} UTC: the backup was interrupted",
                hint=nearest(moment_of(one.since), moment_of(one.until)),
            )


def nearest(before: datetime | None, after: datetime | None) -> str:
    """Return in words the moments next to one that is not in the backup, in whole seconds that are in it."""
    shown = [f"{before:%Y-%m-%d %H:%M:%S}"] if before is not None else []
    if after is not None:
        shown.append(f"{after + timedelta(microseconds=999_999):%Y-%m-%d %H:%M:%S}")
    return f"the nearest moments that it has: {' and '.join(shown)} UTC"
