"""Accounts and projects' rules in one file, for a registry that runs alone.

```yaml
users:
  alice:
    hash: $argon2id$…
    admin: false
    projects: {shop: writer, "*": reader}
projects:
  shop: {public: true, immutableTags: ["v*"], retention: {newest: 10, days: 30, keep: ["v*"]}, untaggedDays: 30}
  base:
    auditPulls: 10
    quotaBytes: 100000000000
    notify: [{url: "https://ci.example.com/hub", secretFile: ci.secret, events: [push], ca: ci.crt}]
  example: {mirror: {url: "https://registry.example.com", credentialsFile: example.secret, refreshMinutes: 15}}
```

The file holds no secret, only hashes (Argon2id, RFC 9106) and names of files, which are sought beside it unless their
paths are absolute. The server takes up a changed file with the next question.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import structlog
import yaml
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from filelock import FileLock, Timeout
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from haneul.d2hub.happenings import TOLD, Happening
from haneul.d2hub.model import ALL_PROJECTS, EVERY_ACTION, Account, Action
from haneul.d2hub.receivers import Receiver, parse_url
from haneul.d2hub.rules import MirrorRules, ProjectRules, Retention
from haneul.d2hub.turns import Turns, too_many
from haneul.d2hub.workloads import WORKLOAD_USER
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from haneul.kernel.files import write_atomically

_log = structlog.get_logger(__name__)
_REMEMBER_SECONDS: Final = 30.0
_REMEMBER_MOST: Final = 1000
_LOCK_SECONDS: Final = 10.0
#: Secrets that wait to be checked, of all clients.
_MOST_WAITING: Final = 64
_USER: Final = re.compile(r"[a-z0-9]([-._a-z0-9]{0,62}[a-z0-9])?")
#: Each is delivered to beside the others.
_MOST_RECEIVERS: Final = 10


class Role(StrEnum):
    """What somebody is in a project."""

    READER = "reader"
    WRITER = "writer"
    OWNER = "owner"


_ALLOWED: Final[Mapping[Role, frozenset[Action]]] = {
    Role.READER: frozenset({Action.PULL}),
    Role.WRITER: frozenset({Action.PULL, Action.PUSH}),
    Role.OWNER: EVERY_ACTION,
}


def _upstream_url(text: str) -> str:
    """Return a registry's address: scheme, host and port. Raises ValueError."""
    parts = urlsplit(text)
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in ("https", "http") or not parts.hostname or more:
        raise ValueError("a mirror's url is https:// and a host, with a port if need be, and nothing more")
    return f"{parts.scheme}://{parts.netloc}"


