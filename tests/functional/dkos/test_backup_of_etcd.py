"""Backing up a real etcd and restoring it: nothing acknowledged is lost, every state comes back, damage is told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from haneul.dkos.adapters.backup_files import FileBackups
from haneul.dkos.adapters.etcd_gateway import EtcdGateway
from haneul.dkos.backup import placing
from haneul.dkos.backup.archiver import Archiver, Schedule
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.names import Contents
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.replaying import Alteration, Made, Member, Replayer
from haneul.dkos.backup.timeline import Retention, Wish, stretch_for
from haneul.dkos.model import BackupState
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import BackupDamagedError, BackupIncompleteError, HaneulError, UnavailableError
from haneul.kernel.waiting import wait_for
from tests.functional.dkos.etcd_process import Etcd, program, running
from tests.ports import port

CLOCK = SystemClock()
KEY = bytes(range(32))
FACTS: dict[str, Any] = {"uid": "uid", "project": "shop", "name": "web", "spec": {}, "keys": {}}
PLAIN = Alteration()
QUICK = Schedule(flush_seconds=0.1, snapshot_every=timedelta(hours=1), first_drill_after=timedelta(0))


class Lab:
    """An etcd, a folder of backups, and what backs the one up into the other."""

    def __init__(self, etcd: Etcd, folder: Path, replay: Path) -> None:
        self.etcd = etcd
        self.backups = folder / "backups"
        self.replayer = Replayer(replay, folder / "scratch")
        self.objects = SealedObjects(FileBackups(self.backups), "uid", KEY)
        self.told: list[Catalogue] = []

    @contextlib.asynccontextmanager
    async def archiver(self, schedule: Schedule = QUICK) -> AsyncIterator[Archiver]:
        made = Archiver(
            EtcdGateway([self.etcd.url]),
            self.objects,
            facts=FACTS,
            replayer=self.replayer,
            schedule=schedule,
            clock=CLOCK,
            publish=self.told.append,
        )
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stored(self, archiver: Archiver, revision: int) -> None:
        """Wait until a revision is in the backup, and a snapshot too."""
        await self.until(lambda: archiver.stored >= revision, f"revision {revision} in the backup")
        await self.until(lambda: self.told and self.told[-1].snapshots, "a snapshot")

    async def proven(self, drills: int = 1) -> None:
        def enough() -> bool:
            return sum(one.proof is not None for one in self.told[-1].snapshots) >= drills if self.told else False

        await self.until(enough, "the drill")

    async def until(self, seen: Callable[[], object], what: str) -> None:
        async def probe() -> bool:
            return bool(seen())

        await wait_for(probe, what=what, timeout=60, clock=CLOCK, interval=0.02, max_interval=0.1)

    async def contents(self) -> Contents:
        return await self.objects.contents()

    async def restore(self, wish: Wish, number: int = 1, alteration: Alteration = PLAIN) -> Made | None:
        """Restore in place: prepare while etcd runs, end it, put the data in place, start it."""
        made = await placing.prepare(
            self.replayer,
            self.objects,
            wish,
            folder=self.etcd.folder,
            number=number,
            member=Member("etcd-0", self.etcd.peer_url, f"uid-{number}"),
            alteration=alteration,
        )
        await self.etcd.kill()
        placing.place(self.etcd.folder, number)
        await self.etcd.start()
        return made


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    etcd = Etcd(await program("etcd"), tmp_path / "etcd-0")
    async with running(etcd):
        yield Lab(etcd, tmp_path, await program("etcd-replay"))


async def write(etcd: Etcd, count: int, seed: int) -> dict[int, dict[str, tuple[str, int, int, int]]]:
    """Write and delete at random; return the state after each revision that was looked at."""
    chance = random.Random(seed)  # noqa: S311 - the same every time
    states = {}
    for number in range(count):
        key = f"/registry/things/{chance.randrange(12)}"
        if chance.random() < 0.2 and key in await etcd.state():
            revision = await etcd.delete(key)
        else:
            revision = await etcd.put(key, f"value {number} {'x' * chance.randrange(400)}")
        if number % 5 == 0:
            states[revision] = await etcd.state()
    revision = await etcd.revision()
    states[revision] = await etcd.state()
    return states


async def test_every_state_comes_back_exactly(lab: Lab) -> None:
    etcd = lab.etcd
    before = await write(etcd, 15, 1)
    async with lab.archiver() as archiver:
        await lab.stored(archiver, max(before))
        states = await write(etcd, 60, 2)
        await lab.stored(archiver, max(states))
    last = max(states)
    chosen = [max(before), *sorted(states)[2:9:3], last]
    for number, revision in enumerate(chosen, 1):
        made = await lab.restore(Wish(revision=revision), number)
        assert made is not None
        assert (made.revision, made.keys) == (revision, len({**before, **states}[revision]))
        assert await etcd.state() == {**before, **states}[revision]
        # Nobody who watched sees time run backwards, and nobody goes on from a state that is gone.
        assert await etcd.revision() >= revision + 1_000_000_000
        with contextlib.suppress(AssertionError):
            await etcd.state(revision)
            raise ValueError("an old revision is readable")


async def test_a_moment_is_the_last_state_before_it(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        await lab.stored(archiver, await etcd.put("/a", "first"))
        await lab.stored(archiver, await etcd.put("/a", "second"))
        between = datetime.now(UTC)
        await asyncio.sleep(0.01)
        revision = await etcd.put("/a", "third")
        await lab.stored(archiver, revision)
    made = await lab.restore(Wish(moment=between))
    assert made is not None
    assert made.revision == revision - 1
    assert {key: value[0] for key, value in (await etcd.state()).items()} == {"/a": "second"}


async def test_all_disks_are_lost_and_what_was_acknowledged_more_than_five_seconds_before_is_there(lab: Lab) -> None:
    etcd = lab.etcd
    acknowledged: dict[str, tuple[str, float]] = {}

    async def writer() -> None:
        for number in itertools.count():
            await etcd.put(f"/registry/{number}", f"value {number}")
            acknowledged[f"/registry/{number}"] = (f"value {number}", time.monotonic())
            await asyncio.sleep(0.005)

    def enough() -> bool:
        # What is promised is about what was acknowledged longer than five seconds ago.
        old = [moment for _, moment in acknowledged.values() if moment < time.monotonic() - 6]
        return len(old) > 200 and bool(lab.told and lab.told[-1].snapshots)

    # With the times of the real worker.
    async with lab.archiver(Schedule()) as archiver:
        writing = asyncio.create_task(writer())
        await lab.until(enough, "a lot to be written")
        await etcd.kill()
        lost_at = time.monotonic()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        stored = archiver.stored
    shutil.rmtree(etcd.data)
    await lab.restore(Wish(revision=stored, least=stored))
    state = {key: value[0] for key, value in (await etcd.state()).items()}
    due = {key: value for key, (value, moment) in acknowledged.items() if moment < lost_at - 5}
    # The test would say nothing had nothing been written for longer than that.
    assert len(due) > 50
    assert {key: state.get(key) for key in due} == due
    # And what is there has no hole: it is exactly the first so many writes.
    assert sorted(state, key=lambda key: int(key.split("/")[-1])) == [f"/registry/{n}" for n in range(len(state))]


WORKER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from haneul.dkos.adapters.backup_files import FileBackups
from haneul.dkos.adapters.etcd_gateway import EtcdGateway
from haneul.dkos.backup.archiver import Archiver, Schedule
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.replaying import Replayer
from haneul.kernel.clock import SystemClock
url, backups, scratch, replay = sys.argv[1:]
facts = {"uid": "uid", "project": "shop", "name": "web", "spec": {}, "keys": {}}
asyncio.run(Archiver(
    EtcdGateway([url]), SealedObjects(FileBackups(Path(backups)), "uid", bytes(range(32))), facts=facts,
    replayer=Replayer(Path(replay), Path(scratch)),
    schedule=Schedule(flush_seconds=0.05, snapshot_every=timedelta(seconds=1)),
    clock=SystemClock(), publish=lambda catalogue: None,
).run())
"""


