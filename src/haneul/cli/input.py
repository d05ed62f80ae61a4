"""Files that people name on the command line."""

from __future__ import annotations

import ssl
from pathlib import Path

from haneul.kernel.errors import InvalidInputError


def read_secret_file(file: Path) -> str:
    """Return the secret that is the text of a file. Raises InvalidInputError."""
    try:
        text = file.read_text().strip()
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"there is no file {file}", hint="write the secret into it, and nothing else"
        ) from error
    except IsADirectoryError as error:
        raise InvalidInputError(f"{file} is a folder", hint="name a file with the secret") from error
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", hint="is it yours?") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is no text", hint="name a file with the secret") from error
    if not text:
        raise InvalidInputError(f"{file} holds no secret", hint="write the secret into it, and nothing else")
    return text


def trust_of(authority: Path) -> ssl.SSLContext:
    """Return what trusts the servers of an authority whose certificate a file has. Raises InvalidInputError."""
    try:
        return ssl.create_default_context(cafile=str(authority))
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"there is no file {authority}", hint="--ca names the file with the authority's certificate"
        ) from error
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"{authority} holds no certificate that can be read",
            hint="--ca names the file with the authority's certificate, in PEM",
        ) from error
