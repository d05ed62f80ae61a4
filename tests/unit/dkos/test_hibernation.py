"""When a cluster should sleep, and in which order it falls asleep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from haneul.dkos.hibernation import (
    PODS_LIFE,
    SILENCE_LIFE,
    Level,
    Remains,
    next_step,
    next_wake,
    sleep_waits_for,
    standing,
)
from haneul.dkos.model import (
    NEVER,
    Cluster,
    ClusterSpec,
    ClusterStatus,
    Condition,
    ConditionType,
    Hibernation,
    Phase,
    SleepRule,
)

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = SleepRule(sleep="0 20 * * 1-5", wake="0 7 * * 1-5", zone="Europe/Berlin")
CREATED = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def berlin(month: int, day: int, hour: int, minute: int = 0, *, fold: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN, fold=fold).astimezone(UTC)


def asleep(wanted: Hibernation, now: datetime) -> bool:
    return standing(wanted, CREATED, now).asleep


@pytest.mark.parametrize(
    ("now", "sleeps"),
    [
        (berlin(11, 24, 19, 59), False),  # a Tuesday
        (berlin(11, 24, 20), True),
        (berlin(11, 25, 6, 59), True),
        (berlin(11, 25, 7), False),
        (berlin(11, 28, 12), True),  # Saturday: asleep since Friday evening
        (berlin(11, 29, 20, 30), True),
        (berlin(11, 30, 7), False),
        # The clock goes forward on 29 March and back on 25 October; it is seven in the morning in either time.
        (berlin(3, 30, 6, 59), True),
        (berlin(3, 30, 7), False),
        (berlin(10, 26, 6, 59), True),
        (berlin(10, 26, 7), False),
    ],
)
def test_nights_and_weekends(now: datetime, sleeps: bool) -> None:
    assert asleep(Hibernation(schedule=(NIGHTS,)), now) is sleeps


def test_word_holds_until_the_next_moment_of_a_rule() -> None:
    woken = Hibernation(asleep=False, asked=berlin(11, 24, 22), schedule=(NIGHTS,))
    assert not asleep(woken, berlin(11, 24, 22))
    assert not asleep(woken, berlin(11, 25, 19, 59))
    assert asleep(woken, berlin(11, 25, 20))
    put_to_sleep = Hibernation(asleep=True, asked=berlin(11, 24, 12), schedule=(NIGHTS,))
    assert asleep(put_to_sleep, berlin(11, 25, 6))
    assert not asleep(put_to_sleep, berlin(11, 25, 7))
    assert asleep(Hibernation(asleep=True, asked=berlin(2, 1, 12)), berlin(11, 24, 12))


def test_cluster_made_at_night_is_awake_until_the_next_evening() -> None:
    wanted = Hibernation(schedule=(NIGHTS,))
    created = berlin(11, 24, 23)
    assert not standing(wanted, created, created + timedelta(hours=1)).asleep
    assert standing(wanted, created, berlin(11, 25, 20)).asleep


def test_of_two_rules_at_once_the_one_that_wakes_counts() -> None:
    rules = (SleepRule(sleep="0 7 * * *"), SleepRule(sleep="0 3 * * *", wake="0 7 * * *"))
    for ordered in (rules, rules[::-1]):
        assert not asleep(Hibernation(schedule=ordered), datetime(2026, 11, 24, 7, tzinfo=UTC))


def test_moment_that_the_clock_skips_comes_right_after() -> None:
    rule = SleepRule(sleep="30 2 * * *", wake="0 12 * * *", zone="Europe/Berlin")
    wanted = Hibernation(schedule=(rule,))
    assert not asleep(wanted, berlin(3, 29, 1, 59))
    assert asleep(wanted, berlin(3, 29, 3, 0))
    # What comes twice counts once: the second half past two changes nothing for who was woken between.
    assert asleep(wanted, berlin(10, 25, 2, 30))
    woken = wanted.model_copy(update={"asked": berlin(10, 25, 2, 40)})
    assert not asleep(woken, berlin(10, 25, 2, 45, fold=1))


hours = some.integers(0, 23)
rules = some.builds(
    lambda sleep, wake, minute, zone, days: SleepRule(
        sleep=f"{minute} {sleep} * * {days}", wake="" if wake is None else f"{minute} {wake} * * {days}", zone=zone
    ),
    hours,
    some.none() | hours,
    some.integers(0, 59),
    some.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    some.sampled_from(["*", "1-5", "6,0", "3"]),
)
moments = some.datetimes(datetime(2026, 2, 1), datetime(2027, 12, 1), timezones=some.just(UTC))
wishes = some.builds(
    Hibernation,
    asleep=some.booleans(),
    asked=some.just(NEVER) | moments,
    schedule=some.lists(rules, max_size=3).map(tuple),
)


@settings(deadline=None, max_examples=40)
@given(wanted=wishes, now=moments)
def test_what_stands_holds_from_its_beginning_to_its_end_and_not_beyond(wanted: Hibernation, now: datetime) -> None:
    found = standing(wanted, CREATED, now)
    assert found.since <= now
    assert found.holds(now)
    if found.until is None:
        assert not wanted.schedule
        return
    assert now < found.until <= now + timedelta(days=8)
    assert not found.holds(found.until)
    for moment in (now, found.until - timedelta(seconds=1), now + (found.until - now) / 2):
        assert standing(wanted, CREATED, moment).asleep == found.asleep


@settings(deadline=None, max_examples=40)
@given(
    wanted=wishes, day=some.sampled_from([(2026, 3, 29), (2026, 10, 25), (2026, 4, 5), (2026, 11, 1), (2027, 3, 14)])
)
def test_walking_from_end_to_end_through_a_change_of_the_clock_meets_every_moment_once(
    wanted: Hibernation, day: tuple[int, int, int]
) -> None:
    now = datetime(*day, tzinfo=UTC) - timedelta(days=1)
    end = now + timedelta(days=3)
    seen: list[datetime] = []
    while now < end:
        found = standing(wanted, CREATED, now)
        if found.until is None:
            break
        seen.append(found.until)
        now = found.until
    assert seen == sorted(set(seen))
    # A rule has one moment to sleep and one to wake a day, each side of a change of the clock too.
    assert len(seen) <= 2 * len(wanted.schedule) * 5


@settings(deadline=None, max_examples=40)
@given(wanted=wishes, now=moments, sleeps=some.booleans())
def test_somebody_s_word_always_counts_at_once(wanted: Hibernation, now: datetime, sleeps: bool) -> None:
    said = wanted.model_copy(update={"asleep": sleeps, "asked": now})
    assert standing(said, CREATED, now).asleep is sleeps
    # Also if the clock of who wrote it down runs ahead.
    ahead = said.model_copy(update={"asked": now + timedelta(seconds=5)})
    assert standing(ahead, CREATED, now).asleep is sleeps


def test_next_wake_is_the_first_of_all_rules() -> None:
    assert next_wake(Hibernation(schedule=(NIGHTS,)), berlin(11, 27, 21)) == berlin(11, 30, 7)
    assert next_wake(Hibernation(schedule=(SleepRule(sleep="0 20 * * *"),)), CREATED) is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sleep", "0 20 * *", "five fields"),
        ("sleep", "* 20 * * *", "must be one number"),
        ("sleep", "*/5 * * * *", "must be one number"),
        ("sleep", "0 0 30 2 *", "ever comes"),
        ("sleep", "0 25 * * *", "ever comes"),
        ("wake", "0 7 * * 1-9", "ever comes"),
        ("zone", "Mars/Olympus", "no time zone"),
        ("zone", "../../etc/passwd", "no time zone"),
        ("zone", "", "no time zone"),
    ],
)
def test_rules_that_cannot_be_are_refused_with_a_reason(field: str, value: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SleepRule.model_validate({"sleep": "0 20 * * *", field: value})


@settings(deadline=None, max_examples=40)
@given(wanted=wishes, now=moments)
def test_moment_that_was_written_down_as_a_word_changes_nothing(wanted: Hibernation, now: datetime) -> None:
    found = standing(wanted, CREATED, now)
    written = wanted.model_copy(update={"asleep": found.asleep, "asked": found.since})
    again = standing(written, CREATED, now)
    assert (again.asleep, again.until) == (found.asleep, found.until)


ONCE_READY = {"api": 4.0, "node": 8.0, "ready": 9.0}


@pytest.mark.parametrize(
    ("phase", "milestones", "condition", "words"),
    [
        (Phase.PENDING, {}, None, "it is being made"),
        (Phase.CREATING, {"api": 4.0}, (ConditionType.NODES_READY, "NodesJoining"), "it is being made"),
        (
            Phase.UPDATING,
            ONCE_READY,
            (ConditionType.NODES_READY, "NodesChanging"),
            "it is being changed (NodesChanging!)",
        ),
        (
            Phase.WAKING,
            ONCE_READY,
            (ConditionType.AUTHORITIES_CURRENT, "SigningAnew"),
            "its authorities are being replaced (SigningAnew!)",
        ),
        (Phase.DEGRADED, ONCE_READY, (ConditionType.NODES_READY, "NodesJoining"), ""),
        (Phase.WAKING, ONCE_READY, (ConditionType.API_ANSWERS, "ApiSilent"), ""),
        (Phase.READY, ONCE_READY, None, ""),
    ],
)
def test_sleep_waits_for_what_a_cluster_is_in_the_middle_of(
    phase: Phase, milestones: dict[str, float], condition: tuple[ConditionType, str] | None, words: str
) -> None:
    conditions = [
        Condition(type=kind, status="False", reason=reason, message=f"{reason}!", last_transition_time=CREATED)
        for kind, reason in ([condition] if condition else [])
    ]
    status = ClusterStatus(phase=phase, milestones=milestones, conditions=tuple(conditions))
    cluster = Cluster(
        project="shop", name="web", uid="u", generation=1, created=CREATED, spec=ClusterSpec(), status=status
    )
    assert sleep_waits_for(cluster) == words


BEGAN = datetime(2026, 11, 24, 20, tzinfo=UTC)
ALL = frozenset({"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "node"})
CORE = frozenset({"etcd", "kube-apiserver", "node"})


@pytest.mark.parametrize(
    ("roles", "machines", "pods", "after", "level", "reason"),
    [
        (ALL, True, None, timedelta(0), Level.NODES, "PodsEnding"),
        (CORE, True, 4, timedelta(0), Level.NODES, "PodsEnding"),
        (CORE, True, 4, PODS_LIFE, Level.API, "NodesEnding"),
        (CORE, True, None, SILENCE_LIFE, Level.API, "NodesEnding"),
        (CORE, True, 0, timedelta(0), Level.API, "NodesEnding"),
        (CORE, False, 0, timedelta(0), Level.API, "NodesEnding"),
        (ALL - {"kube-apiserver"}, True, None, timedelta(0), Level.API, "NodesEnding"),
        (CORE - {"node"}, False, 0, timedelta(0), Level.ETCD, "ApiEnding"),
        (frozenset({"etcd"}), False, 0, timedelta(0), Level.NOTHING, "EtcdEnding"),
        (frozenset[str](), False, 0, timedelta(0), Level.NOTHING, "Asleep"),
    ],
)
def test_each_thing_ends_after_what_needs_it(
    roles: frozenset[str], machines: bool, pods: int | None, after: timedelta, level: Level, reason: str
) -> None:
    step = next_step(Remains(roles, machines), pods, since=BEGAN, now=BEGAN + after)
    assert (step.level, step.reason) == (level, reason)


parts = some.frozensets(some.sampled_from(sorted(ALL | {"cilium-operator"})))


@settings(deadline=None, max_examples=40)
@given(roles=parts, machines=some.booleans(), pods=some.none() | some.integers(0, 9), minutes=some.integers(0, 9))
def test_nothing_is_ended_that_something_left_needs(
    roles: frozenset[str], machines: bool, pods: int | None, minutes: int
) -> None:
    remains = Remains(roles, machines)
    step = next_step(remains, pods, since=BEGAN, now=BEGAN + timedelta(minutes=minutes))
    if remains.nodes or remains.programs:
        assert step.level >= Level.API
    if "kube-apiserver" in roles:
        assert step.level >= Level.ETCD
    assert step.asleep == (not roles and not machines)
    # At most two minutes, then it goes on whatever is left.
    assert step.level is not Level.NODES or minutes < 2
