"""The designed error hierarchy.

Every error that a person may meet has a stable code, a title that names the class of trouble, a detail that
says what happened this time, and a hint with the next step. Adapters translate foreign exceptions into these;
nothing above an adapter catches a library's exception. The HTTP face renders them as problem details
(RFC 9457), the command line as three lines and an exit code.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HaneulError(Exception):
    """Base of all errors meant for people.

    ``code`` is stable and never reused; ``http_status`` and ``exit_code`` are properties of the class, ``detail``
    and ``hint`` of the occurrence.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong inside Haneul"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def problem_details(self) -> dict[str, Any]:
        """Return the error as problem details (RFC 9457), with ``code`` and ``hint``."""
        return {
            "type": f"urn:haneul:error:{self.code}",
            "title": self.title,
            "status": self.http_status,
            "detail": self.detail,
            "code": self.code,
            "hint": self.hint,
        }


class InvalidInputError(HaneulError):
    """The request cannot be carried out as it is written; nothing was changed."""

    code = "invalid-input"
    title = "The request is not valid"
    http_status = 422
    exit_code = 2


class NotFoundError(HaneulError):
    """The thing named does not exist, or the caller may not know that it does."""

    code = "not-found"
    title = "Not found"
    http_status = 404
    exit_code = 4


class ConflictError(HaneulError):
    """The request contradicts what exists: a name taken, a version outdated."""

    code = "conflict"
    title = "In conflict with what exists"
    http_status = 409
    exit_code = 5


class UnauthenticatedError(HaneulError):
    """Nobody is known to be behind this request."""

    code = "unauthenticated"
    title = "Not signed in"
    http_status = 401
    exit_code = 3


class ForbiddenError(HaneulError):
    """The caller is known and may not do this."""

    code = "forbidden"
    title = "Not allowed"
    http_status = 403
    exit_code = 3


class QuotaExceededError(HaneulError):
    """The project would have more than its quota allows; the detail says of what, how much is used, and the limit."""

    code = "quota-exceeded"
    title = "More than the project's quota"
    http_status = 403
    exit_code = 11


class UnavailableError(HaneulError):
    """A part that is needed does not answer now; trying again later may help."""

    code = "unavailable"
    title = "A needed part does not answer"
    http_status = 503
    exit_code = 6


class DeadlineExceededError(UnavailableError):
    """A wait reached its deadline; the detail says on what it waited and what it last saw."""

    code = "deadline-exceeded"
    title = "It took longer than allowed"
    http_status = 504
    exit_code = 7


class HostNotReadyError(HaneulError):
    """This machine lacks something that the operation needs."""

    code = "host-not-ready"
    title = "This machine is not ready"
    http_status = 500
    exit_code = 8


class CommandFailedError(HaneulError):
    """An external program ended with an error; the detail carries the end of what it said."""

    code = "command-failed"
    title = "A program failed"
    exit_code = 9


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
