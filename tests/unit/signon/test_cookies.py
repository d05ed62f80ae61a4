"""Cookies in headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haneul.signon.cookies import (
    SESSION,
    remove_cookie,
    set_cookie,
    state_name,
    states_of,
    values_of,
    without_ours,
)


def test_all_of_a_name_are_found() -> None:
    headers = [f"a=1; {SESSION}=x; b", f"{SESSION}=y=z;{SESSION}="]
    assert values_of(headers, SESSION) == ["x", "y=z", ""]
    assert values_of(headers, "b") == []


def test_apps_see_the_others() -> None:
    state = state_name("s")
    headers = [f"a=1; {SESSION}=x; theme=dark", f"{state}=y;  c=3 ; __HOST-Haneul-Form=z"]
    assert without_ours(headers) == "a=1; theme=dark; c=3"
    assert states_of(headers) == [state]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters=";"), max_size=12)))
def test_ours_never_reach_an_app(parts: list[str]) -> None:
    header = "; ".join([*parts, f"{SESSION}=secret", *parts])
    assert "secret" not in without_ours([header])


def test_how_they_are_set() -> None:
    assert set_cookie(SESSION, "v", seconds=60, domain="apps.test") == (
        f"{SESSION}=v; Domain=apps.test; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"
    )
    # What begins with __Host- may have no domain.
    assert set_cookie(state_name("s"), "v", seconds=60, strict=True).endswith(
        "=v; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Strict"
    )
    assert "Max-Age=0" in remove_cookie(SESSION, domain="apps.test")
