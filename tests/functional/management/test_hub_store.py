"""The hub's images in the platform's object store: moved there and back, served when a zone is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from filelock import FileLock, Timeout

from haneul.app.d2hub_database import migrated
from haneul.app.d2hub_folder import in_use
from haneul.app.d2hub_moving import ContentMove
from haneul.app.hub_content import HubContent
from haneul.app.installation import component_store
from haneul.app.platform_kage import USER, PlatformKage, is_wanted, settings_on_host, want
from haneul.d2hub.adapters.file_blobs import FileBlobs
from haneul.d2hub.adapters.object_blobs import ObjectBlobs
from haneul.d2hub.adapters.object_copies import ObjectCopies
from haneul.d2hub.adapters.object_settings import read_object_settings
from haneul.kage.adapters.swift_http import SwiftHttp
from haneul.kage.model import Ports, Secrets
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import CommandFailedError, ConflictError
from haneul.kernel.listening import listens
from haneul.kernel.process import run
from haneul.kernel.progress import Progress, SilentProgress, Stage
from haneul.kernel.waiting import wait_for
from haneul.management import loopback_guard
from haneul.management.image_hub import USER as HUB_USER
from haneul.management.image_hub import ImageHub
from tests.functional.d2hub.hub import Image, image, sha256
from tests.functional.management.test_image_hub import PLATFORM, POD, Running
from tests.ports import ports

CLOCK = SystemClock()
DEADLINE = 120.0
REPOSITORY = "shop/web"
#: A table of nft(8), with the process whose it is.
GUARD = f"{loopback_guard.TABLE}_of_"
#: Nine of each zone's, and the API.
PARTS = 28


class Site:
    """A hub and an object store under one supervisord, as `up` has them."""

    def __init__(self, folder: Path) -> None:
        self.hub = Running(folder, CLOCK.now())
        self.services, self.settings = self.hub.services, self.hub.settings
        self.store = settings_on_host(self.settings.state, ports=Ports(*ports(5)))
        # One of its own, for it is of the whole machine.
        self.guard = f"{GUARD}{os.getpid()}"
        components = component_store()
        self.kage = PlatformKage(
            self.store,
            services=self.services,
            command=lambda: components.python_command("swift", "swift_run.py"),
            logs=self.settings.logs,
            clock=CLOCK,
            guard=self.guard,
        )

    async def up(self, *, kage: bool, progress: Progress | None = None) -> None:
        """Do what `up` does for the hub's content, and start the hub."""
        settings = replace(self.settings, kage=kage)
        hub = ImageHub(settings, services=self.services, clock=CLOCK)
        hub.prepare(self.hub.authority, self.hub.management.jwks()["keys"])
        self.hub.tell("shop", self.hub.shop.jwks()["keys"])
        content = HubContent(settings, hub, self.kage)
        assert content.needs_store or not kage
        await content.settle(progress or SilentProgress(), platform=PLATFORM)
        await hub.start(platform=PLATFORM)
        await self.hub.until_answers()

    async def on(self) -> None:
        """Have images in the store and all of it run, as it is after most tests."""
        if not self.hub.hub.files.in_bucket or len(await self.parts()) != PARTS:
            await self.up(kage=True)

    def push(self, layer: bytes) -> Image:
        made = image(layer)
        self.hub.push(made, REPOSITORY)
        return made

    def pull(self, made: Image) -> None:
        """Pull an image's content as a pod of the project does."""
        token = self.hub.shop.token(sub=POD, aud=[self.settings.hub_name])
        with self.hub.http() as http:
            asked = {"service": "d2hub", "scope": f"repository:{REPOSITORY}:pull"}
            given = http.get("/token", params=asked, auth=("oidc", token)).raise_for_status()
            header = {"Authorization": f"Bearer {given.json()['token']}"}
            for blob in (made.config, *made.layers):
                answer = http.get(f"/v2/{REPOSITORY}/blobs/{sha256(blob)}", headers=header)
                # Nobody else reaches loopback of this host: the hub sends all by itself.
                assert (answer.status_code, answer.content) == (200, blob)

    async def parts(self, prefix: str = "kage-") -> dict[str, int]:
        """Return the store's services that run, with their processes."""
        states = await self.services.states()
        return {state.name: state.pid or 0 for state in states if state.running and state.name.startswith(prefix)}

    async def until_all_run(self) -> dict[str, int]:
        async def all_run() -> bool:
            return len(await self.parts()) == PARTS

        await wait_for(all_run, what="every part of the store to run", timeout=DEADLINE, clock=CLOCK)
        return await self.parts()


