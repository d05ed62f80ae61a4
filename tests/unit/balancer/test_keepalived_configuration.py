"""keepalived's configuration: what is written, and what no value can write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from haneul.balancer.adapters.keepalived_configuration import Sharing, render
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
SHARING = Sharing(
    ("192.0.2.10", "192.0.2.11", "2001:db8::1"),
    "eth0",
    "10.0.0.2",
    ("10.0.0.3",),
    51,
    100,
    advert=50,
    alive=("/usr/bin/python3", "-I", "/usr/lib/haneul/alive.py", "/var/lib/haneul-balancer/worker.sock"),
)


def test_it_is_as_it_was_looked_at() -> None:
    compare(GOLDEN, "keepalived.conf", render(SHARING))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SHARING, addresses=("192.0.2.10\n}",)),
        replace(SHARING, device="eth0\n}"),
        replace(SHARING, own="10.0.0.2 }"),
        replace(SHARING, peers=("peer.example",)),
        replace(SHARING, alive=("true", "\n")),
        replace(SHARING, alive=('a"b',)),
    ],
)
def test_no_value_makes_another_line(wrong: Sharing) -> None:
    with pytest.raises(ValueError, match=r"is no|does not appear to be"):
        render(wrong)
