"""Names of repositories and tags (OCI distribution specification, "Pulling manifests"). Pure."""

from __future__ import annotations

import re
from typing import Final

from haneul.d2hub.digests import parse_digest
from haneul.d2hub.errors import ManifestUnknownError, NameInvalidError

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
#: Of clients, host and name together may have 255; the host needs some.
LONGEST_NAME: Final = 200


def parse_repository(text: str) -> str:
    """Return a repository's name. Raises NameInvalidError."""
    # The length first: no expression is tried on what is too long anyway.
    if len(text) > LONGEST_NAME or not _REPOSITORY.fullmatch(text):
        raise NameInvalidError(
            f"{text[:LONGEST_NAME]!r} is no name of a repository of at most {LONGEST_NAME} characters",
            hint="small letters and digits, joined by '.', '_', '__' or '-', in parts divided by '/'",
        )
    return text


def project_of(repository: str) -> str:
    """Return the project that a repository belongs to: the first part of its name."""
    return repository.partition("/")[0]


def parse_tag(text: str) -> str:
    """Return a tag. Raises NameInvalidError."""
    if not _TAG.fullmatch(text):
        raise NameInvalidError(
            f"{text[:130]!r} is no tag", hint="1 to 128 letters, digits, '_', '.' and '-', not '.' or '-' first"
        )
    return text


def parse_reference(text: str) -> str:
    """Return a tag or digest for reading. Raises what says that it cannot be there, or is malformed."""
    if ":" in text:
        return str(parse_digest(text))
    if not _TAG.fullmatch(text):
        raise ManifestUnknownError(f"{text[:130]!r} is neither a tag nor a digest")
    return text
