"""The container runtime of this host: its start, its images, the end of all pods."""

from __future__ import annotations

import asyncio

from haneul.host.services import ServiceManager
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for
from haneul.management import node_runtime, reports, runtime
from haneul.management.ports import Artifacts
from haneul.management.settings import ManagementSettings

#: Where programs of the system are found by what is not started from a shell.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ContainerRuntime:
    """containerd, and ``ctr`` to talk to it."""

    def __init__(
        self, settings: ManagementSettings, *, artifacts: Artifacts, services: ServiceManager, clock: Clock
    ) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._services = services
        self._clock = clock

    async def start(self) -> None:
        """Start the container runtime as a host service, or leave it as it is, and wait until it answers."""
        settings = self._settings
        configuration = runtime.containerd_configuration(settings, pause_image=self._artifacts.image_reference("pause"))
        default = await run([str(self._artifacts.program("ctr")), "oci", "spec"], timeout=30)
        nodes = node_runtime.write_files(settings, default.stdout)
        write_atomically(settings.state / "containerd.toml", configuration)
        await self._services.ensure(
            runtime.containerd_service(
                settings,
                program=self._artifacts.program("containerd"),
                search_path=search_path(self._artifacts),
                # containerd reads what nodes are made from once, when it starts.
                configuration=configuration + nodes,
            )
        )
        await wait_for(
            self._answers,
            what="the container runtime to answer",
            timeout=60,
            clock=self._clock,
            hint=f"look at {settings.logs}/containerd.log",
        )

    async def load_image(self, name: str) -> None:
        """Load an image into the container runtime unless exactly it is there."""
        archive = self._artifacts.image_archive(name)
        mark = self._settings.state / "images" / name
        reference = self._artifacts.image_reference(name)
        present = (await self._ctr("images", "list", "-q", f"name=={reference}")).strip()
        if present and mark.exists() and mark.read_text() == archive.name:
            return
        await self._ctr("images", "import", "--local", str(archive), seconds=300)
        write_atomically(mark, archive.name)

    async def running(self) -> frozenset[str]:
        """Return the ids of the containers that run now."""
        return reports.running_tasks(await self._ctr("tasks", "list"))

    async def stop_pods(self) -> None:
        """End every container of the container runtime, pods' pauses last; their data stays."""
        if not self._settings.containerd_socket.exists():
            return
        for _ in range(20):
            tasks = (await self._ctr("tasks", "list", "-q")).split()
            if not tasks:
                return
            await asyncio.gather(
                *(self._ctr("tasks", "kill", "-s", "SIGKILL", "-a", task, check=False) for task in tasks)
            )
            await asyncio.gather(*(self._ctr("tasks", "delete", "-f", task, check=False) for task in tasks))
        raise UnavailableError("containers do not end", hint=f"look at {self._settings.logs}/containerd.log")

    async def _answers(self) -> bool:
        if not self._settings.containerd_socket.exists():
            return False
        address = str(self._settings.containerd_socket)
        completed = await run(
            [str(self._artifacts.program("ctr")), "--address", address, "version"], timeout=10, check=False
        )
        return completed.status == 0

    async def _ctr(self, *arguments: str, seconds: float = 60, check: bool = True) -> str:
        completed = await run(
            [
                str(self._artifacts.program("ctr")),
                "--address",
                str(self._settings.containerd_socket),
                "-n",
                "k8s.io",
                *arguments,
            ],
            timeout=seconds,
            check=check,
        )
        return completed.stdout


def search_path(artifacts: Artifacts) -> str:
    """Return the PATH of host services: our own programs, then the system's."""
    folders = {str(artifacts.program(name).parent) for name in ("containerd", "runc", "kubelet", "kubeadm")}
    return ":".join([*sorted(folders), SYSTEM_PATH])
