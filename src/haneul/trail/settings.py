"""The file that says what of a cluster's requests is kept, how much, and where.

```yaml
keep: errors,slow=5s,matched,sample=1%
bytesPerSecond: 262144
bytesPerDay: 1073741824
store: records
mask:
  names: [customer-number]
```
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from haneul.kernel.errors import InvalidInputError
from haneul.trail.budget import Limits
from haneul.trail.masking import Masks, expressions_of
from haneul.trail.policy import DEFAULT, Policy, parse_policy

_HINT: Final = "docs/reference/audit-trail.md has every field"


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class MaskSettings(_Part):
    """What is masked besides what always is, and what is not."""

    names: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    open_names: tuple[str, ...] = ()

    @field_validator("expressions")
    @classmethod
    def _expressions(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        expressions_of(texts)
        return texts

    @property
    def masks(self) -> Masks:
        """Return them as masking takes them."""
        return Masks(self.names, expressions_of(self.expressions), self.open_names)


class TrailSettings(_Part):
    """One cluster's trail. Sizes are in bytes."""

    #: Of Ingress objects that say nothing themselves.
    keep: str = DEFAULT
    bytes_per_second: int = Field(256 << 10, ge=1024)
    bytes_per_day: int = Field(1 << 30, ge=1 << 20)
    #: Of each day, for collections alone; a quarter if left out.
    reserved_bytes: int | None = Field(None, ge=0)
    ring_bytes: int = Field(64 << 20, ge=1 << 16)
    spool_bytes: int = Field(64 << 20, ge=1 << 16)
    #: A folder for records, or a file that names a bucket.
    store: Path | None = None
    bucket: Path | None = None
    keep_days: int = Field(30, ge=1, le=3650)
    #: Seconds after which records go to the store though there are few.
    flush_seconds: float = Field(30.0, gt=0, le=3600)
    mask: MaskSettings = MaskSettings()
    #: A file of the site's own rules for ModSecurity: exclusions.
    exclusions: Path | None = None

    @field_validator("keep")
    @classmethod
    def _policy(cls, text: str) -> str:
        parse_policy(text)
        return text

    @model_validator(mode="after")
    def _whole(self) -> TrailSettings:
        if (self.store is None) == (self.bucket is None):
            raise ValueError("one of 'store' and 'bucket' says where records are kept")
        if self.reserved > self.bytes_per_day:
            raise ValueError("'reservedBytes' is more than 'bytesPerDay'")
        return self

    @property
    def reserved(self) -> int:
        """Return the bytes of a day that are for collections alone."""
        return self.bytes_per_day // 4 if self.reserved_bytes is None else self.reserved_bytes

    @property
    def limits(self) -> Limits:
        """Return the budget."""
        return Limits(self.bytes_per_second, self.bytes_per_day, self.reserved)

    @property
    def policy(self) -> Policy:
        """Return what is kept where an Ingress says nothing."""
        return parse_policy(self.keep)


def read_trail_settings(file: Path, defaults: Mapping[str, Any] | None = None) -> TrailSettings:
    """Read the file; paths in it are relative to its folder. Raises InvalidInputError.

    With ``defaults`` for fields by their names in the file, there need be no file; a store among them stands back for
    a bucket.
    """
    try:
        document: Any = yaml.safe_load(file.read_text())
    except OSError as error:
        if defaults is None or not isinstance(error, FileNotFoundError):
            raise InvalidInputError(f"{file} cannot be read: {error.strerror}", hint="'audit' names it") from error
        document = {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} is no YAML: {error}", hint=_HINT) from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} is no mapping", hint=_HINT)
    for name in ("store", "bucket", "exclusions"):
        if isinstance(document.get(name), str):
            document[name] = file.parent / document[name]
    given = {name: value for name, value in (defaults or {}).items() if name != "store" or "bucket" not in document}
    try:
        return TrailSettings.model_validate({**given, **document})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise InvalidInputError(f"{file}: {wrong}", hint=_HINT) from error
