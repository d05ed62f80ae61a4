"""Deliveries of events: what is kept of them, what an answer means, and when to try again. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

_GONE: Final = 410
#: From one wait to the next.
_GROWTH: Final = 4


class DeliveryState(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    #: Given up: it is not tried again unless somebody asks for it.
    FAILED = "failed"


@dataclass(frozen=True)
class Head:
    """The first delivery that waits for one receiver of a project, of one repository: those behind it wait for it."""

    number: int
    project: str
    receiver: str


@dataclass(frozen=True)
class Delivery:
    """An event on its way to one receiver. ``due`` is when it is tried next, ``ended`` when that was over."""

    number: int
    identity: str
    project: str
    repository: str
    receiver: str
    event: str
    created: datetime
    state: DeliveryState
    attempts: int
    due: datetime
    answer: str = ""
    ended: datetime | None = None


@dataclass(frozen=True)
class Backlog:
    """How many deliveries wait, and since when the first of them."""

    waiting: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """How long an attempt may take and how often it is made: each wait is four times the one before, up to a bound.

    With the defaults the last of ten attempts is made between ten and twenty hours after the first. An attempt holds
    its delivery for ``margin_seconds`` longer than it may take, which is more than the clocks of processes may differ.
    """

    timeout_seconds: float = 10.0
    first_seconds: float = 5.0
    longest_seconds: float = 21600.0
    attempts: int = 10
    margin_seconds: float = 5.0

    @property
    def lease(self) -> timedelta:
        """Return how long an attempt holds its delivery: whoever made it must have ended by then, or was killed."""
        return timedelta(seconds=self.timeout_seconds + self.margin_seconds)

    def wait(self, attempts: int, chance: random.Random) -> timedelta:
        """Return the wait after so many attempts: between half of it and all, so that not all come at once."""
        # The bound of the power only keeps the number finite.
        whole = min(self.first_seconds * _GROWTH ** min(attempts - 1, 50), self.longest_seconds)
        return timedelta(seconds=whole * chance.uniform(0.5, 1.0))


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt, and when: of one that is made again, when that is."""

    state: DeliveryState
    answer: str
    at: datetime


def outcome(
    status: int | None, answer: str, attempts: int, policy: RetryPolicy, *, now: datetime, chance: random.Random
) -> Outcome:
    """Return what an answer means: any 2xx is taken, 410 says never again, all else is tried again.

    ``status`` is None if there was no answer. (Standard Webhooks 1.0, "Response status codes".)
    """
    if status is not None and 200 <= status < 300:
        return Outcome(DeliveryState.DELIVERED, answer, now)
    if status == _GONE or attempts >= policy.attempts:
        return Outcome(DeliveryState.FAILED, answer, now)
    return Outcome(DeliveryState.WAITING, answer, now + policy.wait(attempts, chance))
