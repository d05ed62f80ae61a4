"""Names that are valid where they end up: as Kubernetes objects, DNS labels and file names."""

from __future__ import annotations

import re
from typing import Final

from haneul.kernel.errors import InvalidInputError

#: A DNS label (RFC 1123 section 2.1) that starts with a letter, as a regular expression for schemas.
LABEL_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_LABEL: Final = re.compile(LABEL_PATTERN.removeprefix("^").removesuffix("$"))


def parse_label(text: str, *, what: str, longest: int = 63) -> str:
    """Return ``text`` if it is a DNS label (RFC 1123 section 2.1, starting with a letter) of at most ``longest``.

    ``what`` names the thing in the error, such as "cluster name".
    """
    if not _LABEL.fullmatch(text) or len(text) > longest:
        raise InvalidInputError(
            f"{what} {text!r} is no DNS label of at most {longest} characters",
            hint="use small letters, digits and '-', starting with a letter and ending with a letter or digit",
        )
    return text
