"""What a balancer's keeper lets nobody past, and how its errors come back as what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from haneul.balancer.adapters.kept import KeptBalancer
from haneul.balancer.adapters.memory import MemoryBalancer
from haneul.balancer.keeper import NO_MACHINES, BalancerKeeper, Bounds
from haneul.balancer.messages import Asked, Said, error_of, wrong_of
from haneul.balancer.model import (
    Change,
    Frontend,
    FrontendsChangedError,
    Listener,
    ListenerRefusedError,
    Member,
    Pool,
    Protocol,
    parse_range,
)
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError, NotFoundError, UnavailableError
from tests.balancers import kept, short_folder

POOL = Pool("public", (parse_range("192.0.2.0/28"),))
BOUNDS = Bounds((POOL,), (*NO_MACHINES, ip_network("192.0.2.0/28"), ip_network("10.193.0.0/16")))
WEB = Frontend(Listener("192.0.2.1", Protocol.TCP, 80), "shop/web", members=(Member("10.192.0.7", 30080),))


def led_to(address: str) -> Frontend:
    return replace(WEB, members=(*WEB.members, Member(address, 80)))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(WEB, listener=Listener("192.0.2.16", Protocol.TCP, 80)),
        replace(WEB, listener=Listener("0.0.0.0", Protocol.TCP, 80)),  # noqa: S104 - that it is refused
        led_to("127.0.0.1"),
        led_to("::1"),
        led_to("::ffff:7f00:1"),
        led_to("169.254.1.1"),
        led_to("0.0.0.0"),  # noqa: S104 - that it is refused
        led_to("224.0.0.1"),
        led_to("10.193.0.1"),
        led_to("192.0.2.3"),
    ],
)
def test_what_may_not_come_does_not(wrong: Frontend) -> None:
    with pytest.raises(InvalidInputError):
        BOUNDS.check([Change(None, WEB), Change(WEB, wrong)])


def test_what_is_there_may_go_wherever_it_is() -> None:
    BOUNDS.check([Change(None, WEB), Change(led_to("127.0.0.1"), None)])


async def refusal(keeper: BalancerKeeper, line: bytes) -> str:
    """Return the code of what a line is refused with."""
    said = Said.model_validate_json(await keeper.answer(line))
    return said.wrong.code if said.wrong is not None else ""


async def test_of_a_batch_with_one_wrong_change_nothing_is_done() -> None:
    balancer = MemoryBalancer()
    keeper = BalancerKeeper(balancer, BOUNDS, clock=SystemClock())
    for line in ("", "{}", '{"do": "format"}', '{"do": "read", "more": 1}', "[1]", "\x00"):
        assert await refusal(keeper, line.encode()) == InvalidInputError.code
    for address in ("192.0.2.77", "nobody", "::ffff:192.0.2.1"):
        there = replace(WEB, listener=replace(WEB.listener, address=address))
        asked = Asked(do="apply", owner="us", changes=(Change(None, WEB), Change(None, there)))
        assert await refusal(keeper, asked.model_dump_json().encode()) == InvalidInputError.code
    beyond = replace(WEB, listener=replace(WEB.listener, port=70_000))
    asked = Asked(do="apply", owner="us", changes=(Change(None, beyond),))
    assert await refusal(keeper, asked.model_dump_json().encode()) == InvalidInputError.code
    assert await balancer.read() == {}


@pytest.mark.parametrize(
    "error",
    [
        FrontendsChangedError("not as it was"),
        ListenerRefusedError("cannot be", listener=WEB.listener, hint="is it here?"),
        InvalidInputError("no", hint="yes"),
        UnavailableError("away"),
    ],
)
def test_errors_come_back_as_what_they_were(error: HaneulError) -> None:
    back = error_of(wrong_of(error))
    assert (type(back), back.detail, back.hint) == (type(error), error.detail, error.hint)
    if isinstance(back, ListenerRefusedError):
        assert back.listener == WEB.listener


@pytest.mark.parametrize("error", [ConflictError("x"), NotFoundError("y")])
def test_what_nobody_foresaw_means_that_it_cannot_be_used_now(error: HaneulError) -> None:
    assert isinstance(error_of(wrong_of(error)), UnavailableError)


async def test_who_asks_where_nobody_keeps_anything_is_told_to_come_back(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        await KeptBalancer(tmp_path / "none.sock").read()


class _Full(MemoryBalancer):
    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        raise ListenerRefusedError("taken", listener=changes[0].listener)


async def test_a_refusal_says_across_the_socket_which_listener_it_was() -> None:
    with short_folder() as folder:
        async with kept(_Full(), folder) as asked:
            with pytest.raises(ListenerRefusedError) as caught:
                await asked.apply("us", [Change(None, WEB)])
            assert caught.value.listener == WEB.listener
