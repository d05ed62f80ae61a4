"""Sees requests go by and writes down what the audit record needs of them: pulls, and changes that were refused.

Of blobs it is only what a quota refused: no manifest is tried after that. What was done is written by its own
transaction. What nobody knows who tried, and what was not there, is not written.
"""

from __future__ import annotations

from typing import Final

from haneul.d2hub.digests import is_digest
from haneul.d2hub.errors import NameInvalidError
from haneul.d2hub.exchange import Reply, Request
from haneul.d2hub.happenings import Happening
from haneul.d2hub.http_auth import Doorkeeper
from haneul.d2hub.journal import Journal
from haneul.d2hub.names import parse_repository, parse_tag
from haneul.kernel.errors import HaneulError, NotFoundError, QuotaExceededError, UnauthenticatedError

_CHANGES: Final = {"PUT": Happening.PUSH, "DELETE": Happening.DELETE}
_DIGEST: Final = "docker-content-digest"


class Witness:
    """Writes requests into a journal."""

    def __init__(self, journal: Journal, door: Doorkeeper) -> None:
        self._journal, self._door = journal, door

    def answered(self, request: Request, reply: Reply) -> None:
        """See a request that was answered: a manifest that was sent is a pull."""
        if request.method == "GET" and reply.status == 200 and "/manifests/" in request.path:
            found = _manifest(request)
            if found is not None and (weight := self._journal.weight(found[0])):
                repository, reference = found
                tag = "" if is_digest(reference) else reference
                digest = next((value for name, value in reply.headers if name == _DIGEST), "")
                self._journal.pulled(repository, tag, digest, by=self._who(request), weight=weight)

    def refused(self, request: Request, error: HaneulError) -> None:
        """See a request that was refused: of changes of images, who tried is worth to be known."""
        if isinstance(error, QuotaExceededError) and (repository := _of_upload(request)):
            named = request.parameter("digest") or request.parameter("mount")
            digest, by = named if is_digest(named) else "", self._who(request)
            self._journal.refused(Happening.PUSH, repository, "", digest, by=by, result=error.code)
            return
        happening = _CHANGES.get(request.method)
        if happening is None or isinstance(error, UnauthenticatedError | NotFoundError):
            return
        found = _manifest(request)
        if found is not None and _is_repository(found[0]):
            repository, reference = found
            tag, digest = _named(reference)
            self._journal.refused(happening, repository, tag, digest, by=self._who(request), result=error.code)

    def _who(self, request: Request) -> tuple[str, str]:
        try:
            grant = self._door.grant(request)
        except UnauthenticatedError:
            grant = None
        return (grant.account if grant else "", request.address)


def _manifest(request: Request) -> tuple[str, str] | None:
    """Return the repository and reference that a request is for, if it is for a manifest."""
    match request.segments:
        case ["v2", *name, "manifests", reference] if name:
            return "/".join(name), reference
    return None


def _of_upload(request: Request) -> str:
    """Return the repository that a blob was to be pushed or mounted to, if the request is for that."""
    match request.segments:
        case ["v2", *name, "blobs", "uploads", _] | ["v2", *name, "blobs", "uploads"] if name:
            return "/".join(name)
    return ""


def _named(reference: str) -> tuple[str, str]:
    """Return tag and digest, one of them empty; both if it is neither: no bytes that clients make up are kept."""
    if is_digest(reference):
        return "", reference
    try:
        return parse_tag(reference), ""
    except NameInvalidError:
        return "", ""


def _is_repository(text: str) -> bool:
    try:
        parse_repository(text)
    except NameInvalidError:
        return False
    return True
