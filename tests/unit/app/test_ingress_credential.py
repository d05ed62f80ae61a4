"""The worker of ingress begins anew when its credential for the management cluster is another one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from haneul.app.ingress_worker import tell_of_another
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube_http import access_from_kubeconfig
from haneul.kernel.kubeconfig import client_kubeconfig
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


class SteppedClock(VirtualClock):
    """A clock at which something is done at each look."""

    def __init__(self, *steps: bytes, file: Path) -> None:
        super().__init__(NOW)
        self.steps = list(steps)
        self.file = file
        self.looks = 0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.looks += 1
        self.file.write_bytes(self.steps.pop(0))


async def test_another_credential_is_told_of_and_no_half_written_or_rewritten_one(tmp_path: Path) -> None:
    authority = issue_authority("kubernetes", now=NOW)
    first, second = (
        client_kubeconfig("https://192.0.2.2:6443", authority.certificate, issue_leaf(authority, profile, now=NOW))
        for profile in [LeafProfile("haneul:host:ingress", client=True)] * 2
    )
    file = tmp_path / "ingress.conf"
    file.write_bytes(first)
    access, told = access_from_kubeconfig(file), asyncio.Event()
    clock = SteppedClock(first, b"", first, second, file=file)
    async with asyncio.timeout(60):
        await tell_of_another(file, access, told, clock=clock)
    assert told.is_set()
    assert clock.looks == 4
