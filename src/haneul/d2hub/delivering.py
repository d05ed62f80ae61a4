"""Delivers events to receivers: at least once, and in order for each receiver and repository.

Whoever changes something enqueues its events in the same transaction, so this worker may be killed at any moment: what
was not settled is sent again, by the next start at the latest, once the attempt's hold has ended. A receiver therefore
knows events by their identity. Of an attempt that ended after its hold, when somebody else had made the next one,
nothing is written down.

Each receiver of each project has a task of its own, so one that hangs or fails holds up only itself. What a repository
enqueued is sent one after the other: an event is tried when all before it were taken, or given up.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from haneul.d2hub.deliveries import Backlog, Delivery, DeliveryState, Outcome, RetryPolicy, outcome
from haneul.d2hub.metrics import family
from haneul.d2hub.receivers import Receiver, shown
from haneul.d2hub.record_ports import Outbox, Sender
from haneul.d2hub.rules import Rules
from haneul.d2hub.signing import parse_secrets, signed_headers
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private

_log = structlog.get_logger(__name__)
_LOOK_SECONDS: Final = 1.0
_LONGEST_LOOK_SECONDS: Final = 10.0
_PURGE_SECONDS: Final = 3600.0
_BATCH: Final = 500


@dataclass(frozen=True)
class DeliverySettings:
    """How deliveries are made. ``source`` says which registry events come from; ``keep`` is for the log of them."""

    source: str
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    keep: timedelta = timedelta(days=14)


class Deliverer:
    """Works one outbox off."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        rules: Rules,
        settings: DeliverySettings,
        *,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._outbox, self._sender, self._rules, self._settings = outbox, sender, rules, settings
        self._clock, self._chance = clock, chance
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._results: Counter[str] = Counter()
        self._backlog = Backlog()

    async def run(self) -> None:
        """Deliver without end; what is under way when this is cancelled is delivered by the next start."""
        purged = -_PURGE_SECONDS
        try:
            while True:
                began = self._clock.monotonic()
                try:
                    await self._look()
                    if self._clock.monotonic() - purged >= _PURGE_SECONDS:
                        await self.purge()
                        purged = self._clock.monotonic()
                except Exception as error:  # noqa: BLE001, RUF100 - the next turn may do better; nothing is lost
                    _log.error("deliveries cannot be looked at now", exc_info=error)
                # A database that is slow to answer is asked less often.
                took = self._clock.monotonic() - began
                await self._clock.sleep(min(max(_LOOK_SECONDS, 9 * took), _LONGEST_LOOK_SECONDS))
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def purge(self) -> int:
        """Remove deliveries that ended long ago; return how many."""
        before, gone = self._clock.now() - self._settings.keep, 0
        while removed := await self._outbox.purge(before=before, limit=_BATCH):
            gone += removed
        return gone

    def lines(self) -> Iterable[str]:
        """Return metrics."""
        oldest = self._backlog.oldest
        age = 0.0 if oldest is None else max((self._clock.now() - oldest).total_seconds(), 0.0)
        results = {f'result="{name}"': float(count) for name, count in sorted(self._results.items())}
        return [
            *family(
                "d2hub_deliveries_total", "counter", "Attempts to deliver an event, by what came of them.", results
            ),
            *family("d2hub_deliveries_waiting", "gauge", "Events not yet delivered.", {"": self._backlog.waiting}),
            *family("d2hub_deliveries_oldest_seconds", "gauge", "Age of the first that waits.", {"": age}),
        ]

    async def _look(self) -> None:
        """See to it that each receiver with something due has a task."""
        self._backlog = await self._outbox.backlog()
        for head in await self._outbox.heads(now=self._clock.now()) if self._backlog.waiting else ():
            key = (head.project, head.receiver)
            if key not in self._tasks:
                task = asyncio.create_task(self._deliver_all(*key))
                self._tasks[key] = task
                task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: tuple[str, str], _: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)

    async def _deliver_all(self, project: str, url: str) -> None:
        """Make one receiver's deliveries until none is due."""
        try:
            while heads := await self._outbox.heads(now=self._clock.now(), project=project, receiver=url):
                for head in heads:
                    now = self._clock.now()
                    delivery = await self._outbox.take(head.number, now=now, until=now + self._settings.retry.lease)
                    if delivery is not None:
                        await self._attempt(delivery)
        except Exception as error:  # noqa: BLE001, RUF100 - what was taken is free again when its hold ends
            _log.error("a delivery ended early", project=project, receiver=shown(url), exc_info=error)

    async def _attempt(self, delivery: Delivery) -> None:
        receiver = self._rules.rules(delivery.project).receiver(delivery.receiver)
        if receiver is None:
            gone = Outcome(DeliveryState.FAILED, "the project's rules name it no more", self._clock.now())
            await self._settle(delivery, gone)
            return
        status: int | None = None
        try:
            status = await self._send(receiver, delivery)
            answer = f"status {status}"
        except HaneulError as error:
            answer = error.detail
        retry, now = self._settings.retry, self._clock.now()
        await self._settle(delivery, outcome(status, answer, delivery.attempts, retry, now=now, chance=self._chance))

    async def _send(self, receiver: Receiver, delivery: Delivery) -> int:
        document = {**json.loads(delivery.event), "source": self._settings.source}
        body = json.dumps(document, sort_keys=True).encode()
        at = int(self._clock.now().timestamp())
        headers = signed_headers(_secrets(receiver), identity=delivery.identity, at=at, body=body)
        return await self._sender.send(receiver, headers, body)

    async def _settle(self, delivery: Delivery, done: Outcome) -> None:
        await self._outbox.settle(delivery.number, done, attempts=delivery.attempts)
        self._results["retried" if done.state is DeliveryState.WAITING else str(done.state)] += 1
        if done.state is not DeliveryState.DELIVERED:
            _log.warning(
                "an event was not taken",
                project=delivery.project,
                receiver=shown(delivery.receiver),
                delivery=delivery.identity,
                attempts=delivery.attempts,
                state=str(done.state),
                answer=done.answer,
            )


def _secrets(receiver: Receiver) -> list[bytes]:
    """Return what signs. Raises InvalidInputError if it cannot be read, or others can read it."""
    path = receiver.secret_file
    try:
        return parse_secrets(read_private(path))
    except NotPrivateError as error:
        raise InvalidInputError(f"others may read {path.name}", hint=f"chmod 600 {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the secret's file {path.name} cannot be read", hint="write it") from error
