"""The values of the issuer, and what it refuses with."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.kernel.errors import HaneulError

CODE_LIFE: Final = timedelta(seconds=60)
DEVICE_LIFE: Final = timedelta(minutes=10)
DEVICE_INTERVAL: Final = 5
ACCESS_LIFE: Final = timedelta(minutes=5)
#: A sign-on in a browser; new programs may be let in meanwhile without typing the secret again.
SIGN_ON_LIFE: Final = timedelta(hours=8)
#: A refresh token that was not used for so long is void; a session ends after so long however much it is used.
REFRESH_LIFE: Final = timedelta(hours=24)
SESSION_LIFE: Final = timedelta(days=7)
#: A token for a cluster. With the ten seconds for which a Kubernetes API server remembers a token, and the time that
#: :data:`PROVIDER_PATIENCE` adds, whoever leaves is out within a minute.
CLUSTER_LIFE: Final = timedelta(seconds=30)
#: How old the provider's word on a person may be.
PROVIDER_PATIENCE: Final = timedelta(seconds=15)
ONE_TIME_SECRET_LIFE: Final = timedelta(days=3)

ES256: Final = "ES256"
RS256: Final = "RS256"
SCOPES: Final = ("openid", "profile", "email", "groups", "projects", "offline_access")
CLI_CLIENT: Final = "haneul-cli"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


class OAuthError(HaneulError):
    """A request to the issuer was refused, with the word that the standard has for it (RFC 6749, section 5.2)."""

    code = "oauth"
    title = "The sign-on was refused"
    http_status = 400
    exit_code = 3

    def __init__(self, error: str, detail: str, *, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.error = error


class TooManyAttemptsError(HaneulError):
    """Too many attempts failed of late; the next is only looked at after a while."""

    code = "too-many-attempts"
    title = "Too many attempts"
    http_status = 429
    exit_code = 3


class _Value(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Client(_Value):
    """A program that may ask for tokens. ``platform`` says that its tokens work at the platform's own API."""

    id: str
    name: str
    redirect_uris: tuple[str, ...] = ()
    algorithm: str = ES256
    public: bool = False
    platform: bool = False
    created: datetime | None = None


class IssuedClient(_Value):
    """A client just registered, with its secret."""

    client: Client
    secret: str = Field(repr=False)


class OneTimeSecret(_Value):
    """A sign-on secret that an administrator made: good once, to choose one's own."""

    secret: str = Field(repr=False)
    expires: datetime


class SignOn(_Value):
    """Who is signed on in a browser, since when."""

    person: str
    auth_time: datetime


class Grant(_Value):
    """What a session may do: for whom, through which client."""

    person: str
    client: str
    scope: str
    auth_time: datetime
    nonce: str = ""


class Session(_Value):
    """A program that acts for a person until it ends."""

    id: str
    person: str
    client: str
    scope: str
    source: str = ""
    agent: str = ""
    auth_time: datetime
    created: datetime
    expires: datetime


#: The platform's own command line (RFC 8252): it keeps no secret, and is reached on the loopback interface only.
CLI: Final = Client(id=CLI_CLIENT, name="the haneul command line", public=True, platform=True)
