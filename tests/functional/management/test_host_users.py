"""Programs of the host at a real API server: each does all its work as a user of its own, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from haneul.app.host_rights import host_rights, ingress_rules
from haneul.app.ingress_worker import Ground, IngressWork, serve_clusters
from haneul.app.platform import PlatformAuthority, PlatformFiles
from haneul.app.platform_trail import ClusterTrails
from haneul.dkos.adapters.kube_readers import KubeRecords
from haneul.dkos.address_claims import given_address
from haneul.dkos.cluster_record import ClusterRecord, Standing, secret_of
from haneul.dkos.readers import INGRESS
from haneul.host.memory_services import MemoryServices
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import (
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    ROLE_BINDINGS,
    SECRETS,
    KubeAccess,
    KubeApiError,
    KubeClient,
    Resource,
    resource_of,
)
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.kube_manifests import cluster_role_binding, role_binding, user
from haneul.kernel.pki import issue_authority
from haneul.management import host_users
from haneul.management.host_users import HostUsers
from haneul.management.ingress_host import IngressFiles
from haneul.management.settings import ManagementSettings
from tests.followed import FollowedCluster
from tests.functional.kubernetes import ApiServer, connected
from tests.ingress_proxy import free_address, program, until

CLOCK = SystemClock()
#: Nothing of theirs runs, so nobody listens at these addresses.
READER: Final = replace(INGRESS, addresses="127.77.0.0/28")
TENANT: Final = KubeAccess("https://first", b"ca", b"crt", b"key")
OTHERS: Final = "haneul-hub"
ME: Final = user(host_users.INGRESS.name)
RULES: Final = Resource(
    "authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", namespaced=False
)
SECRET: Final = {"apiVersion": "v1", "kind": "Secret"}


@pytest.fixture
def folder() -> Iterator[Path]:
    program()
    if os.geteuid() != 0:
        pytest.skip("proxies get users of their own from root")
    with tempfile.TemporaryDirectory(prefix="haneul-") as made:
        yield Path(made)


class Host:
    """A host whose management cluster is a real API server, with one cluster that runs and one that was deleted."""

    def __init__(self, folder: Path, root: KubeClient, server: ApiServer) -> None:
        self.root = root
        self.settings = ManagementSettings("127.0.0.1", "host-a", state=folder / "state")
        state = self.settings.state
        state.mkdir(mode=0o700)
        self.settings.admin_kubeconfig.write_text(server.kubeconfig().read_text())
        files = PlatformFiles(state)
        authority = issue_authority("test platform", now=CLOCK.now())
        files.authority.write_bytes(authority.certificate)
        files.authority_key.touch(mode=0o600)
        files.authority_key.write_bytes(authority.key)
        pki = folder / "kubernetes/pki"
        pki.mkdir(parents=True)
        for name in ("ca.crt", "ca.key"):
            (pki / name).write_bytes((server.folder / name).read_bytes())
        HostUsers(self.settings, clock=CLOCK, kubernetes=folder / "kubernetes").ensure()
        self.access = access_from_kubeconfig(host_users.INGRESS.kubeconfig(state))
        self.ground = Ground(IngressFiles(state), "127.0.0.0/8", "k8s.example", program=program())
        self.authority = PlatformAuthority(files)
        self.tenant = FollowedCluster()
        self.connected: list[KubeAccess] = []

    async def make(self) -> None:
        for name in (INGRESS.name, OTHERS):
            await self.root.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for manifest in host_rights({}):
            await self.root.apply(resource_of(manifest), manifest)
        for namespace in (OTHERS, "default"):
            await self.root.create(SECRETS, {**SECRET, "metadata": {"name": "others", "namespace": namespace}})
        await self.tenant.with_namespaces()

    async def tell(self, record: ClusterRecord) -> None:
        await self.root.apply(SECRETS, secret_of(record, INGRESS))

    async def is_looked_at(self) -> bool:
        return self.tenant.looks > 0

    async def is_gone(self, uid: str) -> bool:
        claims = await self.root.list(CONFIG_MAPS, INGRESS.name, labels=f"dkos.haneul.dev/cluster={uid}")
        return not claims and await self.root.get(SECRETS, INGRESS.record_name(uid), INGRESS.name) is None

    @contextlib.asynccontextmanager
    async def connect(self, access: KubeAccess, _: str) -> AsyncIterator[KubeClient]:
        self.connected.append(access)
        yield self.tenant

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[KubeClient]:
        """Let the worker do its work, as its own user."""
        async with HttpKubeClient(self.access) as client:
            serving = IngressWork(
                self.ground,
                MemoryServices(),
                client,
                connect=self.connect,
                authority=self.authority,
                clock=CLOCK,
                trails=ClusterTrails(self.ground.files, clock=CLOCK),
            )
            task = asyncio.create_task(serve_clusters(client, serving, clock=CLOCK))
            try:
                yield client
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def test_the_worker_of_ingress_does_all_that_it_does_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    server = ApiServer(tmp_path, arguments={}, files={})
    async with connected(server) as root:
        host = Host(folder, root, server)
        await host.make()
        first = ClusterRecord(
            "uid-1", "shop", "first", "first.shop.k8s.example", Standing.FOLLOWED, TENANT, address=free_address()[0]
        )
        await host.tell(first)
        second = await deleted(host, "uid-2")
        async with host.working() as client:
            await until(host.is_looked_at, "the cluster to be looked at")
            # Tenants' clusters are reached by what their record has for a reader, and by nothing else.
            assert host.connected == [TENANT]
            await until(lambda: host.is_gone(second.uid), "the deleted cluster to be forgotten")
            # That one was in the list; this one is heard of.
            third = await deleted(host, "uid-3")
            await until(lambda: host.is_gone(third.uid), "the other deleted cluster to be forgotten")
            assert await root.get(SECRETS, INGRESS.record_name(first.uid), INGRESS.name) is not None
            await KubeRecords(client, INGRESS).tell(first.uid, "it has too much")
            noted = await root.get(SECRETS, INGRESS.record_name(first.uid), INGRESS.name)
            assert noted is not None
            assert "it has too much" in noted["metadata"]["annotations"].values()
            await it_is_refused_everything_else(client)
        await its_rights_are_those_that_are_listed(host)


async def deleted(host: Host, uid: str) -> ClusterRecord:
    """Have a cluster that was deleted, with an address that is given back when all is withdrawn."""
    address = await given_address(host.root, READER, uid)
    record = ClusterRecord(uid, "shop", "second", "second.shop.k8s.example", Standing.DELETED, address=address)
    await host.tell(record)
    return record


async def it_is_refused_everything_else(client: KubeClient) -> None:
    def here(kind: str, name: str, namespace: str = INGRESS.name) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}

    binding = cluster_role_binding("mine", "cluster-admin", ME, {})
    own = role_binding("cluster-admin", INGRESS.name, "ClusterRole", ME, {})
    refused: dict[str, Callable[[], Awaitable[Any]]] = {
        "secrets everywhere": lambda: client.list(SECRETS),
        "secrets of others": lambda: client.list(SECRETS, OTHERS),
        "a secret of others": lambda: client.get(SECRETS, "others", "default"),
        "the end of a secret of others": lambda: client.delete(SECRETS, "others", OTHERS),
        "a record of its own making": lambda: client.create(SECRETS, here("Secret", "ingress-uid-9")),
        "an address": lambda: client.create(CONFIG_MAPS, here("ConfigMap", "address-127-0-0-9")),
        "settings": lambda: client.list(CONFIG_MAPS, "kube-system"),
        "nodes": lambda: client.list(NODES),
        "namespaces": lambda: client.list(NAMESPACES),
        "pods": lambda: client.list(PODS, INGRESS.name),
        "a pod": lambda: client.create(PODS, here("Pod", "any")),
        "rights": lambda: client.create(CLUSTER_ROLE_BINDINGS, binding),
        "rights in its namespace": lambda: client.create(ROLE_BINDINGS, own),
    }
    let = []
    for what, ask in refused.items():
        try:
            await ask()
        except KubeApiError as error:
            assert error.status == 403, (what, error)
        else:
            let.append(what)
    assert let == []


async def its_rights_are_those_that_are_listed(host: Host) -> None:
    """Ask the API server for them; everybody may ask who they are and what they may."""
    seen = {}
    async with HttpKubeClient(host.access) as client:
        for namespace in (INGRESS.name, OTHERS, "kube-system"):
            review = {
                "apiVersion": RULES.api_version,
                "kind": RULES.kind,
                "metadata": {},
                "spec": {"namespace": namespace},
            }
            status = (await client.create(RULES, review))["status"]
            seen[namespace] = {
                (group, resource, verb)
                for entry in status["resourceRules"]
                for group in entry["apiGroups"]
                for resource in entry["resources"]
                for verb in entry["verbs"]
                if group not in ("authentication.k8s.io", "authorization.k8s.io")
            }
    listed = {
        ("", resource, verb) for rule in ingress_rules() for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert seen == {INGRESS.name: listed, OTHERS: set(), "kube-system": set()}
