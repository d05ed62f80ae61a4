"""The hub's images in the platform's object store: moved there and back, kept when a zone is lost, by no right of root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import yaml

from haneul.app.d2hub_moving import ContentMove
from haneul.app.hub_content import HubContent
from haneul.app.installation import component_store
from haneul.app.platform_kage import USER, PlatformKage, is_wanted, settings_on_host, want
from haneul.d2hub.adapters.object_copies import ObjectCopies
from haneul.d2hub.adapters.object_settings import ObjectSettings, read_object_settings
from haneul.kage.model import Ports
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError
from haneul.kernel.progress import SilentProgress
from haneul.kernel.waiting import wait_for
from haneul.management.image_hub import USER as HUB_USER
from haneul.management.image_hub import ImageHub
from tests.functional.d2hub.hub import Image, image, sha256
from tests.functional.management.test_image_hub import PLATFORM, POD, Running
from tests.ports import ports

CLOCK = SystemClock()
DEADLINE = 120.0
REPOSITORY = "shop/web"


class Site:
    """A hub and an object store under one supervisord, as `up` has them."""

    def __init__(self, folder: Path) -> None:
        self.hub = Running(folder, CLOCK.now())
        self.services, self.settings = self.hub.services, self.hub.settings
        self.store = settings_on_host(self.settings.state, ports=Ports(*ports(5)))
        components = component_store()
        self.kage = PlatformKage(
            self.store,
            services=self.services,
            command=lambda: components.python_command("swift", "swift_run.py"),
            logs=self.settings.logs,
            clock=CLOCK,
        )

    async def up(self, *, kage: bool) -> None:
        """Do what `up` does for the hub's content, and start the hub."""
        settings = replace(self.settings, kage=kage)
        hub = ImageHub(settings, services=self.services, clock=CLOCK)
        hub.prepare(self.hub.authority, self.hub.management.jwks()["keys"])
        self.hub.tell("shop", self.hub.shop.jwks()["keys"])
        content = HubContent(settings, hub, self.kage)
        assert content.needs_store or not kage
        await content.settle(SilentProgress(), platform=PLATFORM)
        await hub.start(platform=PLATFORM)
        await self.hub.until_answers()

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
            return len(await self.parts()) == 28

        await wait_for(all_run, what="every part of the store to run", timeout=DEADLINE, clock=CLOCK)
        return await self.parts()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("only root can let a program have another user and other mounts")
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


async def test_images_move_into_the_store_and_back_and_none_is_lost(site: Site) -> None:
    await site.up(kage=False)
    files = site.hub.hub.files
    first = site.push(b"pushed into files")
    assert (files.folder / "blobs").exists()

    await site.up(kage=True)
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

    await site.up(kage=False)
    assert not files.in_bucket
    assert await site.parts() == {}
    site.pull(first)
    site.pull(second)
