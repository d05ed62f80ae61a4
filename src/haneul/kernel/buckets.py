"""Buckets of object stores with an S3 API: the file that tells of one, secrets and all, and how it is reached.

```yaml
endpoint: https://kage.example.com
bucket: images
region: kage
authority: /etc/haneul/kage-ca.crt   # who signed the endpoint's certificate, if not one that the system trusts
accessKeyId: haneul:d2hub
secretAccessKey: …
```

Every request has a timeout and is repeated a few times, later and later, while the store fails.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import yaml
from obstore.store import S3Store
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private
from haneul.kernel.hosts import is_loopback

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_RETRY: Final[RetryConfig] = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=300), "max_backoff": timedelta(seconds=2), "base": 2},
}


class BucketSettings(BaseModel):
    """An object store with an S3 API, and a bucket of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    endpoint: str
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    access_key_id: str = Field(min_length=1)
    secret_access_key: SecretStr = Field(min_length=1)
    region: str = Field(default="us-east-1", min_length=1)
    authority: Path | None = None

    @model_validator(mode="after")
    def _told_in_secret(self) -> BucketSettings:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"the endpoint {self.endpoint!r} is no URL of HTTP")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f"{parts.hostname} is not on this machine, and plain HTTP would show all content")
        return self


Told = TypeVar("Told", bound=BucketSettings)


def read_bucket_settings(path: Path, kind: type[Told]) -> Told:
    """Return what the file says; only its owner may read it. Raises InvalidInputError."""
    try:
        told = yaml.safe_load(read_private(path))
    except NotPrivateError as error:
        raise InvalidInputError(f"others may read {path}, which has a secret", hint=f"chmod 600 {path}") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Its message would show a line of the file.
        raise InvalidInputError(f"{path} is no YAML") from error
    try:
        return kind.model_validate(told)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{path} is not as it should be: {wrong}") from error


def open_bucket(settings: BucketSettings) -> S3Store:
    """Return the bucket; nothing is asked of it yet. Raises OSError if the authority cannot be read."""
    client: ClientConfig = {"connect_timeout": "3s", "read_timeout": "20s", "timeout": "120s"}
    if settings.endpoint.startswith("http://"):
        client["allow_http"] = True
    if settings.authority is not None:
        client["root_certificate"] = settings.authority.read_bytes()
    return S3Store(
        settings.bucket,
        endpoint=settings.endpoint,
        region=settings.region,
        access_key_id=settings.access_key_id,
        secret_access_key=settings.secret_access_key.get_secret_value(),
        virtual_hosted_style_request=False,
        client_options=client,
        retry_config=_RETRY,
    )
