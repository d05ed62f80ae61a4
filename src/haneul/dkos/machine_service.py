"""What people can do with machines, whoever asks: rights are the caller's business."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address
from typing import Final

from haneul.dkos.admission import TakenRange
from haneul.dkos.cluster_store import ClusterStore, Confirm, certain
from haneul.dkos.machine_store import MachineStore, PublicKeys, no_machine
from haneul.dkos.machines import LONGEST_MACHINE_NAME, Machine, MachineSpec
from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError, NotFoundError
from haneul.kernel.names import parse_label
from haneul.kernel.ssh_keys import SshKey

#: Machines of one project. All are listed at each registration, and each may be looked at by the operator.
MOST_MACHINES: Final = 500


class MachineService:
    """Machines of all projects."""

    def __init__(
        self, store: MachineStore, keys: PublicKeys, clusters: ClusterStore, *, reserved: Sequence[TakenRange] = ()
    ) -> None:
        """``reserved`` are ranges in which no machine is: nobody sends the operator to the platform's own parts."""
        self._store = store
        self._keys = keys
        self._clusters = clusters
        self._reserved = reserved

    async def list(self, project: str) -> Sequence[Machine]:
        """Return a project's machines by name."""
        return await self._store.list(project)

    async def get(self, project: str, name: str) -> Machine:
        """Return a machine. Raises NotFoundError, also for what cannot be a machine's name."""
        try:
            parse_label(name, what="machine name", longest=LONGEST_MACHINE_NAME)
        except InvalidInputError as error:
            raise no_machine(project, name) from error
        return await self._store.get(project, name)

    async def add(
        self, project: str, name: str, spec: MachineSpec, *, now: datetime, confirm: Confirm = certain
    ) -> Machine:
        """Register a machine and ask for its first check. One machine is registered once on the whole platform.

        ``confirm`` is asked once more whether the project is there when the machine is; should it not be, the machine
        is forgotten again.
        """
        parse_label(name, what="machine name", longest=LONGEST_MACHINE_NAME)
        for taken in self._reserved:
            if IPv4Address(spec.address) in taken.network:
                raise InvalidInputError(
                    f"{spec.address} is an address of {taken.owner}", hint="name the address of a machine of your own"
                )
        others = await self._store.list()
        if sum(other.project == project for other in others) >= MOST_MACHINES:
            raise ConflictError(
                f"{project} has {MOST_MACHINES} machines, and more it may not have", hint="remove one that is not used"
            )
        for other in others:
            if other.spec.address == spec.address and (other.project, other.name) != (project, name):
                # Whose it is in another project is nobody's business here.
                whose = f"as {other.name}" if other.project == project else "in another project"
                raise ConflictError(
                    f"a machine with the address {spec.address} is registered {whose} already",
                    hint="a machine serves one project; remove it there first",
                )
        await self._keys.public(project)
        machine = await self._store.add(project, name, spec.model_copy(update={"check_requested": now}))
        try:
            await confirm()
        except HaneulError:
            with contextlib.suppress(NotFoundError):
                await self._store.remove(await self._store.get(project, name))
            raise
        return machine

    async def check(self, project: str, name: str, *, now: datetime) -> Machine:
        """Ask the operator to examine a machine; the answer comes into its status."""
        machine = await self.get(project, name)
        return await self._store.change(machine, machine.spec.model_copy(update={"check_requested": now}))

    async def remove(self, project: str, name: str, *, force: bool = False) -> None:
        """Forget a machine that is nobody's node. ``force`` also one that is being put back and cannot be reached."""
        machine = await self.get(project, name)
        users = [other.name for other in await self._clusters.list(project) if name in other.spec.machines]
        if users:
            raise ConflictError(
                f"{name} is a node of cluster {users[0]}",
                hint="take it out of the cluster's pool, or delete the cluster",
            )
        claim = machine.status.claim
        if claim is not None and not force:
            raise ConflictError(
                f"{name} is being put back as it was found after it was a node of {claim.cluster}",
                hint="wait until that is done; with --force it is forgotten with what is left on it",
            )
        await self._store.remove(machine)

    async def public_key(self, project: str) -> str:
        """Return the line that goes into the machines' ``authorized_keys``."""
        return await self._keys.public(project)

    async def give_key(self, project: str, key: SshKey) -> None:
        """Sign in to the project's machines with a key that exists already."""
        await self._keys.replace(project, key)

    async def forget(self, project: str) -> None:
        """Delete what a deleted project leaves: its key, and machines that were registered at the last moment.

        They are nobody's nodes: no cluster was there any more that could have claimed them.
        """
        for machine in await self._store.list(project):
            await self._store.remove(machine)
        await self._keys.forget(project)