def _is_private(url: str) -> bool:
    """Say whether what is sent to an address can be read by nobody else."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class _User(_Entry):
    hash: str
    admin: bool = False
    projects: dict[str, Role] = {}

    @cached_property
    def mark(self) -> str:
        """Return what tells this secret from an earlier one, and nothing about either."""
        return hashlib.sha256(self.hash.encode()).hexdigest()[:16]


def _address(text: str) -> str:
    try:
        return parse_url(text)
    except InvalidInputError as error:
        raise ValueError(error.detail) from error


def _told(happening: Happening) -> Happening:
    if happening not in TOLD:
        raise ValueError(f"nobody is told of {happening}; of {', '.join(TOLD)}")
    return happening


def _once_each(receivers: list[_Receiver]) -> list[_Receiver]:
    if len({receiver.url for receiver in receivers}) < len(receivers):
        raise ValueError("a receiver is named twice")
    return receivers


class _Retention(_Entry):
    newest: Annotated[int, Field(ge=0)] = 0
    days: Annotated[int, Field(ge=0)] = 0
    keep: list[str] = []


class _Receiver(_Entry):
    url: Annotated[str, AfterValidator(_address)]
    secret_file: Path
    events: list[Annotated[Happening, AfterValidator(_told)]] = list(TOLD)
    ca: Path | None = None


class _Mirror(_Entry):
    url: Annotated[str, AfterValidator(_upstream_url)]
    credentials_file: Path | None = None
    ca_file: Path | None = None
    refresh_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 15.0
    default_namespace: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]+([._-]+[a-z0-9]+)*)?$")] = ""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 15.0
    patience_seconds: Annotated[float, Field(gt=0, le=600)] = 3.0
    negative_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    local_hosts: list[str] = []

    @model_validator(mode="after")
    def _no_secret_in_the_open(self) -> _Mirror:
        if self.credentials_file is not None and not _is_private(self.url):
            raise ValueError("credentials would be sent in the open: the url is http, and not of this machine")
        return self


class _Project(_Entry):
    public: bool = False
    immutable_tags: list[Annotated[str, StringConstraints(min_length=1)]] = []
    retention: _Retention | None = None
    untagged_days: Annotated[int, Field(ge=0)] | None = None
    audit_pulls: Annotated[int, Field(ge=0)] = 0
    quota_bytes: Annotated[int, Field(ge=0)] | None = None
    notify: Annotated[list[_Receiver], Field(max_length=_MOST_RECEIVERS), AfterValidator(_once_each)] = []
    mirror: _Mirror | None = None


class _File(_Entry):
    users: dict[str, _User] = {}
    projects: dict[str, _Project] = {}


@dataclass
class _Read:
    """What the file said when it was read, and which file that was."""

    mark: tuple[int, int, int] | None = None
    content: _File = field(default_factory=_File)
    #: Rules of projects that were asked for; every pull asks.
    rules: dict[str, ProjectRules] = field(default_factory=dict)
    #: Accounts of users whose tokens were looked at again.
    accounts: dict[str, Account] = field(default_factory=dict)


class FileAccounts:
    """Accounts and rules of one file."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._read = _Read()
        self._checked_once = False
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        # Of no user: what is checked when there is none, so that the answer takes as long.
        self._decoy = self._hasher.hash(secrets.token_urlsafe(32))
        self._checked: OrderedDict[tuple[str, str], float] = OrderedDict()
        # Hashing takes a core and 19 MiB; who guesses secrets shall not get all of either.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="sign-in")
        self._waiting = 0
        self._turns = Turns()

    async def sign_in(self, name: str, secret: str, *, client: str = "") -> Account | None:
        """Check a secret, in turn with others of the same client."""
        async with self._turns.of(client):
            return await self._signed_in(name, secret)

    async def _signed_in(self, name: str, secret: str) -> Account | None:
        user = self._content().users.get(name)
        hashed = self._decoy if user is None else user.hash
        key = (hashed, hashlib.sha256(secret.encode()).hexdigest())
        if user is not None and (until := self._checked.get(key)) and self._clock.monotonic() < until:
            return _account(name, user)
        if self._waiting >= _MOST_WAITING:
            raise too_many()
        self._waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._threads, self._verified, hashed, secret)
        finally:
            self._waiting -= 1
        if user is None or not right:
            return None
        self._checked[key] = self._clock.monotonic() + _REMEMBER_SECONDS
        while len(self._checked) > _REMEMBER_MOST:
            self._checked.popitem(last=False)
        return _account(name, user)

    async def again(self, name: str, proof: str) -> Account | None:
        """Look somebody up, who may have another secret by now; every request does."""
        content = self._content()
        account = self._read.accounts.get(name)
        if account is None:
            user = content.users.get(name)
            if user is None:
                return None
            account = self._read.accounts[name] = _account(name, user)
        return account if account.proof == proof else None

    async def account(self, name: str) -> Account | None:
        """Look somebody up."""
        user = self._content().users.get(name)
        return None if user is None else _account(name, user)

    async def allowed(self, account: Account | None, project: str) -> frozenset[Action]:
        """Return the actions of somebody's role, and what everybody may."""
        content = self._content()
        said = content.projects.get(project)
        open_to_all = _ALLOWED[Role.READER] if said is not None and said.public else frozenset()
        user = content.users.get(account.name) if account else None
        if user is None:
            return open_to_all
        if user.admin:
            return EVERY_ACTION
        roles = [user.projects[key] for key in (project, ALL_PROJECTS) if key in user.projects]
        return open_to_all.union(*(_ALLOWED[role] for role in roles))

    def rules(self, project: str) -> ProjectRules:
        """Return what the file says of a project."""
        said = self._content().projects.get(project)
        if said is None:
            return ProjectRules()
        known = self._read.rules.get(project)
        if known is None:
            known = self._read.rules[project] = self._made(said)
        return known

    def _made(self, said: _Project) -> ProjectRules:
        policy, mirror = said.retention, said.mirror
        retention = None if policy is None else Retention(policy.newest, policy.days, tuple(policy.keep))
        return ProjectRules(
            said.public,
            tuple(said.immutable_tags),
            retention,
            said.untagged_days,
            said.audit_pulls,
            tuple(self._receiver(receiver) for receiver in said.notify),
            said.quota_bytes,
            None if mirror is None else self._mirror(mirror),
        )

    def _receiver(self, said: _Receiver) -> Receiver:
        beside = self._path.parent
        authority = None if said.ca is None else beside / said.ca
        return Receiver(said.url, beside / said.secret_file, frozenset(said.events), authority)

    def _mirror(self, said: _Mirror) -> MirrorRules:
        beside = self._path.parent
        return MirrorRules(
            said.url,
            None if said.credentials_file is None else beside / said.credentials_file,
            None if said.ca_file is None else beside / said.ca_file,
            timedelta(minutes=said.refresh_minutes),
            said.default_namespace,
            said.timeout_seconds,
            said.patience_seconds,
            said.negative_seconds,
            tuple(said.local_hosts),
        )

    def check(self) -> None:
        """Raise InvalidInputError if the file cannot be read; what holds from now on is never less than it says now."""
        self._read = _Read(self._mark(), self._parse())
        self._checked_once = True

    def users(self) -> list[dict[str, Any]]:
        """Return everybody, without hashes."""
        return [
            {"name": name, "admin": user.admin, "projects": {key: str(role) for key, role in user.projects.items()}}
            for name, user in sorted(self._content().users.items())
        ]

    def projects(self) -> dict[str, ProjectRules]:
        """Return the projects that have rules."""
        return {name: self.rules(name) for name in sorted(self._content().projects)}

    def add_user(self, name: str, secret: str, *, admin: bool, projects: Mapping[str, Role]) -> None:
        """Add somebody. Raises ConflictError if there is such a user."""
        if not _USER.fullmatch(name):
            raise InvalidInputError(
                f"{name!r} is no user name", hint="small letters, digits, '-', '.' and '_', at most 64 characters"
            )
        if name == WORKLOAD_USER:
            raise InvalidInputError(f"{name} is what workloads sign in with", hint="take another name")
        with self._changing() as content:
            if name in content.users:
                raise ConflictError(f"there is a user {name}", hint="remove that one first, or take another name")
            content.users[name] = _User(hash=self._hasher.hash(secret), admin=admin, projects=dict(projects))

    def set_secret(self, name: str, secret: str) -> None:
        """Give somebody another secret. Raises NotFoundError."""
        with self._changing() as content:
            _user(content, name).hash = self._hasher.hash(secret)

    def remove_user(self, name: str) -> None:
        """Remove somebody. Raises NotFoundError."""
        with self._changing() as content:
            _user(content, name)
            del content.users[name]

    def set_project(
        self, name: str, *, public: bool | None = None, immutable_tags: list[str] | None = None
    ) -> ProjectRules:
        """Change a project's rules; None leaves one as it is."""
        with self._changing() as content:
            project = content.projects.setdefault(name, _Project())
            if public is not None:
                project.public = public
            if immutable_tags is not None:
                project.immutable_tags = immutable_tags
        return self.rules(name)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_File]:
        """Read the file, let it be changed, write it; one process at a time."""
        try:
            with FileLock(self._path.with_name(f"{self._path.name}.lock"), timeout=_LOCK_SECONDS):
                content = self._parse().model_copy(deep=True)
                yield content
                text = yaml.safe_dump(content.model_dump(mode="json", by_alias=True, exclude_defaults=True))
                write_atomically(self._path, text, mode=0o600, owner=self._owner())
        except Timeout as error:
            raise UnavailableError(f"another command is changing {self._path}", hint="try again") from error

    def _content(self) -> _File:
        """Return what the file says, read again if it is another one. What cannot be read changes nothing."""
        mark = self._mark()
        if mark != self._read.mark:
            try:
                content = self._parse()
            except InvalidInputError as error:
                if self._read.mark is None and not self._checked_once:
                    raise
                _log.error("the accounts file cannot be read; what it said before holds", error=error.detail)
                content = self._read.content
            self._read = _Read(mark, content)
        return self._read.content

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _parse(self) -> _File:
        try:
            return _File.model_validate(yaml.safe_load(self._path.read_text()) or {})
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise InvalidInputError(
                f"{self._path} cannot be read: {error.strerror}",
                hint="it must be a file that the registry's own user may read",
            ) from error
        except (UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise InvalidInputError(
                f"{self._path} is wrong:\n{_wrong(error)}",
                hint="mend it; 'haneul d2hub user list' says whether it can be read",
            ) from error

    def _owner(self) -> tuple[int, int]:
        """Return whose file this is, or will be: the registry's, also if another user runs a command beside it."""
        found = (self._path if self._path.exists() else self._path.parent).stat()
        return found.st_uid, found.st_gid

    def _verified(self, hashed: str, secret: str) -> bool:
        try:
            return self._hasher.verify(hashed, secret)
        except (VerificationError, InvalidHashError):
            return False


def _wrong(error: Exception) -> str:
    """Return what is wrong with the file, a line each: where, and what is expected there."""
    if isinstance(error, ValidationError):
        entries = error.errors(include_url=False, include_context=False)
        return "\n".join(f"{'.'.join(map(str, entry['loc'])) or 'the file'}: {_expected(entry)}" for entry in entries)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else f"it is no YAML: {error}"


def _expected(entry: ErrorDetails) -> str:
    match entry["type"]:
        case "extra_forbidden":
            return "there is no such field"
        case "missing":
            return "it is missing"
        case "model_type" | "dict_type":
            return "it should have fields, such as 'name: value'"
    said = entry["msg"].removeprefix("Value error, ")
    return f"it should be{said.removeprefix('Input should be')}" if said.startswith("Input should be") else said


def _account(name: str, user: _User) -> Account:
    return Account(name, user.admin, proof=user.mark)


def _user(content: _File, name: str) -> _User:
    if name not in content.users:
        raise NotFoundError(f"there is no user {name}", hint="'haneul d2hub user list' shows them")
    return content.users[name]
