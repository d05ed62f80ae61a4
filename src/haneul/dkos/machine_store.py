"""The ports through which machines and the keys to them are kept, and what keeps them in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from haneul.dkos.machines import Machine, MachineSpec, MachineStatus
from haneul.kernel.errors import ConflictError, NotFoundError
from haneul.kernel.ssh_keys import SshKey, new_ssh_key


class MachineStore(Protocol):
    """Keeps machines. A change of a machine's status is made on exactly the state that it was decided on."""

    async def list(self, project: str | None = None) -> Sequence[Machine]:
        """Return the machines of a project, or all, by project and name."""
        ...

    async def get(self, project: str, name: str) -> Machine:
        """Return a machine. Raises NotFoundError."""
        ...

    async def add(self, project: str, name: str, spec: MachineSpec) -> Machine:
        """Register a machine. Raises ConflictError if the name is taken."""
        ...

    async def change(self, machine: Machine, spec: MachineSpec) -> Machine:
        """Change what a machine is asked to be."""
        ...

    async def report(self, machine: Machine, status: MachineStatus) -> Machine:
        """Write a status. Raises ConflictError if the machine changed since ``machine`` was read."""
        ...

    async def remove(self, machine: Machine) -> None:
        """Forget exactly this machine. Raises ConflictError if it changed meanwhile."""
        ...

    def watch(self) -> AsyncIterator[Machine]:
        """Yield every machine, and each again when it changed."""
        ...


class PublicKeys(Protocol):
    """The public halves of the projects' keys: all that the API ever sees of a key that it did not just make."""

    async def public(self, project: str) -> str:
        """Return the line for ``authorized_keys``; the key is made with the first call."""
        ...

    async def replace(self, project: str, key: SshKey) -> None:
        """Let the project's machines be reached with another key."""
        ...

    async def forget(self, project: str) -> None:
        """Delete the project's key."""
        ...


class PrivateKeys(Protocol):
    """The private halves, for who signs in to machines."""

    async def private(self, project: str) -> bytes:
        """Return the key in OpenSSH's format. Raises NotFoundError while there is none."""
        ...


def no_machine(project: str, name: str) -> NotFoundError:
    """Return the error for a machine that is not there."""
    return NotFoundError(
        f"{project} has no machine named {name}", hint=f"'haneul machine list -p {project}' shows them"
    )


def machine_changed() -> ConflictError:
    """Return the error for a change that was decided on an older state."""
    return ConflictError("the machine was changed by somebody else meanwhile", hint="look at it and try again")


class MemoryMachines:
    """Machines and keys in memory; nobody speaks to them."""

    def __init__(self) -> None:
        self._machines: dict[tuple[str, str], Machine] = {}
        self._keys: dict[str, SshKey] = {}
        self._numbers = itertools.count(1)

    async def list(self, project: str | None = None) -> Sequence[Machine]:
        """Return the machines."""
        return [machine for (owner, _), machine in sorted(self._machines.items()) if project in (None, owner)]

    async def get(self, project: str, name: str) -> Machine:
        """Return a machine."""
        if (project, name) not in self._machines:
            raise no_machine(project, name)
        return self._machines[(project, name)]

    async def add(self, project: str, name: str, spec: MachineSpec) -> Machine:
        """Keep a machine."""
        if (project, name) in self._machines:
            raise ConflictError(f"{project} has a machine named {name} already", hint="choose another name")
        number = next(self._numbers)
        return self._keep(Machine(project=project, name=name, uid=f"machine-{number}", revision=str(number), spec=spec))

    async def change(self, machine: Machine, spec: MachineSpec) -> Machine:
        """Change a machine."""
        return self._keep(self._same(machine).model_copy(update={"spec": spec}))

    async def report(self, machine: Machine, status: MachineStatus) -> Machine:
        """Keep a status."""
        return self._keep(self._same(machine).model_copy(update={"status": status}))

    async def remove(self, machine: Machine) -> None:
        """Forget a machine."""
        self._same(machine)
        del self._machines[(machine.project, machine.name)]

    async def watch(self) -> AsyncIterator[Machine]:
        """Yield what is there now."""
        for machine in await self.list():
            yield machine

    async def public(self, project: str) -> str:
        """Return the key's public half."""
        return self._keys.setdefault(project, new_ssh_key(project)).public

    async def replace(self, project: str, key: SshKey) -> None:
        """Keep another key."""
        self._keys[project] = key

    async def forget(self, project: str) -> None:
        """Forget the key."""
        self._keys.pop(project, None)

    async def private(self, project: str) -> bytes:
        """Return the key."""
        if project not in self._keys:
            raise NotFoundError(f"{project} has no key for machines", hint="'haneul machine key' makes it")
        return self._keys[project].private

    def _same(self, machine: Machine) -> Machine:
        kept = self._machines.get((machine.project, machine.name))
        if kept is None:
            raise no_machine(machine.project, machine.name)
        if kept.revision != machine.revision:
            raise machine_changed()
        return kept

    def _keep(self, machine: Machine) -> Machine:
        kept = machine.model_copy(update={"revision": str(next(self._numbers))})
        self._machines[(kept.project, kept.name)] = kept
        return kept
