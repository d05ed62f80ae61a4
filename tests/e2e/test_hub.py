"""An image's way: a person pushes it to the platform's hub, a pod of their cluster runs it, and then it stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest

from haneul.app.installation import Installation
from haneul.cli.hub import HubClient, HubContext
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import PODS, KubeClient
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
STRANGERS = "strangers"
WORKLOAD = f"Pod/hello in namespace default of {PROJECT}/shop"


async def skopeo(*arguments: str, given: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        "skopeo",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate(given.encode())
    assert process.returncode == 0, said.decode()


def labelled(archive: Path, folder: Path) -> Path:
    """Unpack an image's archive (OCI image layout) with a label, so that it is another image than nodes have.

    A kubelet tells images apart by their configuration alone. One that somebody pulled with a credential is not there
    without asking for any more (KEP-2535), under whatever name: pods of later tests would not get agnhost.
    """
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")

    def read(descriptor: dict[str, Any]) -> dict[str, Any]:
        algorithm, _, encoded = descriptor["digest"].partition(":")
        document: dict[str, Any] = json.loads((folder / "blobs" / algorithm / encoded).read_bytes())
        return document

    def kept(descriptor: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps(document).encode()
        encoded = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / "sha256" / encoded).write_bytes(content)
        return {**descriptor, "digest": f"sha256:{encoded}", "size": len(content)}

    index = json.loads((folder / "index.json").read_bytes())
    (described,) = index["manifests"]
    manifest = read(described)
    configuration = read(manifest["config"])
    configuration.setdefault("config", {})["Labels"] = {"pushed": "by a test"}
    manifest["config"] = kept(manifest["config"], configuration)
    index["manifests"] = [kept(described, manifest)]
    (folder / "index.json").write_text(json.dumps(index))
    return folder


async def pushed(installation: Installation, folder: Path, *repositories: str) -> None:
    """Push an image as a person does, signed in with their token."""
    settings, store = installation.settings, installation.store
    certificates, passwords = folder / "certificates", folder / "auth.json"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(installation.platform.files.authority.read_bytes())
    hub = f"{settings.address}:{settings.hub_port}"
    trust = (f"--cert-dir={certificates}", f"--authfile={passwords}")
    token = installation.platform.files.admin_token.read_text()
    await skopeo("login", "--username=admin", "--password-stdin", *trust, hub, given=token)
    source = f"oci:{await asyncio.to_thread(labelled, store.image_archive('agnhost'), folder / 'image')}"
    for repository in repositories:
        target = f"docker://{hub}/{repository}:v1"
        options = (f"--dest-cert-dir={certificates}", f"--dest-authfile={passwords}")
        await skopeo("copy", "--quiet", *options, source, target)


async def pulled(installation: Installation, folder: Path, repository: str, into: str) -> None:
    """Pull an image as who pushed it, into a folder."""
    settings = installation.settings
    source = f"docker://{settings.address}:{settings.hub_port}/{repository}:v1"
    options = (f"--src-cert-dir={folder / 'certificates'}", f"--src-authfile={folder / 'auth.json'}")
    await skopeo("copy", "--quiet", *options, source, f"dir:{folder / into}")


def pod(name: str, image: str) -> dict[str, Any]:
    container = {"name": "main", "image": image, "args": ["pause"], "imagePullPolicy": "Always"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def state_of(kube: KubeClient, name: str) -> dict[str, Any]:
    """Return what a pod's container does or waits for."""
    found = await kube.get(PODS, name, "default") or {}
    (status,) = found.get("status", {}).get("containerStatuses") or [{}]
    state: dict[str, Any] = status.get("state", {})
    return state