async def test_a_worker_that_is_killed_again_and_again_leaves_no_gap(lab: Lab, tmp_path: Path) -> None:
    etcd, chance = lab.etcd, random.Random(7)  # noqa: S311 - the same every time
    states: dict[int, dict[str, tuple[str, int, int, int]]] = {}
    replay = await program("etcd-replay")
    deaths = 0

    async def writer() -> None:
        for number in itertools.count():
            revision = await etcd.put(f"/registry/{number % 30}", f"value {number}")
            if number % 40 == 0:
                states[revision] = await etcd.state(revision)
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(writer())
    while deaths < 8:
        before = await lab.contents()
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WORKER,
            etcd.url,
            str(lab.backups),
            str(tmp_path / f"scratch-{deaths}"),
            str(replay),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )

        async def at_work(before: Contents = before, deaths: int = deaths) -> bool:
            now = await lab.contents()
            return now.segments != before.segments and (deaths < 2 or bool(now.snapshots))

        await wait_for(at_work, what="the worker to write", timeout=60, clock=CLOCK, interval=0.02)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.wait(), chance.uniform(0, 1.25))
        assert worker.returncode is None, "the worker ended by itself"
        os.killpg(worker.pid, signal.SIGKILL)
        await worker.wait()
        deaths += 1
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    last = await etcd.revision()
    async with lab.archiver() as archiver:
        await lab.stored(archiver, last)
    contents = await lab.contents()
    # It is one history, without a hole since its first snapshot, whatever the moments of the ends.
    assert len(contents.generations) == 1
    begin = contents.snapshots[0].revision
    known = sorted(revision for revision in states if revision >= begin)
    assert len(known) > 10
    assert all(stretch_for(contents, Wish(revision=revision)) for revision in range(begin, last + 1))
    for number, revision in enumerate(known[:: max(1, len(known) // 4)], 1):
        await lab.restore(Wish(revision=revision), number)
        assert await etcd.state() == states[revision]


async def test_when_one_member_does_not_answer_the_next_is_asked(lab: Lab) -> None:
    gateway = EtcdGateway([f"http://127.0.0.1:{port()}", lab.etcd.url])
    try:
        with pytest.raises(UnavailableError):
            await gateway.identity()
        there = await gateway.identity()
        assert await gateway.identity() == there
    finally:
        await gateway.close()


async def test_an_etcd_that_lost_everything_begins_a_new_history_and_the_old_one_stays(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        old = await write(etcd, 30, 3)
        await lab.stored(archiver, max(old))
        await etcd.kill()
        shutil.rmtree(etcd.data)
        await etcd.start()
        await etcd.put("/new", "world")
        await lab.until(lambda: lab.told[-1].revision == 2, "the new history")
        await lab.until(lambda: len(lab.told[-1].snapshots) == 2, "its snapshot")
    assert len((await lab.contents()).generations) == 2
    await lab.restore(Wish(revision=max(old)), 1)
    assert await etcd.state() == old[max(old)]


async def test_the_same_revision_with_other_content_is_another_history(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        for value in ("one", "two", "three"):
            revision = await etcd.put("/a", value)
        await lab.stored(archiver, revision)
    # While nobody looked, the data was lost, and the new etcd came further than the old one.
    await etcd.kill()
    shutil.rmtree(etcd.data)
    await etcd.start()
    for value in ("uno", "due", "tre", "quattro", "cinque"):
        revision = await etcd.put("/a", value)
    async with lab.archiver() as archiver:
        await lab.until(lambda: archiver.stored >= revision, "the new history")
        await lab.until(lambda: len(lab.told[-1].snapshots) == 2, "its snapshot")
    await lab.restore(Wish(revision=revision), 1)
    assert {key: value[0] for key, value in (await etcd.state()).items()} == {"/a": "cinque"}
    assert len((await lab.contents()).generations) == 2


async def test_a_compaction_that_was_missed_begins_a_new_generation(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        await lab.stored(archiver, await etcd.put("/a", "1"))
        await lab.stored(archiver, await etcd.put("/a", "2"))
    for number in range(5):
        revision = await etcd.put("/a", f"later {number}")
    await etcd.call("kv/compaction", {"revision": str(revision - 1), "physical": True})
    async with lab.archiver() as archiver:
        revision = await etcd.put("/a", "last")
        await lab.until(lambda: archiver.stored >= revision, "the new generation")
        await lab.until(lambda: len(lab.told[-1].snapshots) == 2, "its snapshot")
    assert len((await lab.contents()).generations) == 2
    await lab.restore(Wish(revision=revision))
    assert (await etcd.state())["/a"][0] == "last"


async def test_every_snapshot_is_proven_and_the_way_between_two_is_compared(lab: Lab) -> None:
    etcd = lab.etcd
    schedule = Schedule(flush_seconds=0.05, snapshot_every=timedelta(seconds=1.5))
    async with lab.archiver(schedule) as archiver:

        def compared() -> bool:
            proofs = [one.proof for one in lab.told[-1].snapshots if one.proof is not None] if lab.told else []
            return sum(proof.compared for proof in proofs) >= 1

        for number in itertools.count():
            revision = await etcd.put(f"/registry/{number % 20}", f"value {number}")
            if number > 50 and compared():
                break
            await asyncio.sleep(0.01)
        await lab.stored(archiver, revision)

        async def together() -> bool:
            first, second, *_ = (await lab.contents()).snapshots
            wish = Wish(revision=(first.revision + second.revision) // 2)
            return len(stretch_for(await lab.contents(), wish).segments) == 1

        # The parts are put together after the proof is told.
        await wait_for(together, what="the parts to be put together", timeout=60, clock=CLOCK)
    proofs = [one.proof for one in lab.told[-1].snapshots if one.proof is not None]
    assert not any(proof.problem for proof in proofs)
    assert all(proof.seconds > 0 for proof in proofs)
    assert lab.told[-1].state is BackupState.CURRENT
    assert lab.told[-1].status.drill_seconds > 0
    # What lay between the two is one object now, and every state in it is there still.
    contents = await lab.contents()
    first = contents.snapshots[0]
    following = stretch_for(contents, Wish(revision=contents.snapshots[1].revision))
    assert following.snapshot == contents.snapshots[1]
    middle = (first.revision + contents.snapshots[1].revision) // 2
    assert len(stretch_for(contents, Wish(revision=middle)).segments) == 1
    await lab.restore(Wish(revision=middle))
    assert max(value[2] for value in (await etcd.state()).values()) == middle


async def test_leases_come_back_with_their_keys(lab: Lab) -> None:
    etcd = lab.etcd
    old = int((await etcd.call("lease/grant", {"TTL": "3600"}))["ID"])
    await etcd.put("/old", "x", old)
    async with lab.archiver() as archiver:
        await lab.stored(archiver, await etcd.revision())
        new = int((await etcd.call("lease/grant", {"TTL": "1200"}))["ID"])
        await etcd.put("/new", "y", new)
        revision = await etcd.put("/none", "z")
        await lab.stored(archiver, revision)
    await lab.restore(Wish(revision=revision))
    for lease, life, key in ((old, "3600", "/old"), (new, "1200", "/new")):
        found = await etcd.call("lease/timetolive", {"ID": str(lease), "keys": True})
        assert found["grantedTTL"] == life
        assert [base64.b64decode(entry).decode() for entry in found["keys"]] == [key]
    await etcd.call("lease/revoke", {"ID": str(new)})
    assert sorted(await etcd.state()) == ["/none", "/old"]


async def test_a_part_that_is_gone_or_damaged_is_an_error_and_the_cluster_stays_as_it_is(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        await lab.stored(archiver, await etcd.put("/a", "first"))
        for value in ("second", "third"):
            revision = await etcd.put("/a", value)
            await lab.stored(archiver, revision)
        await lab.proven()
    before = await etcd.state()
    paths = {path.name: path for path in lab.backups.rglob("*") if path.is_file()}
    last = max(name for name in paths if name.startswith("segment-"))
    shot = next(name for name in paths if name.startswith("snapshot-"))

    async def refused(code: type[HaneulError], wish: Wish) -> None:
        with pytest.raises(code):
            await placing.prepare(
                lab.replayer,
                lab.objects,
                wish,
                folder=etcd.folder,
                number=1,
                member=Member(),
                alteration=Alteration(),
            )
        assert await etcd.state() == before
        assert {path.name for path in etcd.folder.iterdir()} == {"member-data", "etcd.log"}

    for name, wish in ((last, Wish(revision=revision)), (shot, Wish(revision=revision))):
        content = paths[name].read_bytes()
        paths[name].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        await refused(BackupDamagedError, wish)
        paths[name].write_bytes(content[: len(content) // 2])
        await refused(BackupDamagedError, wish)
        paths[name].unlink()
        await refused(BackupIncompleteError, wish)
        paths[name].write_bytes(content)
    # One segment in the place of another.
    paths[last].write_bytes(paths[min(name for name in paths if name.startswith("segment-"))].read_bytes())
    await refused(BackupDamagedError, Wish(revision=revision))
    # The end is gone, and nobody asked for the revision but by a moment after it.
    paths[last].unlink()
    await refused(BackupIncompleteError, Wish(moment=datetime.now(UTC), least=revision))


@pytest.mark.parametrize("name", ["key-2", "first"], ids=["another-name", "the-same-name"])
async def test_secrets_that_another_key_sealed_are_sealed_anew(lab: Lab, name: str) -> None:
    # As Kubernetes writes them: k8s:enc:secretbox:v1:<key>:<nonce><box>, made with the key of 32 times 1.
    etcd = lab.etcd
    box = bytes.fromhex(SEALED)
    value = b"k8s:enc:secretbox:v1:first:" + box
    body = {"key": base64.b64encode(b"/registry/secrets/a/b").decode(), "value": base64.b64encode(value).decode()}
    await etcd.call("kv/put", body)
    async with lab.archiver() as archiver:
        revision = await etcd.put("/registry/plain", "stays")
        await lab.stored(archiver, revision)
    old, new = base64.b64encode(b"\1" * 32).decode(), base64.b64encode(b"\2" * 32).decode()
    await lab.objects.put_document("uid/facts", {**FACTS, "keys": {"first": old}})
    await lab.restore(Wish(revision=revision), 1, Alteration(seal=(name, new)))
    everything = base64.b64encode(b"\0").decode()
    found = (await etcd.call("kv/range", {"key": everything, "range_end": everything}))["kvs"]
    values = {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv["value"]) for kv in found}
    assert values["/registry/plain"] == b"stays"
    prefix = f"k8s:enc:secretbox:v1:{name}:".encode()
    sealed = values["/registry/secrets/a/b"]
    assert sealed.startswith(prefix)
    assert sealed != value
    assert sealed.removeprefix(prefix)[:24] != box[:24]
    await lab.objects.put_document("uid/facts", {**FACTS, "keys": {}})
    with pytest.raises(BackupDamagedError, match=r'encrypted with the key "first": the backup has no such key'):
        await lab.restore(Wish(revision=revision), 2, Alteration(seal=("key-2", new)))


#: A nonce of zeros, and "text" sealed with it.
SEALED = "000000000000000000000000000000000000000000000000de926556388e18bee7eee7028ceb54b7aa7e32af"


async def test_what_is_not_to_come_along_does_not(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        for key in ("/registry/minions/a", "/registry/minions/b", "/registry/minionsb", "/registry/pods/a"):
            revision = await etcd.put(key, "x")
        await lab.stored(archiver, revision)
    await lab.restore(Wish(revision=revision), 1, Alteration(remove=("/registry/minions/", "/registry/nothing/")))
    assert sorted(await etcd.state()) == ["/registry/minionsb", "/registry/pods/a"]


async def test_a_restore_goes_on_wherever_it_was_ended(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        revision = await etcd.put("/a", "wanted")
        await lab.stored(archiver, revision)
        await lab.stored(archiver, await etcd.put("/a", "later"))
    folder, member = etcd.folder, Member("etcd-0", etcd.peer_url, "t")

    async def prepared() -> Made | None:
        wish = Wish(revision=revision)
        return await placing.prepare(
            lab.replayer, lab.objects, wish, folder=folder, number=4, member=member, alteration=PLAIN
        )

    # Ended while preparing: what it left does not count.
    (folder / "restoring-4" / "member").mkdir(parents=True)
    assert await prepared() is not None
    # Ended before it could tell.
    assert await prepared() is None
    await etcd.kill()
    real = Path.rename
    for allowed in (0, 1, 1):
        left = iter(range(allowed))

        def dying(self: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(self, target)

        # Each time it comes one move further: the old data, the new data, the mark.
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "rename", dying)
            placing.place(folder, 4)
        names = {path.name for path in folder.iterdir()}
        assert "replaced-4" in names or "member-data" in names
    placing.place(folder, 4)
    placing.place(folder, 4)
    assert {path.name for path in folder.iterdir()} == {"etcd.log", "member-data", "replaced-4", "restored"}
    await etcd.start()
    assert (await etcd.state())["/a"][0] == "wanted"
    assert await prepared() is None
    placing.clear(folder)
    assert {path.name for path in folder.iterdir()} == {"etcd.log", "member-data", "restored"}


async def test_what_was_never_prepared_is_not_put_in_place(lab: Lab) -> None:
    with pytest.raises(BackupIncompleteError):
        placing.place(lab.etcd.folder, 3)
    assert lab.etcd.data.exists()


async def test_the_backup_holds_nothing_in_the_clear_and_is_the_owners_only(lab: Lab) -> None:
    async with lab.archiver() as archiver:
        await lab.stored(archiver, await lab.etcd.put("/registry/canary", "canary-value-in-the-clear"))
        await lab.stored(archiver, await lab.etcd.put("/registry/canary", "canary-value-in-the-clear"))
        await lab.proven()
    files = [path for path in lab.backups.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(b"canary" in path.read_bytes() or b"registry" in path.read_bytes() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in lab.backups.rglob("*") if path.is_dir()} == {0o700}
    assert list((lab.backups.parent / "scratch").iterdir()) == []


async def test_the_worker_says_that_it_is_behind_while_etcd_does_not_answer_and_catches_up(lab: Lab) -> None:
    etcd = lab.etcd
    async with lab.archiver() as archiver:
        await lab.stored(archiver, await etcd.put("/a", "1"))
        complete = lab.told[-1].complete_until
        await etcd.kill()
        await lab.until(lambda: lab.told[-1].state is BackupState.BEHIND, "the word that it is behind")
        assert "etcd" in lab.told[-1].message
        assert lab.told[-1].complete_until >= complete
        await etcd.start()
        revision = await etcd.put("/a", "2")
        await lab.stored(archiver, revision)
        await lab.until(lambda: lab.told[-1].state is BackupState.CURRENT, "the word that it is current")
    assert len((await lab.contents()).generations) <= 2
    assert json.loads(lab.told[-1].model_dump_json(by_alias=True))["revision"] == revision


async def test_old_parts_go_while_new_ones_come(lab: Lab) -> None:
    retention = Retention(every_state=timedelta(seconds=2), daily=timedelta(0))
    schedule = Schedule(flush_seconds=0.05, snapshot_every=timedelta(seconds=1.2), retention=retention)
    first: list[str] = []
    async with lab.archiver(schedule):
        for number in itertools.count():
            await lab.etcd.put("/a", str(number))
            found = [one.key for one in (await lab.contents()).snapshots]
            first = first or found[:1]
            if first and len(found) >= 2 and first[0] not in found:
                break
            await asyncio.sleep(0.02)
    revision = await lab.etcd.revision()
    contents = await lab.contents()
    assert stretch_for(contents, Wish(revision=contents.snapshots[-1].revision))
    assert revision >= contents.snapshots[-1].revision
