"""Whom a registry trusts to say what workloads are, in one file.

```yaml
issuers:
  ci:
    issuer: https://ci.example.com
    audience: https://hub.example.com
    rules:
      - claims: {sub: "repo:acme/web:*", ref: refs/heads/main}
        repositories: [shop/web, "shop/web-*"]
        actions: [pull, push]
  prod:
    issuer: https://kubernetes.default.svc
    audience: https://hub.example.com
    jwksFile: prod.jwks
    rules:
      - {claims: {sub: "system:serviceaccount:web:deployer"}, repositories: ["shop/*"], actions: [pull]}
```

Files are sought beside it. The server takes up a changed file with the next sign-in; of one that is wrong it says so in
its log, and goes by what it said before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from haneul.d2hub.adapters.http_issuers import is_safe
from haneul.d2hub.model import Action, Allowance
from haneul.d2hub.workloads import ALGORITHMS, Trust, WorkloadRule
from haneul.kernel.errors import InvalidInputError

_log = structlog.get_logger(__name__)
_WILD: Final = frozenset("*?[")
_MOST_ISSUERS: Final = 100
_Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class _Rule(_Entry):
    claims: dict[str, _Text | list[_Text]]
    repositories: Annotated[list[_Text], Field(min_length=1)]
    actions: Annotated[list[Action], Field(min_length=1)]

    @field_validator("claims")
    @classmethod
    def _of_somebody(cls, value: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        # Every token of an issuer names the issuer, and with a public one anybody chooses the audience.
        own = [_each(said) for name, said in value.items() if name not in ("iss", "aud")]
        if not any(all(not _is_anything(one) for one in said) and said for said in own):
            raise ValueError("a rule has a claim that not every token of the issuer has, such as sub")
        return value

    @field_validator("repositories")
    @classmethod
    def _of_a_project(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if _WILD & set(pattern.partition("/")[0]):
                raise ValueError(f"{pattern!r} leaves open whose project it is: write PROJECT/...")
        return value

    def made(self) -> WorkloadRule:
        claims = {name: tuple(_each(said)) for name, said in self.claims.items()}
        return WorkloadRule(claims, Allowance(tuple(self.repositories), frozenset(self.actions)))


class _Issuer(_Entry):
    issuer: _Text
    audience: _Text
    algorithms: Annotated[list[str], Field(min_length=1)] = ["RS256", "ES256"]
    jwks_url: str = ""
    jwks_file: Path | None = None
    ca_file: Path | None = None
    rules: Annotated[list[_Rule], Field(min_length=1)]

    @field_validator("algorithms")
    @classmethod
    def _with_a_public_key(cls, value: list[str]) -> list[str]:
        if wrong := [name for name in value if name not in ALGORITHMS]:
            raise ValueError(f"{', '.join(wrong)} is none of {', '.join(ALGORITHMS)}")
        return value

    @model_validator(mode="after")
    def _keys_come_unchanged(self) -> Self:
        if self.jwks_url and self.jwks_file is not None:
            raise ValueError("keys come from jwksUrl or from jwksFile, not from both")
        if self.jwks_file is None and not is_safe(self.jwks_url or self.issuer):
            raise ValueError("keys are asked for over https, or come from a jwksFile")
        return self

    def made(self, name: str, beside: Path) -> Trust:
        return Trust(
            name,
            self.issuer,
            self.audience,
            tuple(rule.made() for rule in self.rules),
            tuple(self.algorithms),
            self.jwks_url,
            None if self.jwks_file is None else beside / self.jwks_file,
            None if self.ca_file is None else beside / self.ca_file,
        )


class _File(_Entry):
    issuers: Annotated[dict[_Name, _Issuer], Field(max_length=_MOST_ISSUERS)] = {}

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len({(entry.issuer, entry.jwks_url, entry.jwks_file) for entry in self.issuers.values()}) < len(
            self.issuers
        ):
            raise ValueError("an issuer is named twice with the same keys; give one all rules")
        return self


class FileTrusts:
    """Trusted issuers of one file; none if there is no such file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, int, int] | None = None
        self._trusts: Sequence[Trust] = ()

    def check(self) -> None:
        """Raise InvalidInputError if the file cannot be read."""
        self._mark, self._trusts = self._found(), self._read()

    def trusts(self) -> Sequence[Trust]:
        """Return them, read again if the file is another one."""
        mark = self._found()
        if mark != self._mark:
            self._mark = mark
            try:
                self._trusts = self._read()
            except InvalidInputError as error:
                _log.error("workloads.yaml cannot be read; what it said before holds", error=error.detail)
        return self._trusts

    def _found(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> Sequence[Trust]:
        try:
            said = _File.model_validate(yaml.safe_load(self._path.read_text()) or {})
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise InvalidInputError(
                f"{self._path} is wrong:\n{_wrong(error)}", hint="the registry's reference has its fields"
            ) from error
        return [entry.made(name, self._path.parent) for name, entry in said.issuers.items()]


def _wrong(error: Exception) -> str:
    if isinstance(error, ValidationError):
        entries = error.errors(include_url=False, include_context=False)
        return "\n".join(
            f"{'.'.join(map(str, entry['loc'])) or 'the file'}: {entry['msg'].removeprefix('Value error, ')}"
            for entry in entries
        )
    return str(error)


def _each(said: str | list[str]) -> list[str]:
    return said if isinstance(said, list) else [said]


def _is_anything(pattern: str) -> bool:
    """Say whether a pattern has no letter of its own."""
    return not set(pattern) - _WILD
