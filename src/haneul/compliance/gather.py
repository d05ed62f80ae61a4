"""Gathers, through Kubernetes' APIs, what checks decide on. Looks only; changes nothing.

Whatever does not answer is left out with the reason, so that a cluster in trouble is checked as far as it goes. Of
Secrets nothing is kept but what kind they are, the names of providers, and digests of certificates.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from haneul.compliance.snapshot import Flags, Kubelet, Snapshot
from haneul.kernel import kube
from haneul.kernel.documents import from_yaml
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeClient, Manifest, Resource, is_ready

#: Seconds for one request; what takes longer is not seen.
_CALL_SECONDS: Final = 10.0
#: Kubelets that are asked at most, and how many at once: more of the same pools say the same.
_MOST_KUBELETS: Final = 50
_KUBELETS_AT_ONCE: Final = 8
_KINDS: Final[Mapping[str, Resource]] = {
    "namespaces": kube.NAMESPACES,
    "pods": kube.PODS,
    "services": kube.SERVICES,
    "roles": kube.ROLES,
    "rolebindings": kube.ROLE_BINDINGS,
    "clusterroles": kube.CLUSTER_ROLES,
    "clusterrolebindings": kube.CLUSTER_ROLE_BINDINGS,
    "networkpolicies": kube.NETWORK_POLICIES,
}
_PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_ROLE: Final = "dkos.haneul.dev/role"


@dataclass(frozen=True)
class TenantPlace:
    """Where a tenant's masters and node pods are, and what its nodes are made from, by node and file."""

    masters: str
    nodes: str
    network: str
    node_files: Mapping[str, Mapping[str, str]]


@dataclass
class Gathered:
    """What was gathered so far, and why the rest was not."""

    programs: dict[str, tuple[Flags, ...]] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    kubelets: tuple[Kubelet, ...] = ()
    objects: dict[str, tuple[Manifest, ...]] = field(default_factory=dict)
    gaps: dict[str, str] = field(default_factory=dict)

    async def have(self, names: Sequence[str], work: Awaitable[None]) -> None:
        """Do a part of the work; if it fails, note why ``names`` are missing."""
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await work
        except (HaneulError, TimeoutError, KeyError, ValueError, yaml.YAMLError) as error:
            why = str(error) if isinstance(error, HaneulError) else f"it was not understood ({type(error).__name__})"
            self.gaps |= dict.fromkeys(names, "nobody answered in time" if isinstance(error, TimeoutError) else why)


async def gather_tenant(management: KubeClient, tenant: KubeClient | None, place: TenantPlace) -> Snapshot:
    """Return a snapshot of a tenant's cluster; without a client of its own only its masters are seen."""
    found = Gathered(documents={"network": place.network})
    proxies = [files["kube-proxy.yaml"] for files in place.node_files.values() if "kube-proxy.yaml" in files]
    if proxies:
        found.documents["kube-proxy"] = from_yaml(proxies[0])
    async with asyncio.TaskGroup() as group:
        group.create_task(found.have(["masters", *_PROGRAMS], _masters(found, management, place.masters, "")))
        group.create_task(found.have(["machines"], _machines(found, management, place.nodes)))
        group.create_task(
            found.have(
                ["authentication", "audit-policy", "scheduler"], _configurations(found, management, place.masters)
            )
        )
        group.create_task(
            found.have(["encryption-providers", "authorities"], _secrets(found, management, place.masters))
        )
        if tenant is not None:
            group.create_task(gather_objects(found, tenant))
            group.create_task(gather_kubelets(found, tenant, {}))
    if tenant is None:
        missing = [*_KINDS, "tokens", "bootstrap-tokens", "kubelets"]
        found.gaps |= dict.fromkeys(missing, "the cluster's API server does not answer")
    # How the node image starts every kubelet.
    kubelets = tuple(Kubelet(one.node, one.configuration, {"hostname-override": one.node}) for one in found.kubelets)
    return Snapshot(
        "tenant",
        programs=found.programs,
        documents=found.documents,
        kubelets=kubelets,
        objects=found.objects,
        gaps=found.gaps,
    )


async def gather_masters(found: Gathered, client: KubeClient) -> None:
    """Gather the flags of the masters that kubeadm made."""
    await found.have(["masters", *_PROGRAMS], _masters(found, client, "kube-system", "tier=control-plane"))


async def gather_objects(found: Gathered, client: KubeClient) -> None:
    """Gather rights, namespaces, pods and what else belongs to users of a cluster."""

    async def all_of(name: str, resource: Resource) -> None:
        found.objects[name] = tuple(await client.list(resource))

    async with asyncio.TaskGroup() as group:
        for name, resource in _KINDS.items():
            group.create_task(found.have([name], all_of(name, resource)))
        group.create_task(found.have(["tokens"], _tokens(found, client)))
        group.create_task(found.have(["bootstrap-tokens"], _bootstrap_tokens(found, client)))


