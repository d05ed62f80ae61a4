"""The key of the management cluster's Secrets, and Secrets that are older than it."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ConflictError, DeadlineExceededError
from haneul.kernel.kube import PODS, SECRETS, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.management import kubeadm, reports
from haneul.management.secrets_at_rest import encrypt_older_secrets, ensure_key
from haneul.management.settings import ManagementSettings

CLOCK = VirtualClock(datetime(2026, 11, 24, tzinfo=UTC))


@pytest.fixture
def settings(tmp_path: Path) -> ManagementSettings:
    return ManagementSettings(address="192.0.2.2", host_name="node-1", state=tmp_path)


@pytest.fixture
async def kube() -> AsyncIterator[MemoryKubeClient]:
    async with MemoryKubeClient(clock=CLOCK) as client:
        for name in ("first", "second"):
            metadata = {"name": name, "namespace": "default"}
            await client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
        yield client


def api_server(*arguments: str) -> Manifest:
    metadata = {"name": "kube-apiserver-node-1", "namespace": "kube-system"}
    containers = [{"name": "kube-apiserver", "image": "i", "command": ["kube-apiserver", *arguments]}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}


def zeros(count: int) -> bytes:
    return bytes(count)


async def versions(kube: MemoryKubeClient) -> list[str]:
    return [secret["metadata"]["resourceVersion"] for secret in await kube.list(SECRETS)]


def test_the_key_is_made_once_and_only_root_reads_it(settings: ManagementSettings) -> None:
    ensure_key(settings, zeros)
    made = settings.encryption.read_text()
    assert settings.encryption.stat().st_mode & 0o777 == 0o600
    (rule,) = yaml.safe_load(made)["resources"]
    assert rule["resources"] == ["secrets"]
    assert list(rule["providers"][0]) == ["secretbox"]
    assert len(base64.b64decode(rule["providers"][0]["secretbox"]["keys"][0]["secret"])) == 32
    ensure_key(settings, lambda count: b"x" * count)
    assert settings.encryption.read_text() == made


def test_a_lost_key_is_not_replaced_by_one_that_reads_nothing(settings: ManagementSettings) -> None:
    ensure_key(settings, zeros)
    (settings.state / "etcd").mkdir()
    settings.encryption.unlink()
    with pytest.raises(ConflictError, match="is lost") as caught:
        ensure_key(settings, zeros)
    assert caught.value.hint
    assert not settings.encryption.exists()


def test_the_api_server_is_told_where_the_key_is(settings: ManagementSettings) -> None:
    _, cluster, _ = yaml.safe_load_all(kubeadm.configuration(settings, kubernetes="1.37.2", etcd="3.7.0"))
    server = cluster["apiServer"]
    assert {"name": "encryption-provider-config", "value": str(settings.encryption)} in server["extraArgs"]
    (volume,) = (entry for entry in server["extraVolumes"] if entry["name"] == "encryption")
    assert volume["hostPath"] == volume["mountPath"] == str(settings.encryption)
    assert volume["readOnly"] is True


async def test_on_a_fresh_host_nothing_is_written_again(settings: ManagementSettings, kube: MemoryKubeClient) -> None:
    ensure_key(settings, zeros)
    before = await versions(kube)
    await encrypt_older_secrets(settings, kube, clock=CLOCK)
    assert await versions(kube) == before


async def test_secrets_from_before_the_key_are_written_again_once(settings: ManagementSettings) -> None:
    (settings.state / "etcd").mkdir()
    ensure_key(settings, zeros)
    kube = _Counting(clock=CLOCK)
    for name in ("first", "second"):
        metadata = {"name": name, "namespace": "default"}
        await kube.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    await kube.create(PODS, api_server(f"--encryption-provider-config={settings.encryption}"))
    await encrypt_older_secrets(settings, kube, clock=CLOCK)
    assert kube.written == ["default/first", "default/second"]
    await encrypt_older_secrets(settings, kube, clock=CLOCK)
    assert len(kube.written) == 2


async def test_nothing_is_written_by_an_api_server_without_the_key(
    settings: ManagementSettings, kube: MemoryKubeClient
) -> None:
    """The kubelet has not replaced it yet; written by it, Secrets would stay in the clear and pass for encrypted."""
    (settings.state / "etcd").mkdir()
    ensure_key(settings, zeros)
    await kube.create(PODS, api_server())
    before = await versions(kube)
    with pytest.raises(DeadlineExceededError):
        await encrypt_older_secrets(settings, kube, clock=CLOCK)
    assert await versions(kube) == before
    assert not (settings.state / "secrets-encrypted").exists()


def test_a_static_pod_is_replaced_when_its_mirror_says_what_its_manifest_says() -> None:
    wanted = api_server("--new")
    assert reports.replaced(api_server("--new"), wanted)
    assert not reports.replaced(api_server("--old"), wanted)
    assert reports.replaced(None, wanted)


class _Counting(MemoryKubeClient):
    """Notes which Secrets are written to: a write that changes nothing leaves no other trace in memory."""

    written: list[str]

    def __init__(self, *, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.written = []

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        """Note the write, then do it."""
        if resource is SECRETS:
            assert patch == {}
            self.written.append(f"{namespace}/{name}")
        return await super().patch(resource, name, patch, namespace, subresource=subresource)
