def sub(p, *pairs):
    s=open(p).read()
    for a,b in pairs:
        assert s.count(a)==1,(p,a,s.count(a))
        s=s.replace(a,b)
    open(p,'w').write(s)
sub('src/haneul/kernel/clock.py',('''class VirtualClock:''','''class ClockNotBefore:
    """A clock that tells no moment before a given one, for machines that know the time only a while after their start."""

    def __init__(self, clock: Clock, earliest: datetime) -> None:
        self._clock, self._earliest = clock, earliest

    def now(self) -> datetime:
        """Return the other clock's moment, or the earliest."""
        return max(self._clock.now(), self._earliest)

    def monotonic(self) -> float:
        """Return the other clock's seconds."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep by the other clock."""
        await self._clock.sleep(seconds)


class VirtualClock:'''))
sub('src/haneul/d2hub/ports.py',('''    async def collectable(''','''    async def latest(self) -> datetime | None:
        """Return the latest moment that is written down: it was no later then than it is now."""
        ...

    async def collectable('''))
sub('src/haneul/d2hub/adapters/sql_keeping.py',('''    @reads
    def collectable(''','''    @reads
    def latest(self, connection: Connection) -> datetime | None:
        """Look at when blobs were relied on and manifests were pushed, released or deleted."""
        columns = (links.c.touched, manifests.c.released, manifests.c.deleted)
        found = [connection.execute(select(func.max(column))).scalar_one() for column in columns]
        return max((aware(moment) for moment in found if moment is not None), default=None)

    @reads
    def collectable('''),('import counted, referenced','import aware, counted, referenced'))
sub('src/haneul/d2hub/collecting.py',
('''Time is the machine's, but never faster than its monotonic clock: a clock that jumps ahead makes nothing old.
''','''Time is the machine's, but never faster than its monotonic clock: a clock that jumps ahead makes nothing old. One that
was behind at the start lets things stay longer, until the next start; that is logged.
'''),
('''STRAY_SECONDS: Final = 3600.0
''','''STRAY_SECONDS: Final = 3600.0
#: So far may the machine's clock run ahead of the time that passed before it is told.
_AHEAD: Final = timedelta(hours=1)
'''),
('''        async with self._one:
            await''','''        async with self._one:
            if (ahead := self._clock.now() - self._now()) > _AHEAD:
                _log.warning(
                    "the clock was set ahead since the start: what is collected stays longer until the next start",
                    seconds=ahead.total_seconds(),
                )
            await'''))
sub('src/haneul/app/d2hub.py',
('''        metadata = SqlMetadata(database)
        accounts''','''        metadata, keeping = SqlMetadata(database), SqlKeeping(database)
        kept_time = await _not_before(keeping, clock)
        accounts'''),
('''accounts, clock=clock, limits=settings.limits)''','''accounts, clock=kept_time, limits=settings.limits)'''),
('''Collector(registry, SqlKeeping(database), store, clock=clock)''','''Collector(registry, keeping, store, clock=kept_time)'''),
('''async def _serve(hub''','''async def _not_before(keeping: SqlKeeping, clock: Clock) -> Clock:
    """Return the time for what is written down: what is pushed now is not older than what was pushed before."""
    latest = await keeping.latest()
    if latest is None or latest <= clock.now():
        return clock
    _log.warning("the clock is behind what was written down before", latest=latest.isoformat())
    return ClockNotBefore(clock, latest)


async def _serve(hub'''),
('import Clock, SystemClock','import Clock, ClockNotBefore, SystemClock'))
sub('tests/functional/d2hub/test_collecting.py',
('''async def test_who_asks_for_a_blob''','''async def test_a_clock_that_was_behind_is_told(hub: Parts) -> None:
    real = hub.clock.now
    with structlog.testing.capture_logs() as logs:
        await hub.collector.collect()
        assert [entry for entry in logs if entry["log_level"] == "warning"] == []
        hub.clock.now = lambda: real() + 2 * DAY  # type: ignore[method-assign]
        await hub.collector.collect()
    [told] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert told["seconds"] == 2 * DAY.total_seconds()


async def test_what_is_written_down_is_not_older_than_what_was(hub: Parts) -> None:
    assert await hub.keeping.latest() is None
    await hub.pushed(b"x")
    latest = await hub.keeping.latest()
    assert latest == hub.clock.now()
    behind = VirtualClock(latest - DAY)
    clock = ClockNotBefore(behind, latest)
    assert clock.now() == latest
    behind.advance(2 * DAY.total_seconds())
    assert clock.now() == latest + DAY
    assert clock.monotonic() == behind.monotonic()


async def test_who_asks_for_a_blob'''),
('''        self.collector = Collector(self.registry, SqlKeeping(database), self.store, clock=self.clock)
''','''        self.keeping = SqlKeeping(database)
        self.collector = Collector(self.registry, self.keeping, self.store, clock=self.clock)
'''),
('import VirtualClock','import ClockNotBefore, VirtualClock'),
('''import pytest

from haneul.app''','''import pytest
import structlog

from haneul.app'''))
