"""When answers make a member one that is well or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from haneul.balancer.model import HealthCheck


@dataclass(frozen=True)
class Standing:
    """Whether a member counts as well, and how many answers in a row have said otherwise."""

    up: bool = True
    against: int = 0


def judged(standing: Standing, good: bool, check: HealthCheck) -> Standing:
    """Take in an answer: ``rise`` good ones in a row turn a member that is down, ``fall`` bad ones one that is up."""
    if good is standing.up:
        return Standing(standing.up)
    against = standing.against + 1
    if against >= (check.rise if good else check.fall):
        return Standing(good)
    return Standing(standing.up, against)
