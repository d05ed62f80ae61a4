"""Signatures of deliveries by Standard Webhooks 1.0: HMAC-SHA256 over identity, time and body. Pure.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from haneul.kernel.errors import InvalidInputError

_PREFIX: Final = "whsec_"
#: Bytes of a secret (the specification, "Signature scheme").
_SHORTEST: Final = 24
_LONGEST: Final = 64


def parse_secrets(text: str) -> list[bytes]:
    """Return the secrets of a text, one a line: the first is the newest, the others are those it replaces.

    Raises InvalidInputError, which does not repeat them.
    """
    return [_secret(line) for line in text.split()] or [_secret("")]


def signed_headers(secrets: Sequence[bytes], *, identity: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery; ``at`` is in seconds since the epoch. Each secret gives a signature."""
    content = f"{identity}.{at}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode() for secret in secrets)
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _secret(line: str) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not line.startswith(_PREFIX) or not _SHORTEST <= len(secret) <= _LONGEST:
        raise InvalidInputError(
            f"the secret is not {_PREFIX} and {_SHORTEST} to {_LONGEST} bytes in base64",
            hint="make one: echo whsec_$(openssl rand -base64 32)",
        )
    return secret