async def gather_kubelets(found: Gathered, client: KubeClient, flags: Mapping[str, Flags]) -> None:
    """Ask kubelets of nodes that are ready for the configuration in effect; ``flags`` are those that are known."""
    nodes: list[Manifest] = []

    async def look() -> None:
        nodes.extend(await client.list(kube.NODES))

    await found.have(["kubelets"], look())
    ready = sorted(node["metadata"]["name"] for node in nodes if is_ready(node))[:_MOST_KUBELETS]
    turns, answers = asyncio.Semaphore(_KUBELETS_AT_ONCE), dict[str, Kubelet]()

    async def ask(name: str) -> None:
        answer = json.loads(await client.raw_get(f"/api/v1/nodes/{name}/proxy/configz"))
        answers[name] = Kubelet(name, answer["kubeletconfig"], flags.get(name, {}))

    async def in_turn(name: str) -> None:
        async with turns:
            await found.have(["kubelets"], ask(name))

    async with asyncio.TaskGroup() as group:
        for name in ready:
            group.create_task(in_turn(name))
    found.kubelets = tuple(answers[name] for name in sorted(answers))


def flags_from(arguments: Iterable[str]) -> Flags:
    """Return flags from a command line; of a flag that is repeated the last counts."""
    found = {}
    for argument in arguments:
        name, separator, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name:
            found[name] = value if separator else "true"
    return found


def providers_of(configuration: Mapping[str, Any]) -> list[list[str]]:
    """Return the names of an encryption configuration's providers, entry by entry; keys stay behind."""
    return [[next(iter(provider)) for provider in entry["providers"]] for entry in configuration["resources"]]


def digest_of(certificate: bytes) -> str:
    """Return what tells certificates apart."""
    return hashlib.sha256(certificate.strip()).hexdigest()


async def _masters(found: Gathered, client: KubeClient, namespace: str, labels: str) -> None:
    pods = [pod for pod in await client.list(kube.PODS, namespace, labels=labels) if _runs(pod)]
    found.objects["masters"] = tuple(pods)
    for pod in pods:
        marks = pod["metadata"].get("labels") or {}
        role = marks.get(_ROLE) or marks.get("component", "")
        container = pod["spec"]["containers"][0]
        flags = flags_from([*(container.get("command") or []), *(container.get("args") or [])])
        found.programs[role] = (*found.programs.get(role, ()), flags)


async def _machines(found: Gathered, client: KubeClient, namespace: str) -> None:
    pods = await client.list(kube.PODS, namespace, labels=f"{_ROLE}=node")
    found.objects["machines"] = tuple(pod for pod in pods if _runs(pod))


async def _configurations(found: Gathered, client: KubeClient, namespace: str) -> None:
    files: dict[str, str] = {}
    for name in ("kube-apiserver", "kube-scheduler"):
        files |= ((await client.get(kube.CONFIG_MAPS, name, namespace)) or {}).get("data") or {}
    for document, file in (
        ("authentication", "authentication.yaml"),
        ("audit-policy", "audit.yaml"),
        ("scheduler", "scheduler.yaml"),
    ):
        found.documents[document] = from_yaml(files[file])


async def _secrets(found: Gathered, client: KubeClient, namespace: str) -> None:
    secret = (await client.get(kube.SECRETS, "kube-apiserver", namespace)) or {"data": {}}
    data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    found.documents["encryption-providers"] = providers_of(from_yaml(data["encryption.yaml"]))
    found.documents["authorities"] = {"cluster": digest_of(data["ca.crt"]), "etcd": digest_of(data["etcd-ca.crt"])}


async def _tokens(found: Gathered, client: KubeClient) -> None:
    secrets = await client.list(kube.SECRETS, fields="type=kubernetes.io/service-account-token")
    found.objects["tokens"] = tuple({"metadata": secret["metadata"]} for secret in secrets)


async def _bootstrap_tokens(found: Gathered, client: KubeClient) -> None:
    secrets = await client.list(kube.SECRETS, fields="type=bootstrap.kubernetes.io/token")

    def said(secret: Manifest, name: str) -> str:
        return base64.b64decode((secret.get("data") or {}).get(name, "")).decode()

    found.objects["bootstrap-tokens"] = tuple(
        {
            "metadata": {"name": secret["metadata"]["name"]},
            "expiration": said(secret, "expiration"),
            "groups": said(secret, "auth-extra-groups"),
        }
        for secret in secrets
    )


def _runs(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
