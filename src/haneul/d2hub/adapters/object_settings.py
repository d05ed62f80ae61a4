"""The file that tells a hub of its object store, secrets and all: only its owner may read it.

```yaml
endpoint: https://kage.example.com
bucket: images
region: kage
authority: /etc/haneul/kage-ca.crt   # who signed the endpoint's certificate, if not one that the system trusts
accessKeyId: haneul:d2hub
secretAccessKey: …
linkSeconds: 120                     # how long a redirect leads to content
```
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private
from haneul.kernel.hosts import is_loopback


class ObjectSettings(BaseModel):
    """An object store with an S3 API, and a bucket of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    endpoint: str
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    access_key_id: str = Field(min_length=1)
    secret_access_key: SecretStr = Field(min_length=1)
    region: str = Field(default="us-east-1", min_length=1)
    authority: Path | None = None
    link_seconds: int = Field(default=120, ge=10, le=3600)

    @model_validator(mode="after")
    def _told_in_secret(self) -> ObjectSettings:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"the endpoint {self.endpoint!r} is no URL of HTTP")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f"{parts.hostname} is not on this machine, and plain HTTP would show all content")
        return self


def read_object_settings(path: Path) -> ObjectSettings:
    """Return what the file says. Raises InvalidInputError."""
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
        return ObjectSettings.model_validate(told)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{path} is not as it should be: {wrong}") from error