async def test_a_pod_runs_what_its_project_pushed_and_the_hub_keeps_it(
    shop: str, installation: Installation, tmp_path: Path
) -> None:
    hub = installation.settings.hub_name
    await asyncio.to_thread(haneul, "project", "create", STRANGERS)
    await pushed(installation, tmp_path, f"{PROJECT}/hello", f"{STRANGERS}/hello")
    async with tenant(shop) as kube:
        await kube.create(PODS, pod("hello", f"{hub}/{PROJECT}/hello:v1"))
        await kube.create(PODS, pod("stranger", f"{hub}/{STRANGERS}/hello:v1"))
        try:

            async def runs() -> bool:
                return "running" in await state_of(kube, "hello")

            await wait_for(runs, what="the pod to run", timeout=120, clock=CLOCK)

            async def refused() -> bool:
                return "403 Forbidden" in (await state_of(kube, "stranger")).get("waiting", {}).get("message", "")

            await wait_for(refused, what="another project's image to be refused", timeout=120, clock=CLOCK)

            await until_kept(installation)
            seen = {state.name: state for state in await installation.services.states()}
            assert seen["hub"].pid is not None
            os.kill(seen["hub"].pid, signal.SIGKILL)
            # Started again, it knows what runs.
            await until_kept(installation)
        finally:
            for name in ("hello", "stranger"):
                await kube.delete(PODS, name, "default")


async def until_kept(installation: Installation) -> None:
    """Wait until the hub refuses to delete the image, because a workload of the cluster runs it."""
    settings, files = installation.settings, installation.platform.files
    context = HubContext(f"https://{settings.address}:{settings.hub_port}", "admin", files.authority)
    repository = f"{PROJECT}/hello"

    def look() -> bool:
        try:
            with HubClient(context, files.admin_token.read_text().strip()) as client:
                seen = client.get("image", scope=f"repository:{repository}:pull", repository=repository, reference="v1")
                if not seen["usedBy"]:
                    return False
                client.delete_manifest(repository, "v1")
        except HaneulError as error:
            return WORKLOAD in error.detail
        raise AssertionError(f"it was deleted, though there is {json.dumps(seen['usedBy'])}")

    async def kept() -> bool:
        return await asyncio.to_thread(look)

    await wait_for(kept, what=f"the hub to keep what {WORKLOAD} runs", timeout=120, clock=CLOCK)


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_images_move_into_the_object_store_and_back(
    shop: str, installation: Installation, tmp_path: Path
) -> None:
    repository = f"{PROJECT}/moved"
    await pushed(installation, tmp_path, repository)
    files = installation.platform.files.state / "hub"
    try:
        await asyncio.to_thread(haneul, "up", "--kage", timeout=900)
        assert (files / "store.id").exists()
        assert not (files / "blobs").exists()
        seen = {state.name: state for state in await installation.services.states()}
        parts = {name: state for name, state in seen.items() if name.startswith("kage-")}
        assert len(parts) == 28
        # A zone is lost, and people and pods pull all the same.
        for name, state in parts.items():
            if name.startswith("kage-zone1-"):
                assert state.pid is not None
                os.kill(state.pid, signal.SIGKILL)
        await pulled(installation, tmp_path, repository, "from-store")
        await until_runs(shop, "in-store", f"{installation.settings.hub_name}/{repository}:v1")

        async def all_run() -> bool:
            return all(state.running for state in await installation.services.states() if state.name in parts)

        await wait_for(all_run, what="the zone to be started again", timeout=120, clock=CLOCK)
        assert "kage-proxy-server" in (await asyncio.to_thread(haneul, "status", check=False)).stdout
    finally:
        await asyncio.to_thread(haneul, "up", "--no-kage", timeout=900)
    assert not (files / "store.id").exists()
    assert (files / "blobs").exists()
    assert not [state for state in await installation.services.states() if state.name.startswith("kage-")]
    await pulled(installation, tmp_path, repository, "from-files")
    await until_runs(shop, "in-files", f"{installation.settings.hub_name}/{repository}:v1")


async def until_runs(cluster: str, name: str, image: str) -> None:
    """Have a pod pull an image and run it, and remove the pod."""
    async with tenant(cluster) as kube:
        await kube.create(PODS, pod(name, image))
        try:

            async def runs() -> bool:
                return "running" in await state_of(kube, name)

            await wait_for(runs, what=f"the pod {name} to run", timeout=120, clock=CLOCK)
        finally:
            await kube.delete(PODS, name, "default")
