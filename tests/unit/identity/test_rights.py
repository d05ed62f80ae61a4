"""Rights: the table, and what holds for every combination."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.identity.model import Caller, CallerKind, PlatformRole, Role
from haneul.identity.rights import PlatformRight, demand, demand_a_person, effective_role, may, reaches
from haneul.kernel.errors import ForbiddenError

NOW = datetime(2026, 11, 24, tzinfo=UTC)
O, D, V = Role.OWNER, Role.DEVELOPER, Role.VIEWER  # noqa: E741 - as the table reads
ADMIN, AUDITOR, APPROVER = PlatformRole.ADMIN, PlatformRole.AUDITOR, PlatformRole.FIREWALL_APPROVER


@pytest.mark.parametrize(
    ("granted", "admin", "expected"),
    [
        ([], False, None),
        ([V], False, V),
        ([V, D], False, D),
        ([D, V], False, D),
        ([D, O, V], False, O),
        ([], True, O),
        ([V], True, O),
    ],
)
def test_the_best_role_counts(granted: list[Role], admin: bool, expected: Role | None) -> None:
    assert effective_role(granted, admin=admin) == expected


@pytest.mark.parametrize(
    ("right", "holders"),
    [
        (PlatformRight.ADMINISTER, {ADMIN}),
        (PlatformRight.READ_AUDIT, {ADMIN, AUDITOR}),
        (PlatformRight.DECIDE_FIREWALL, {APPROVER}),
    ],
)
def test_each_platform_right_has_just_these_holders(right: PlatformRight, holders: set[PlatformRole]) -> None:
    assert {role for role in PlatformRole if may(right, [role])} == holders


ROLES = st.lists(st.sampled_from(Role))
PLATFORM = st.lists(st.sampled_from(PlatformRole))


@given(ROLES, ROLES, st.booleans())
def test_a_further_role_never_takes_anything_away(some: list[Role], more: list[Role], admin: bool) -> None:
    before, after = effective_role(some, admin=admin), effective_role([*some, *more], admin=admin)
    for least in Role:
        if before is not None and reaches(before, least):
            assert after is not None and reaches(after, least)


@given(ROLES)
def test_the_effective_role_is_one_that_was_granted(granted: list[Role]) -> None:
    role = effective_role(granted)
    assert role in granted if granted else role is None
    assert all(role is not None and reaches(role, other) for other in granted)


@given(PLATFORM, PLATFORM)
def test_platform_rights_add_up(some: list[PlatformRole], more: list[PlatformRole]) -> None:
    for right in PlatformRight:
        assert may(right, [*some, *more]) == (may(right, some) or may(right, more))


@given(st.sampled_from(PlatformRight))
def test_nobody_without_a_role_has_a_platform_right(right: PlatformRight) -> None:
    with pytest.raises(ForbiddenError):
        demand(right, Caller(person="alice"))


def test_robots_are_no_people() -> None:
    demand_a_person(Caller(person="alice"))
    with pytest.raises(ForbiddenError):
        demand_a_person(Caller(person="robot:shop/ci", kind=CallerKind.ROBOT, project="shop", project_role=O))
