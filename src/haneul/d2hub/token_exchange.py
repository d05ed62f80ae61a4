"""OAuth 2.0 token exchange (RFC 8693): what its requests have, and what its refusals look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from haneul.d2hub.errors import RequestInvalidError, registry_code
from haneul.d2hub.exchange import Reply, json_reply
from haneul.kernel.errors import HaneulError

GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
#: An ID token of OpenID Connect is a JSON Web Token; issuers' tools call it either.
_SUBJECTS: Final = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")


def subject_token(form: Mapping[str, Sequence[str]]) -> str:
    """Return the token that is to be exchanged (section 2.1). Raises RequestInvalidError."""
    if not any(kind in _SUBJECTS for kind in form.get("subject_token_type", [])):
        raise RequestInvalidError(f"subject_token_type is none of {', '.join(_SUBJECTS)}")
    if form.get("requested_token_type", [ACCESS_TOKEN]) != [ACCESS_TOKEN]:
        raise RequestInvalidError(f"requested_token_type is not {ACCESS_TOKEN}")
    if "actor_token" in form:
        raise RequestInvalidError("nobody acts for somebody else here: leave out actor_token")
    match form.get("subject_token"):
        case [token]:
            return token
    raise RequestInvalidError("there is no subject_token, or more than one")


def refusal(error: HaneulError) -> Reply:
    """Return an error as section 2.2.2 says, and as clients of registries read it."""
    document = {
        "error": "invalid_request",
        "error_description": error.detail,
        "errors": [{"code": registry_code(error), "message": error.detail, "detail": error.hint}],
    }
    return json_reply(400, document, [("cache-control", "no-store")])
