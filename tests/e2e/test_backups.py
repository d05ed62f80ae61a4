"""Backups of a real cluster: data destroyed on the disk and restored, a moment as a new cluster, a deletion undone."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from haneul.app.installation import Installation
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import CONFIG_MAPS, NODES, PODS, SECRETS, Manifest
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, cluster, happened, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK: Final = SystemClock()


def note(name: str, word: str) -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"word": word}}


def secret(name: str, word: str) -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"word": word}}


def backup(name: str) -> dict[str, Any]:
    shown = haneul("cluster", "backup", "list", name, "-p", PROJECT, "-o", "json", check=False)
    found: dict[str, Any] = json.loads(shown.stdout) if shown.returncode == 0 else {}
    return found


async def complete_after(name: str, moment: datetime) -> dict[str, Any]:
    """Return the backup once it has everything that was acknowledged before a moment, and a proven snapshot."""

    async def seen() -> dict[str, Any] | None:
        found = await asyncio.to_thread(backup, name)
        proofs = [one["proof"] for one in found.get("snapshots", [])]
        windows = found.get("windows", [])
        is_complete = bool(windows) and datetime.fromisoformat(windows[-1]["end"]) >= moment
        return found if is_complete and any(proofs) else None

    return await wait_for(seen, what=f"the backup of {name}", timeout=120, clock=CLOCK)


async def moment_after_all(name: str) -> tuple[datetime, dict[str, Any]]:
    """Return a moment that comes after everything so far, and the backup once that moment can be restored.

    A change's moment is the one at which the backup received it, a little after whoever made it was told.
    """
    await complete_after(name, datetime.now(UTC))
    moment = datetime.now(UTC)
    return moment, await complete_after(name, moment)


async def words(name: str) -> dict[str, str]:
    """Return the notes that a test made in a cluster."""
    async with tenant(name) as kube:
        return {
            one["metadata"]["name"]: one["data"]["word"]
            for one in await kube.list(CONFIG_MAPS, "default")
            if "word" in one.get("data", {})
        }


@pytest.fixture
async def shop(project: str) -> AsyncIterator[str]:
    name = "keeper"
    await asyncio.to_thread(haneul, "cluster", "create", name, "-p", project)
    try:
        yield name
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes", check=False)


async def test_destroyed_data_comes_back_in_place_and_a_moment_as_a_new_cluster(
    shop: str, project: str, installation: Installation
) -> None:
    async with tenant(shop) as kube:
        await kube.apply(CONFIG_MAPS, note("first", "before"))
        await kube.apply(SECRETS, secret("sealed", "opened again"))
    between, _ = await moment_after_all(shop)
    async with tenant(shop) as kube:
        await kube.apply(CONFIG_MAPS, note("first", "after"))
        await kube.apply(CONFIG_MAPS, note("second", "after"))
    late, found = await moment_after_all(shop)
    assert found["state"] == "Current"
    assert found["lagSeconds"] < 5
    assert found["snapshots"][0]["proof"]["seconds"] > 0
    assert not found["snapshots"][0]["proof"]["problem"]
    table = await asyncio.to_thread(haneul, "cluster", "backup", "list", shop, "-p", project)
    assert "RESTORED IN" in table.stdout
    assert "BACKUP" in (await asyncio.to_thread(haneul, "cluster", "get", shop, "-p", project)).stdout

    # Its etcd's data is destroyed while it runs.
    uid = cluster(shop)["uid"]
    await asyncio.to_thread(shutil.rmtree, installation.settings.clusters / uid / "etcd-0" / "member-data")
    await _end_etcd(installation, shop)
    restored = await asyncio.to_thread(
        haneul, "cluster", "restore", shop, "--to", late.isoformat(), "-p", project, "--yes", timeout=600
    )
    assert "the data was made in" in restored.stderr
    await wait_for(happened(shop, "Restored"), what="the end of the restore", timeout=120, clock=CLOCK)
    assert cluster(shop)["status"]["phase"] == "Ready"
    assert await words(shop) == {"first": "after", "second": "after"}
    async with tenant(shop) as kube:
        kept = await kube.get(SECRETS, "sealed", "default")
        assert kept is not None
        assert kept["data"] == {"word": "b3BlbmVkIGFnYWlu"}
        # The control plane works on what was restored: it makes a pod on the node that joined before.
        await _runs_a_pod(kube)
    left = sorted(path.name for path in (installation.settings.clusters / uid / "etcd-0").iterdir())
    assert left == ["member-data", "restored"]

    # The moment before, as a new cluster beside it.
    name = "keeper-before"
    try:
        made = await asyncio.to_thread(
            haneul,
            "cluster",
            "restore",
            shop,
            "--to",
            between.isoformat(),
            "--as",
            name,
            "-p",
            project,
            timeout=600,
        )
        assert name in made.stdout
        assert await words(name) == {"first": "before"}
        old, new = cluster(shop), cluster(name)
        assert old["spec"]["network"]["services"] == new["spec"]["network"]["services"]
        async with tenant(name) as kube:
            nodes = {node["metadata"]["name"]: node for node in await kube.list(NODES)}
            assert list(nodes) == ["default-0"]
            kept = await kube.get(SECRETS, "sealed", "default")
            assert kept is not None
            assert kept["data"] == {"word": "b3BlbmVkIGFnYWlu"}
            await _runs_a_pod(kube)
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes", check=False)


@pytest.mark.long
async def test_deletion_is_undone_and_a_sleeping_cluster_is_not_restored(project: str) -> None:
    name = "mistake"
    await asyncio.to_thread(haneul, "cluster", "create", name, "-p", project)
    try:
        async with tenant(name) as kube:
            await kube.apply(CONFIG_MAPS, note("kept", "still here"))
        await complete_after(name, datetime.now(UTC))
        await asyncio.to_thread(haneul, "cluster", "hibernate", name, "-p", project)
        refused = await asyncio.to_thread(haneul, "cluster", "restore", name, "-p", project, "--yes", check=False)
        assert refused.returncode == 5
        assert "sleeps" in refused.stderr
        await asyncio.to_thread(haneul, "cluster", "wake", name, "-p", project)
        uid = cluster(name)["uid"]
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes")

        async def listed() -> bool:
            shown = await asyncio.to_thread(
                haneul, "cluster", "backup", "list", "--deleted", "-p", project, "-o", "json"
            )
            return any(entry["uid"] == uid and entry["expires"] for entry in json.loads(shown.stdout))

        await wait_for(listed, what="the deleted cluster's backup in the list", timeout=90, clock=CLOCK)
        await asyncio.to_thread(haneul, "cluster", "restore", name, "--as", name, "-p", project, timeout=600)
        assert await words(name) == {"kept": "still here"}
        assert cluster(name)["uid"] != uid
    finally:
        await asyncio.to_thread(haneul, "cluster", "delete", name, "-p", project, "--yes", check=False)


async def _end_etcd(installation: Installation, name: str) -> None:
    """End etcd's pod, so that its next process finds what is left on the disk."""
    namespace = f"cluster-{PROJECT}-{name}"
    async with installation.lifecycle.client() as client:
        before = await client.get(PODS, "etcd-0", namespace)
        assert before is not None
        await client.delete(PODS, "etcd-0", namespace, grace=0)

        async def another() -> bool:
            now = await client.get(PODS, "etcd-0", namespace)
            return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

        await wait_for(another, what="another pod of etcd", timeout=60, clock=CLOCK)


async def _runs_a_pod(kube: Any) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alive", "namespace": "default"},
        "spec": {"containers": [{"name": "pause", "image": "haneul.local/pause:v1.0.0"}]},
    }

    async def made() -> bool:
        # The account that pods run as may still be being made.
        try:
            await kube.apply(PODS, pod)
        except HaneulError:
            return False
        return True

    await wait_for(made, what="the pod to be accepted", timeout=60, clock=CLOCK)

    async def running() -> bool:
        found = await kube.get(PODS, "alive", "default")
        return bool(found and found.get("status", {}).get("phase") == "Running")

    await wait_for(running, what="a pod on restored data to run", timeout=120, clock=CLOCK)
