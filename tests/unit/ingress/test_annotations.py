"""Annotations: which are known, whose go first, and what becomes of wrong ones."""

from __future__ import annotations

import pytest

from haneul.ingress.annotations import OTHER_PREFIX, PREFIX, Wishes, read_annotations, reference_rows


def test_both_prefixes_are_taken_and_ours_goes_first() -> None:
    wishes, refusals = read_annotations(
        {
            f"{OTHER_PREFIX}proxy-body-size": "8m",
            f"{OTHER_PREFIX}proxy-read-timeout": "90",
            f"{PREFIX}proxy-read-timeout": "120",
            f"{OTHER_PREFIX}allowlist-source-range": "10.0.0.0/8",
            "kubernetes.io/ingress.class": "haneul",
            "example.com/proxy-body-size": "1g",
        }
    )
    assert refusals == ()
    assert (wishes.proxy_body_size, wishes.proxy_read_timeout) == (8 << 20, 120)
    assert [str(network) for network in wishes.whitelist_source_range] == ["10.0.0.0/8"]


def test_nothing_written_is_what_holds_then() -> None:
    assert read_annotations({}) == (Wishes(), ())


def test_wrong_ones_are_left_out_alone_and_those_that_restrict_close() -> None:
    wishes, refusals = read_annotations(
        {
            f"{PREFIX}proxy-body-size": "much",
            f"{PREFIX}proxy-read-timeout": "30",
            f"{PREFIX}whitelist-source-range": "10.0.0.0/8; allow all",
            f"{PREFIX}no-such-thing": "x",
        }
    )
    assert wishes == Wishes.model_validate({"proxy-read-timeout": "30"})
    assert {(refusal.annotation, refusal.closes) for refusal in refusals} == {
        (f"{PREFIX}proxy-body-size", False),
        (f"{PREFIX}whitelist-source-range", True),
        (f"{PREFIX}no-such-thing", False),
    }


@pytest.mark.parametrize(
    "name", ["configuration-snippet", "server-snippet", "auth-tls-secret", "auth-snippet", "modsecurity-snippet"]
)
def test_what_restricted_at_ingress_nginx_and_is_not_supported_closes(name: str) -> None:
    _, [refusal] = read_annotations({f"{OTHER_PREFIX}{name}": "deny all;"})
    assert (refusal.closes, refusal.why) == (True, "it is not supported")


def test_a_realm_that_would_ask_nobody_is_none() -> None:
    wishes, [refusal] = read_annotations({f"{PREFIX}auth-realm": "off"})
    assert wishes.auth_realm != "off"
    assert "off" in refusal.why


def test_the_sign_on_is_ours_alone() -> None:
    for name, said in (("auth", "required"), ("auth-projects", "shop")):
        # Whoever writes it under the other prefix wants the path guarded all the same.
        _, [refusal] = read_annotations({f"{OTHER_PREFIX}{name}": said})
        assert refusal.closes
    assert read_annotations({f"{PREFIX}auth": "required"})[0].auth == "required"
    _, [refusal] = read_annotations({f"{PREFIX}auth": "please"})
    assert refusal.closes
    _, [refusal] = read_annotations({f"{PREFIX}auth-gruops": "dev"})
    assert refusal.closes


def test_an_endless_value_is_refused() -> None:
    _, [refusal] = read_annotations({f"{PREFIX}server-alias": "a.com," * 10_000})
    assert refusal.why == "it is too long"


def test_the_reference_has_every_annotation() -> None:
    names = {name.split("`")[1] for name, _, _, _ in reference_rows()}
    assert names == {field.replace("_", "-") for field in Wishes.model_fields}
    assert all(form and meaning for _, form, meaning, _ in reference_rows())
