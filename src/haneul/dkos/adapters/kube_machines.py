"""Machines as custom resources, and the keys to them as Secrets that the API can write but never read.

The Secrets lie in a namespace of their own, each under a name that it alone ever has; a ConfigMap names the one that
counts and carries its public half. So a key is made, replaced and deleted without being read, and two that make one at
once agree on one.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from haneul.dkos.credentials import decode, secret_manifest
from haneul.dkos.machine_store import machine_changed, no_machine
from haneul.dkos.machines import MACHINES, Machine, MachineSpec, MachineStatus, machine_from_resource
from haneul.dkos.model import project_namespace
from haneul.kernel.errors import ConflictError, NotFoundError
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, SECRETS, KubeApiError, KubeClient, Manifest
from haneul.kernel.ssh_keys import SshKey, new_ssh_key

KEYS_NAMESPACE: Final = "haneul-keys"
_LABELS: Final = {"app.kubernetes.io/managed-by": "haneul"}


class KubeMachines:
    """The store that the operator watches."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def list(self, project: str | None = None) -> Sequence[Machine]:
        """Return the machines of a project, or all."""
        found = await self._client.list(MACHINES, project_namespace(project) if project else "")
        machines = [machine for entry in found if (machine := machine_from_resource(entry))]
        return sorted(machines, key=lambda machine: (machine.project, machine.name))

    async def get(self, project: str, name: str) -> Machine:
        """Return a machine."""
        found = await self._client.get(MACHINES, name, project_namespace(project))
        machine = machine_from_resource(found) if found else None
        if machine is None:
            raise no_machine(project, name)
        return machine

    async def add(self, project: str, name: str, spec: MachineSpec) -> Machine:
        """Create a machine."""
        namespace = project_namespace(project)
        if await self._client.get(NAMESPACES, namespace) is None:
            await self._create_namespace(namespace)
        manifest: Manifest = {
            "apiVersion": MACHINES.api_version,
            "kind": MACHINES.kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": _dump(spec),
        }
        try:
            made = machine_from_resource(await self._client.create(MACHINES, manifest))
        except KubeApiError as error:
            if error.reason == "AlreadyExists":
                raise ConflictError(
                    f"{project} has a machine named {name} already", hint="choose another name"
                ) from error
            raise
        if made is None:
            raise no_machine(project, name)
        return made

    async def change(self, machine: Machine, spec: MachineSpec) -> Machine:
        """Change a machine's spec."""
        return await self._patch(machine, {"spec": _dump(spec)}, subresource="")

    async def report(self, machine: Machine, status: MachineStatus) -> Machine:
        """Write a machine's status."""
        body: dict[str, Any] = status.model_dump(mode="json", by_alias=True)
        return await self._patch(machine, {"status": body}, subresource="status")

    async def remove(self, machine: Machine) -> None:
        """Delete a machine. What changed since it was read keeps it."""
        current = await self.get(machine.project, machine.name)
        if (current.uid, current.status.claim) != (machine.uid, machine.status.claim):
            raise machine_changed()
        await self._client.delete(MACHINES, machine.name, project_namespace(machine.project))

    async def watch(self) -> AsyncIterator[Machine]:
        """Yield machines as they come and change."""
        async for event in self._client.watch(MACHINES):
            if event.type != "DELETED" and (machine := machine_from_resource(event.object)):
                yield machine

    async def _patch(self, machine: Machine, patch: Manifest, *, subresource: str) -> Machine:
        patch["metadata"] = {"resourceVersion": machine.revision}
        namespace = project_namespace(machine.project)
        try:
            changed = await self._client.patch(MACHINES, machine.name, patch, namespace, subresource=subresource)
        except KubeApiError as error:
            if error.reason == "Conflict":
                raise machine_changed() from error
            if error.reason == "NotFound":
                raise no_machine(machine.project, machine.name) from error
            raise
        return machine_from_resource(changed) or machine

    async def _create_namespace(self, name: str) -> None:
        labels = {**_LABELS, "pod-security.kubernetes.io/enforce": "restricted"}
        try:
            await self._client.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            )
        except KubeApiError as error:
            if error.reason != "AlreadyExists":
                raise


class KubeKeys:
    """The keys of all projects."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def public(self, project: str) -> str:
        """Return the public half, after making the key if there is none."""
        known = await self._client.get(CONFIG_MAPS, _name(project), KEYS_NAMESPACE)
        if known is None:
            key = new_ssh_key(project)
            secret = await self._keep(project, key)
            try:
                known = await self._client.create(CONFIG_MAPS, _pointer(project, secret, key))
            except KubeApiError as error:
                await self._client.delete(SECRETS, secret, KEYS_NAMESPACE)
                if error.reason != "AlreadyExists":
                    raise
                return await self.public(project)
        return str(known["data"]["public"])

    async def replace(self, project: str, key: SshKey) -> None:
        """Keep another key, point to it, then delete the old one."""
        await self.public(project)
        old = await self._client.get(CONFIG_MAPS, _name(project), KEYS_NAMESPACE)
        secret = await self._keep(project, key)
        await self._client.patch(CONFIG_MAPS, _name(project), _pointer(project, secret, key), KEYS_NAMESPACE)
        if old is not None:
            await self._client.delete(SECRETS, old["data"]["secret"], KEYS_NAMESPACE)

    async def forget(self, project: str) -> None:
        """Delete the key, then what points to it."""
        known = await self._client.get(CONFIG_MAPS, _name(project), KEYS_NAMESPACE)
        if known is not None:
            await self._client.delete(SECRETS, known["data"]["secret"], KEYS_NAMESPACE)
            await self._client.delete(CONFIG_MAPS, _name(project), KEYS_NAMESPACE)

    async def private(self, project: str) -> bytes:
        """Return the private half; only the operator may."""
        known = await self._client.get(CONFIG_MAPS, _name(project), KEYS_NAMESPACE)
        secret = await self._client.get(SECRETS, known["data"]["secret"], KEYS_NAMESPACE) if known else None
        if secret is None:
            raise NotFoundError(f"{project} has no key for machines", hint="'haneul machine key' makes it")
        return decode(secret)["key"]

    async def _keep(self, project: str, key: SshKey) -> str:
        name = f"{_name(project)}-{randomness.token_hex(4)}"
        await self._client.create(SECRETS, secret_manifest(KEYS_NAMESPACE, name, {"key": key.private}, _LABELS))
        return name


def _name(project: str) -> str:
    return f"ssh-{project}"


def _pointer(project: str, secret: str, key: SshKey) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(project), "namespace": KEYS_NAMESPACE, "labels": _LABELS},
        "data": {"public": key.public, "secret": secret},
    }


def _dump(spec: MachineSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True)
