"""Where the platform's images lie: in the hub's files, or in the platform's object store, as somebody wants it.

What is wanted is a mark of the installation's; where images are, the hub's folder says. The object store runs while it
is wanted, and for as long as images are there.
"""

from __future__ import annotations

import contextlib

from haneul.app.platform_kage import PlatformKage
from haneul.kernel.errors import HaneulError
from haneul.kernel.progress import Progress, Stage
from haneul.management.image_hub import ImageHub
from haneul.management.settings import ManagementSettings


class HubContent:
    """The images of this host's hub."""

    def __init__(self, settings: ManagementSettings, hub: ImageHub, kage: PlatformKage) -> None:
        self._settings, self._hub, self._kage = settings, hub, kage

    @property
    def needs_store(self) -> bool:
        """Say whether the object store has to run, if only to have images fetched from there."""
        files = self._hub.files
        return self._settings.kage or files.in_bucket or files.being_moved

    async def settle(self, progress: Progress, *, platform: str) -> None:
        """Have the object store run where it is needed, and images where they are wanted; may be repeated.

        ``platform`` is where its API is: a hub whose images could not be moved serves them from where they are. Raises
        ConflictError then, and what the object store's start raises.
        """
        if self.needs_store:
            with progress.stage("start the object store", expected_seconds=20):
                await self._kage.start()
            # A hub that never ran has nothing.
            if self._hub.files.folder.exists():
                with progress.stage("see that images are where they belong", expected_seconds=3) as stage:
                    await self._move(stage, platform)
        if not self._settings.kage:
            await self._kage.end()

    async def _move(self, stage: Stage, platform: str) -> None:
        try:
            await self._hub.move_content(
                into_bucket=self._settings.kage, bucket=self._kage.bucket_file(), told=stage.note
            )
        except HaneulError:
            if self._settings.hub:
                # What stands in the way of the move is what is to be told.
                with contextlib.suppress(HaneulError):
                    await self._hub.start(platform=platform)
            raise
