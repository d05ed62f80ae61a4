"""What a restore does with the files of one etcd: prepares beside them, puts into their place, takes the old ones away.

Everything lies in one folder, that of the member: ``member-data`` is what etcd runs on. What was restored is made as
``restoring-<number>`` and becomes ``restored-<number>`` when it is whole; then ``member-data`` becomes
``replaced-<number>``, and ``restored-<number>`` becomes ``member-data``. A file ``restored`` says which number was put
in place last, in its last line, and before that those whose replaced data is still there. Each step may be repeated
after it was interrupted anywhere; what was replaced is deleted by the last one only, and only if what replaced it was
put in place: of a restore that was given up it may be the one good copy.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from haneul.dkos.backup.interruptions import check_moment
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.replaying import Alteration, Made, Member, Replayer
from haneul.dkos.backup.timeline import Wish, at_least, stretch_for
from haneul.dkos.backup.writers import check_reader
from haneul.dkos.etcd_slots import FOUNDERS_FOLDER
from haneul.kernel.errors import BackupIncompleteError
from haneul.kernel.files import sync, write_atomically

_MARK: Final = "restored"


def is_placed(folder: Path, number: int) -> bool:
    """Say whether a restore's data is in its place."""
    return _placed(folder)[-1:] == [number]


async def prepare(
    replayer: Replayer,
    objects: SealedObjects,
    wish: Wish,
    *,
    folder: Path,
    number: int,
    member: Member,
    alteration: Alteration,
    version: str = "",
) -> Made | None:
    """Make what is wished for beside what etcd runs on; None if it was made before.

    ``version`` is the one that Kubernetes will have there, if any does. Raises BackupIncompleteError,
    BackupDamagedError, ConflictError if that version may not go on from it; then nothing is left of it.
    """
    if is_placed(folder, number) or _prepared(folder, number).exists():
        return None
    unfinished = folder / f"restoring-{number}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        contents = await objects.contents()
        stretch = stretch_for(contents, wish)
        mark = await objects.mark(stretch.snapshot.generation)
        check_moment(wish.moment, mark)
        wish = at_least(wish, mark)
        stretch = stretch_for(contents, wish)
        facts = await objects.facts()
        if version:
            check_reader(facts, stretch, version)
        made = await replayer.restore(
            objects,
            stretch,
            wish,
            output=unfinished,
            member=member,
            alteration=alteration,
            keys=facts["keys"],
        )
        sync_tree(unfinished)
        unfinished.rename(_prepared(folder, number))
        sync(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return made


def place(folder: Path, number: int) -> None:
    """Put what was prepared where etcd takes it from, and what was there aside. No etcd may run on it.

    Raises BackupIncompleteError if nothing was prepared; then what was there is in its place.
    """
    if is_placed(folder, number):
        return
    prepared, live, replaced = _prepared(folder, number), folder / FOUNDERS_FOLDER, folder / f"replaced-{number}"
    if prepared.exists():
        if live.exists() and not replaced.exists():
            live.rename(replaced)
            sync(folder)
        # If both are there, live came after what is replaced: nobody made it but an etcd that had nothing.
        if live.exists():
            shutil.rmtree(live)
        prepared.rename(live)
        sync(folder)
    elif not live.exists() or not replaced.exists():
        if replaced.exists():
            # Without it, an etcd would begin an empty cluster.
            replaced.rename(live)
            sync(folder)
        raise BackupIncompleteError("what was prepared is gone", hint="ask for the restore again")
    before = [one for one in _placed(folder) if one != number and (folder / f"replaced-{one}").exists()]
    write_atomically(folder / _MARK, "".join(f"{one}\n" for one in [*before, number]), mode=0o600)


def clear(folder: Path) -> None:
    """Delete what restores left: data that was replaced by what was put in place, and what was prepared in vain."""
    left = [folder / f"replaced-{number}" for number in _placed(folder)]
    for path in (*folder.glob("restored-*"), *folder.glob("restoring-*"), *(one for one in left if one.exists())):
        shutil.rmtree(path)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder to the disk."""
    for current, _, files in os.walk(folder):
        for name in files:
            sync(Path(current, name))
        sync(Path(current))


def _placed(folder: Path) -> list[int]:
    mark = folder / _MARK
    return [int(number) for number in mark.read_text().split()] if mark.exists() else []


def _prepared(folder: Path, number: int) -> Path:
    return folder / f"restored-{number}"
