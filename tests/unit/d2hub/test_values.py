"""Digests, names, manifests, rules, ranges: pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.d2hub.caches import Lru, RepositoryCache
from haneul.d2hub.collecting import Suspects
from haneul.d2hub.digests import digest_of, parse_digest
from haneul.d2hub.errors import DigestInvalidError, ManifestInvalidError, NameInvalidError, registry_code
from haneul.d2hub.manifests import OCI_MANIFEST, parse_manifest
from haneul.d2hub.model import Action, TagEntry
from haneul.d2hub.names import parse_reference, parse_repository, parse_tag, project_of
from haneul.d2hub.rules import ProjectRules, Retention, expired_tags
from haneul.d2hub.tokens import MOST_SCOPES, Scope, Tokens, parse_scopes
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ForbiddenError, HaneulError, UnauthenticatedError

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_reads_as_it_is_written(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    assert parse_digest(str(digest)) == digest


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "sha256:" + "g" * 64, "sha512:" + "0" * 64, "sha1:" + "0" * 40]
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(DigestInvalidError):
        parse_digest(text)


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/c", "a.b_c__d-e---f/0", "x" * 200])
def test_names_of_repositories(name: str) -> None:
    assert parse_repository(name) == name
    assert project_of(name) == name.split("/", maxsplit=1)[0]


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a_", "-a", "a/../b", "a b", "é", "a\n", "x" * 201]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(NameInvalidError):
        parse_repository(name)


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    for parse in (parse_repository, parse_tag, parse_reference):
        try:
            assert parse(text) == text
            assert not set(text) & set("\\ \n\0")
            assert ".." not in text.split("/")
        except HaneulError as error:
            assert error.http_status in (400, 404)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "schemaVersion",
                        "config",
                        "layers",
                        "manifests",
                        "digest",
                        "size",
                        "mediaType",
                        "subject",
                        "annotations",
                    ]
                )
                | st.text(),
                inner,
            )
        ),
    )
)
def test_any_document_is_read_or_refused(document: object) -> None:
    if isinstance(document, dict):
        document = {**document, "schemaVersion": 2}
    with pytest.raises(ManifestInvalidError):
        parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)


def test_retention_lets_the_oldest_go() -> None:
    tags = [TagEntry(f"t{days}", "", "", 0, NOW - timedelta(days=days)) for days in (1, 5, 10, 20)]
    tags += [TagEntry("v1", "", "", 0, NOW - timedelta(days=90)), TagEntry("keep", "", "", 0, NOW - timedelta(days=90))]
    rules = ProjectRules(immutable_tags=("v*",), retention=Retention(newest=2, days=7, keep=("keep*",)))
    assert [tag.name for tag in expired_tags(tags, rules, now=NOW)] == ["t20", "t10"]
    assert expired_tags(tags, ProjectRules(), now=NOW) == []


def test_scopes() -> None:
    assert parse_scopes(["repository:a/b:pull,push registry:catalog:*", "nonsense", "repository:host:5000/a:pull"]) == [
        Scope("repository", "a/b", ("pull", "push")),
        Scope("registry", "catalog", ("*",)),
        Scope("repository", "host:5000/a", ("pull",)),
    ]


def test_only_short_tokens_are_remembered() -> None:
    tokens = Tokens(b"k" * 32, service="d2hub", clock=VirtualClock(NOW))

    def issued(count: int) -> str:
        names = [f"shop/{number}{'x' * 150}" for number in range(count)]
        asked = {name: [Action.PULL] for name in names}
        return tokens.issue("alice", asked, asked, catalog=False, maintenance=False)

    short, long = issued(1), issued(MOST_SCOPES)
    assert tokens.grant(short) is tokens.grant(short)
    assert tokens.grant(long) == tokens.grant(long)
    assert tokens.grant(long) is not tokens.grant(long)


def test_scopes_beyond_the_most_are_left_out() -> None:
    assert len(parse_scopes([f"repository:shop/{number}:pull" for number in range(1000)])) == MOST_SCOPES == 20


def test_a_cache_keeps_what_was_used_last_within_its_weight() -> None:
    cache: Lru[str, str] = Lru(10, len)
    for name in ("a", "b", "c", "d", "e"):
        cache.put(name, "xx")
    cache.get("a")
    cache.put("f", "xx")
    assert [name for name in "abcdef" if cache.get(name)] == ["a", "c", "d", "e", "f"]
    cache.put("large", "x" * 9)
    assert cache.get("large") is None
    assert len(cache) == 5


def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    cache: RepositoryCache[str] = RepositoryCache(10)
    state = cache.state("shop/web")
    cache.changed("shop/web")
    cache.put("shop/web", "v1", "old", state=state)
    assert cache.get("shop/web", "v1") is None
    cache.put("shop/web", "v1", "new", state=cache.state("shop/web"))
    cache.changed("shop/other")
    assert cache.get("shop/web", "v1") == "new"
    cache.clear()
    assert cache.get("shop/web", "v1") is None


def test_suspects_are_those_seen_without_a_break() -> None:
    suspects: Suspects[str] = Suspects(10)
    assert suspects.look(["a", "b"], 0) == []
    assert suspects.look(["a"], 9) == []
    assert suspects.look(["a", "b"], 11) == ["a"]
    assert suspects.look(["b"], 20) == []
    assert suspects.look(["b"], 21) == ["b"]


def test_every_error_has_a_code_of_the_specification() -> None:
    assert registry_code(UnauthenticatedError("x")) == "UNAUTHORIZED"
    assert registry_code(ForbiddenError("x")) == "DENIED"
    assert registry_code(DigestInvalidError("x")) == "DIGEST_INVALID"
    assert registry_code(HaneulError("x")) == "UNKNOWN"
