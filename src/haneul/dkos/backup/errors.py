"""What can be wrong with a backup. Silence is never an answer: what is missing or was changed has a code."""

from __future__ import annotations

from haneul.kernel.errors import HaneulError


class BackupIncompleteError(HaneulError):
    """A part of a backup that the wanted moment needs is not there; nothing was restored."""

    code = "backup-incomplete"
    title = "A part of the backup is missing"
    http_status = 409
    exit_code = 12


class BackupDamagedError(HaneulError):
    """A part of a backup is not what was written, or belongs elsewhere; nothing was restored."""

    code = "backup-damaged"
    title = "The backup is damaged"
    http_status = 409
    exit_code = 13