class Look:
    """Looks at whether somebody may renew the hub, each time that something is told."""

    def __init__(self, lock: Path) -> None:
        self._lock, self.locked = FileLock(lock), list[bool]()

    @contextlib.contextmanager
    def stage(self, title: str, *, expected_seconds: float | None = None) -> Iterator[Stage]:
        yield self

    def note(self, text: str) -> None:
        try:
            with self._lock.acquire(timeout=0):
                self.locked.append(False)
        except Timeout:
            self.locked.append(True)


async def clear_abandoned_guards() -> None:
    """Remove the guards of runs that were killed, which would refuse their ports for good."""
    if shutil.which("nft") is None:
        return
    listed = await run(["nft", "list", "tables", "ip"], timeout=DEADLINE)
    for process in re.findall(rf"^table ip {GUARD}(\d+)$", listed.stdout, re.MULTILINE):
        if not Path(f"/proc/{process}").exists():
            # Another run may clear it at the same moment.
            with suppress(CommandFailedError):
                await loopback_guard.remove(f"{GUARD}{process}")


async def test_guards_of_runs_that_were_killed_are_cleared_and_no_others(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        pytest.skip("only root guards ports, with nft")
    # No process has a number so large (proc(5), pid_max).
    gone, ours = f"{GUARD}{(1 << 22) + 1}", f"{GUARD}1"
    try:
        for table in (gone, ours):
            await loopback_guard.ensure(tmp_path / "guard.nft", "127.0.1.255", [9], user=0, table=table)
        await clear_abandoned_guards()
        assert await loopback_guard.remains(gone) == []
        assert await loopback_guard.remains(ours) != []
    finally:
        for table in (gone, ours):
            await loopback_guard.remove(table)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("only root can let a program have another user and other mounts")
    asyncio.run(clear_abandoned_guards())
    asyncio.run(component_store().build(["swift"], SilentProgress()))
    # The path of a socket in it has at most 107 characters (unix(7)).
    with tempfile.TemporaryDirectory(prefix="hub-") as made:
        Path(made).chmod(0o755)
        found = Site(Path(made))
        found.settings.state.mkdir(mode=0o700)
        try:
            asyncio.run(found.up(kage=False))
            yield found
        finally:
            asyncio.run(found.services.shut_down())
            asyncio.run(loopback_guard.remove(found.guard))


async def test_images_move_into_the_store_and_none_is_lost(site: Site) -> None:
    await site.up(kage=False)
    files = site.hub.hub.files
    first = site.push(b"pushed into files")
    assert (files.folder / "blobs").exists()

    look = Look(files.lock)
    await site.up(kage=True, progress=look)
    assert look.locked
    assert all(look.locked)
    look.note("it is over")
    assert not look.locked[-1]
    assert files.in_bucket
    assert not files.being_moved
    assert not (files.folder / "blobs").exists()
    site.pull(first)
    second = site.push(b"pushed into the store" * 100_000)
    site.pull(second)
    before = await site.until_all_run()
    # Who does it again changes nothing.
    await site.up(kage=True)
    assert await site.parts() == before


async def test_a_zone_is_killed_and_pushes_and_pulls_go_on(site: Site) -> None:
    await site.on()
    before = await site.until_all_run()
    made = [site.push(b"before")]
    killed = await site.parts("kage-zone1-")
    assert len(killed) == 9
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    site.pull(made[0])
    made.append(site.push(b"meanwhile"))
    site.pull(made[1])

    async def back() -> bool:
        now = await site.parts()
        return now.keys() == before.keys() and all(now[name] != pid for name, pid in killed.items())

    await wait_for(back, what="the zone to be started again", timeout=DEADLINE, clock=CLOCK)

    # And for longer than its start takes.
    away = await site.parts("kage-zone2-")
    for name in away:
        await site.services.stop(name)
    made.append(site.push(b"without a zone"))
    for one in made:
        site.pull(one)
    await site.up(kage=True)
    await site.until_all_run()


async def test_its_api_is_killed_and_comes_back(site: Site) -> None:
    await site.on()
    made = site.push(b"before the API was killed")
    before = (await site.until_all_run())["kage-proxy-server"]
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        return (await site.parts()).get("kage-proxy-server", before) != before

    await wait_for(back, what="the store's API to be started again", timeout=DEADLINE, clock=CLOCK)
    # Waits for it until it listens, and starts nothing anew.
    await site.up(kage=True)
    site.pull(made)


async def test_its_parts_keep_nothing_of_root_s_and_secrets_are_theirs_who_need_them(site: Site) -> None:
    await site.on()
    files = site.hub.hub.files
    for name, pid in (await site.until_all_run()).items():
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4, name
        assert (status["CapEff"], status["CapPrm"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1"), name
        seen = process / "root" / site.settings.state.relative_to("/")
        assert {entry.name for entry in seen.iterdir()} == {"kage"}, name

    def kept(path: Path) -> tuple[int, str]:
        seen = path.stat()
        return seen.st_uid, oct(seen.st_mode & 0o777)

    assert kept(site.store.folder / "secrets.yaml") == (0, "0o600")
    assert kept(site.store.etc / "proxy-server.conf") == kept(site.store.etc / "swift.conf") == (USER, "0o600")
    assert kept(site.store.zone_folder(1)) == (USER, "0o700")
    assert kept(files.store) == (HUB_USER, "0o600")
    secrets = [value.encode() for value in yaml.safe_load((site.store.folder / "secrets.yaml").read_text()).values()]
    assert len(secrets) == 3
    told = [path.read_bytes() for path in (*site.settings.logs.iterdir(), *site.settings.state.glob("services/*"))]
    for pid in [*(await site.parts("")).values()]:
        told += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    assert len(told) > 100
    assert not [text for text in told if any(secret in text for secret in secrets)]


async def test_only_its_parts_and_root_reach_its_servers(site: Site) -> None:
    await site.on()
    servers = [("127.0.1.1", site.store.ports.object), ("127.0.1.3", site.store.ports.rsync)]
    api = (site.store.address, site.store.ports.proxy)

    async def reached(user: int) -> list[int]:
        """Return the ports at which a user of this host gets a connection."""
        program = "import json, socket, sys\n" + (
            "def reached(where):\n"
            "    with socket.socket() as found:\n"
            "        found.settimeout(60)\n"
            "        return not found.connect_ex(tuple(where))\n"
            "print(*(port for host, port in json.loads(sys.argv[1]) if reached((host, port))))\n"
        )
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "/usr/bin/python3", "-c", program)
        completed = await run([*become, json.dumps([*servers, api])], timeout=DEADLINE)
        return [int(word) for word in completed.stdout.split()]

    everything = [port for _, port in (*servers, api)]
    assert await reached(USER) == await reached(0) == everything
    assert await reached(HUB_USER) == await reached(1_900_000_001) == [api[1]]
    assert await loopback_guard.remains(site.guard) == [f"nft table ip {site.guard}"]


async def test_no_part_begins_without_the_rules_that_guard_it(site: Site) -> None:
    await site.on()
    name, rules = "kage-zone1-object-server", site.store.folder / "guard.nft"
    before = (await site.until_all_run())[name]
    assert (rules.stat().st_uid, rules.parent.stat().st_uid) == (0, 0)
    aside = rules.rename(rules.with_name("aside"))
    try:
        # As after a restart of the machine.
        await loopback_guard.remove(site.guard)
        os.kill(before, signal.SIGKILL)

        async def refused() -> bool:
            return "cannot be brought about" in (site.settings.logs / f"{name}.log").read_text()

        await wait_for(refused, what="the part to give up", timeout=DEADLINE, clock=CLOCK)
        assert not await listens(site.store.zone_address(1), site.store.ports.object, seconds=DEADLINE)
    finally:
        aside.rename(rules)

    async def listening() -> bool:
        return await listens(site.store.zone_address(1), site.store.ports.object, seconds=DEADLINE)

    await wait_for(listening, what="the part to serve", timeout=DEADLINE, clock=CLOCK)
    # Nobody else has brought them about.
    assert await loopback_guard.remains(site.guard) == [f"nft table ip {site.guard}"]


async def test_what_says_where_objects_are_is_not_made_anew(site: Site) -> None:
    await site.on()
    for name in ("secrets.yaml", "etc/object.ring.gz"):
        path = site.store.folder / name
        aside = path.rename(path.with_name("aside"))
        try:
            with pytest.raises(ConflictError, match=f"{path.name} is gone"):
                await site.kage.start()
        finally:
            aside.rename(path)
    await site.kage.start()


class Content:
    """Content of a hub that does not run, and a bucket of the site's store."""

    def __init__(self, site: Site, data: Path, bucket: str) -> None:
        self.site, self.data = site, data
        self.settings = read_object_settings(site.hub.hub.files.store).model_copy(update={"bucket": bucket})
        self.copies = ObjectCopies(self.settings)
        self.told: list[str] = []
        self.ends_at = 0

    async def made(self, *contents: bytes) -> Content:
        """Have these in files, and a database that knows of them."""
        secret = self.settings.secret_access_key.get_secret_value()
        await SwiftHttp(self.site.store).make_bucket(self.settings.bucket, Secrets(secret, "", ""))
        self.data.mkdir()
        await migrated(f"sqlite+aiosqlite:///{self.data}/hub.db")
        blobs = FileBlobs(self.data)
        try:
            for content in contents:
                upload = await blobs.begin("shop/web")
                await blobs.append("shop/web", upload, one(content))
                stored = await blobs.finish("shop/web", upload, sha256(content))
                self.knows(stored.key, stored.size)
        finally:
            blobs.close()
        return self

    def knows(self, key: str, size: int) -> None:
        with closing(sqlite3.connect(self.data / "hub.db")) as connection, connection:
            connection.execute("INSERT INTO blobs VALUES (?, ?, ?, '2026-01-01')", (f"sha256:{key}", key, size))

    def move(self, *, ends_at: int = 0) -> ContentMove:
        """Return a move, which ends as if killed when it tells of a blob for this time."""
        self.told, self.ends_at = [], ends_at
        return ContentMove(self.data, self.settings, copies=1, told=self._tell)

    def files(self) -> dict[str, bytes]:
        folder = self.data / "blobs"
        paths = (path for path in folder.glob("*/*/*") if not path.name.startswith("."))
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    @property
    def in_bucket(self) -> bool:
        return (self.data / "store.id").exists()

    def _tell(self, text: str) -> None:
        self.told.append(text)
        if len(self.told) == self.ends_at:
            raise KeyboardInterrupt


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_move_that_was_killed_loses_nothing_and_is_finished_by_the_next(site: Site, tmp_path: Path) -> None:
    await site.on()
    # The largest is sent in parts, and read in ranges.
    content = await Content(site, tmp_path / "data", "moves").made(b"", b"one", b"two", bytes((16 << 20) + 5))
    before = content.files()
    sizes = {key: len(data) for key, data in before.items()}
    with pytest.raises(KeyboardInterrupt):
        await content.move(ends_at=3).into_bucket()
    assert content.told[0] == "0 of 4 blobs, 0 of 16 MiB"
    assert not content.in_bucket
    assert content.files() == before
    assert len(await content.copies.sizes()) == 2
    shutil.copytree(content.data / "blobs", tmp_path / "blobs")
    await content.move().into_bucket()
    # What is there is not sent again.
    assert len(content.told) == 2
    assert content.in_bucket
    assert content.files() == {}
    assert await content.copies.sizes() == sizes

    # Killed after the bucket counts, before files are removed.
    shutil.copytree(tmp_path / "blobs", content.data / "blobs")
    (content.data / "store.moving").touch()
    await content.move().into_bucket()
    assert content.files() == {}
    assert content.told == []

    # On its way back; then somebody changes their mind, and again.
    with pytest.raises(KeyboardInterrupt):
        await content.move(ends_at=3).into_files()
    assert content.in_bucket
    assert len(content.files()) == 2
    await content.move().into_bucket()
    assert await content.copies.sizes() == sizes
    assert content.files() == {}
    await content.move().into_files()
    assert not content.in_bucket
    assert content.files() == before
    assert await content.copies.sizes() == {}

    # Killed after files count, before the bucket is emptied.
    for key in before:
        await content.copies.put(key, content.data / "blobs" / key)
    (content.data / "store.moving").touch()
    await content.move().into_files()
    assert content.files() == before
    assert await content.copies.sizes() == {}
    assert not (content.data / "store.moving").exists()


async def test_a_list_that_is_late_loses_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.on()
    content = await Content(site, tmp_path / "data", "late").made(b"one", b"two", b"")
    before = content.files()
    await content.move().into_bucket()
    shown = await content.copies.sizes()
    assert shown.keys() == before.keys()
    # What nobody knows, and is there; and what only a list shows.
    (stray,) = (await Content(site, tmp_path / "stray", "stray").made(b"nobody's")).files()
    await content.copies.put(stray, tmp_path / "stray" / "blobs" / stray)
    ghost = f"sha256/00/{'0' * 64}.ghost"

    async def late(_: ObjectCopies) -> dict[str, int]:
        return {**shown, stray: 8, ghost: 7}

    with monkeypatch.context() as patched:
        patched.setattr(ObjectCopies, "sizes", late)
        await content.move().into_files()
        assert content.files() == {**before, stray: b"nobody's"}
        assert await content.copies.sizes_of([*before, stray, ghost]) == {}
        # All was removed, is still listed, and goes into the bucket again.
        await content.move().into_bucket()
        assert content.files() == {}
    sizes = {key: len(data) for key, data in before.items()}
    assert await content.copies.sizes_of([*before, ghost]) == sizes
    await content.move().into_files()
    assert content.files() == {**before, stray: b"nobody's"}


async def test_what_goes_while_it_is_moved_is_missed_only_if_it_is_known(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.on()
    content = await Content(site, tmp_path / "data", "going").made(b"one", b"two")
    before = content.files()
    await content.move().into_bucket()
    known = sorted(before)[0]
    ghost = f"sha256/00/{'0' * 64}.ghost"
    sizes_of = ObjectCopies.sizes_of
    gone = {ghost}

    async def stale(copies: ObjectCopies, keys: Iterable[str]) -> dict[str, int]:
        """Answer of one of the store's zones, which does not know yet of what was removed."""
        wanted = list(keys)
        return await sizes_of(copies, wanted) | {key: 3 for key in wanted if key in gone}

    async def late(_: ObjectCopies) -> dict[str, int]:
        return dict.fromkeys((*before, ghost), 3)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectCopies, "sizes", late)
        # The database knows it, and only a list shows it.
        await removed(content, known)
        with pytest.raises(ConflictError, match=known.rpartition("/")[2]):
            await content.move().into_files()
        assert content.in_bucket
        assert content.files() == {}
        # It is there when it is asked for, and not when it is fetched.
        patched.setattr(ObjectCopies, "sizes_of", stale)
        gone.add(known)
        with pytest.raises(ConflictError, match=known.rpartition("/")[2]):
            await content.move().into_files()
        assert content.in_bucket
        gone.remove(known)
        (tmp_path / "again").write_bytes(before[known])
        await content.copies.put(known, tmp_path / "again")
        await content.move().into_files()
    assert not content.in_bucket
    assert content.files() == before
    assert not list((content.data / "blobs").glob("*/*/.*"))


async def removed(content: Content, key: str) -> None:
    """Remove an object from a bucket."""
    store = ObjectBlobs(content.data, content.settings, redirects=False)
    try:
        await store.remove([key])
    finally:
        store.close()


async def test_what_is_not_to_be_had_ends_a_move_before_anything_changes(site: Site, tmp_path: Path) -> None:
    await site.on()
    content = await Content(site, tmp_path / "data", "wanting").made(b"one")
    other = await Content(site, tmp_path / "other", "wanting").made(b"other")
    before = other.files()
    await content.move().into_bucket()
    with pytest.raises(ConflictError, match="another hub's"):
        await other.move().into_bucket()
    assert other.files() == before

    known = await content.copies.sizes()
    content.knows("sha256/00/00.gone", 3)
    with pytest.raises(ConflictError, match=r"sha256/00/00\.gone"):
        await content.move().into_files()
    assert content.in_bucket
    assert await content.copies.sizes() == known
    # While a hub serves the folder nobody moves anything.
    with in_use(content.data, shared=False), pytest.raises(ConflictError, match="serves"):
        await content.move().into_files()


async def test_a_hub_whose_images_cannot_be_moved_serves_them_from_where_they_are(site: Site) -> None:
    await site.on()
    made = site.push(b"stays where it is")
    with closing(sqlite3.connect(site.hub.hub.files.folder / "hub.db")) as connection, connection:
        connection.execute("INSERT INTO blobs VALUES ('sha256:gone', 'sha256/00/00.gone', 3, '2026-01-01')")
    try:
        with pytest.raises(ConflictError, match=r"sha256/00/00\.gone") as refused:
            await site.up(kage=False)
    finally:
        with closing(sqlite3.connect(site.hub.hub.files.folder / "hub.db")) as connection, connection:
            connection.execute("DELETE FROM blobs WHERE key = 'sha256/00/00.gone'")
    assert "haneul up" in refused.value.hint
    await site.hub.until_answers()
    site.pull(made)


async def test_images_move_back_into_files_and_the_store_ends(site: Site) -> None:
    await site.on()
    made = site.push(b"goes back")
    await site.up(kage=False)
    files = site.hub.hub.files
    assert not files.in_bucket
    assert not files.being_moved
    assert await site.parts() == {}
    assert await loopback_guard.remains(site.guard) == []
    site.pull(made)
    # What the store had is there if it is turned on again.
    assert site.store.zone_folder(1).exists()


def test_the_store_is_off_until_somebody_turns_it_on(tmp_path: Path) -> None:
    assert not is_wanted(tmp_path)
    want(tmp_path, wanted=True)
    assert is_wanted(tmp_path)
    want(tmp_path, wanted=False)
    assert not is_wanted(tmp_path)
