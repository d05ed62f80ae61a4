"""What the deliverer does with deliveries that are not taken."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from structlog.testing import capture_logs

from haneul.d2hub.deliveries import Backlog, Delivery, DeliveryState, Head, Outcome
from haneul.d2hub.delivering import Deliverer, DeliverySettings
from haneul.d2hub.receivers import Receiver
from haneul.d2hub.rules import ProjectRules
from haneul.kernel.clock import VirtualClock

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
URL = "https://ci.example.com/hub"


class Waiting:
    """Two deliveries to one receiver, of two repositories, so that one look finds both."""

    def __init__(self) -> None:
        made = Delivery(1, "evt_1", "shop", "shop/web", URL, "{}", NOW, DeliveryState.WAITING, 0, NOW)
        self.waiting = {1: made, 2: replace(made, number=2, identity="evt_2", repository="shop/api")}
        self.settled: list[tuple[int, Outcome]] = []
        self.done = asyncio.Event()

    async def backlog(self) -> Backlog:
        return Backlog(len(self.waiting), NOW)

    async def heads(self, *, now: datetime, project: str = "", receiver: str = "") -> Sequence[Head]:
        return [Head(number, "shop", URL) for number in self.waiting]

    async def take(self, number: int, *, now: datetime, until: datetime) -> Delivery | None:
        return replace(self.waiting[number], attempts=1)

    async def settle(self, number: int, outcome: Outcome, *, attempts: int) -> None:
        del self.waiting[number]
        self.settled.append((number, outcome))
        if not self.waiting:
            self.done.set()

    async def listed(
        self, project: str, *, state: DeliveryState | None, before: int = 0, limit: int
    ) -> Sequence[Delivery]:
        return []

    async def again(self, project: str, number: int, *, now: datetime) -> bool:
        return False

    async def purge(self, *, before: datetime, limit: int) -> int:
        return 0


class Refusing:
    """A receiver that takes nothing."""

    async def send(self, receiver: Receiver, headers: Mapping[str, str], body: bytes) -> int:
        return 503


class Told:
    """Rules that name the receiver."""

    def __init__(self, secret: Path) -> None:
        self._receiver = Receiver(URL, secret)

    def rules(self, project: str) -> ProjectRules:
        return ProjectRules(notify=(self._receiver,))


async def test_a_refused_delivery_is_logged_and_the_next_of_the_same_look_is_tried(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    secret.chmod(0o600)
    outbox, chance = Waiting(), random.Random(1)  # noqa: S311 - chance, no secret
    settings = DeliverySettings("https://hub.example.com")
    deliverer = Deliverer(outbox, Refusing(), Told(secret), settings, clock=VirtualClock(NOW), chance=chance)
    with capture_logs() as logs:
        running = asyncio.ensure_future(deliverer.run())
        async with asyncio.timeout(60):
            await outbox.done.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert [(number, outcome.answer) for number, outcome in outbox.settled] == [(1, "status 503"), (2, "status 503")]
    assert [(entry["event"], entry["delivery"], entry["answer"]) for entry in logs] == [
        ("an event was not taken", "evt_1", "status 503"),
        ("an event was not taken", "evt_2", "status 503"),
    ]
