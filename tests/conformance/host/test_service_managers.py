"""The behaviour that every ServiceManager has, whatever keeps the services running."""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from haneul.host import systemd
from haneul.host.memory_services import MemoryServices
from haneul.host.services import HostService, ServiceManager, ServiceState
from haneul.host.supervisord import Supervisord
from haneul.host.systemd import Systemd
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from tests.systemd import SystemdStandIn

PATIENT = "import signal; signal.pause()"


@pytest.fixture(params=["memory", "supervisord", "systemd"])
async def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServiceManager]:
    found: ServiceManager = MemoryServices()
    with contextlib.ExitStack() as stack:
        if request.param == "supervisord":
            found = Supervisord(
                state=tmp_path / "state",
                runtime=tmp_path / "run",
                logs=tmp_path / "logs",
                clock=SystemClock(),
                patience=2,
            )
        elif request.param == "systemd":
            (tmp_path / "units").mkdir()
            stand_in = SystemdStandIn(tmp_path / "units")
            stack.callback(stand_in.end)
            monkeypatch.setattr(systemd, "run", stand_in.run)
            found = Systemd(units=tmp_path / "units")
        yield found
        await found.shut_down()


class KilledError(BaseException):
    """Ends whoever is at work, as SIGKILL does: nobody puts anything back."""


#: How each manager tells whoever runs the services of a change, in order: the method and its first word that say so.
STEPS = {
    Supervisord: ("_call", ("reloadConfig", "stopProcess", "removeProcessGroup", "addProcessGroup")),
    Systemd: ("_systemctl", ("stop", "daemon-reload", "enable", "start")),
}


@contextlib.contextmanager
def killed_at(manager: ServiceManager, step: int) -> Iterator[None]:
    """Let whoever uses a manager be killed before a step of a change is taken."""
    method, words = STEPS[type(manager)]
    as_it_is = getattr(manager, method)

    async def call(word: str, *arguments: object) -> Any:
        if word == words[step]:
            raise KilledError
        return await as_it_is(word, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(manager, method, call)
        yield


def patient(tmp_path: Path, name: str = "patient", **variables: str) -> HostService:
    """A service that does nothing until it is ended; its folder makes its command line unmistakable."""
    return HostService(name, (sys.executable, "-c", PATIENT, str(tmp_path), name), tuple(variables.items()))


async def state_of(manager: ServiceManager, name: str) -> ServiceState | None:
    return next((state for state in await manager.states() if state.name == name), None)


async def running(manager: ServiceManager, name: str = "patient") -> ServiceState:
    async def probe() -> ServiceState | None:
        state = await state_of(manager, name)
        return state if state is not None and state.running else None

    return await wait_for(probe, what=f"{name} to run", timeout=60, clock=SystemClock())


async def test_nothing_is_defined_at_first(manager: ServiceManager) -> None:
    assert await manager.states() == []


async def test_a_service_is_defined_and_started(manager: ServiceManager, tmp_path: Path) -> None:
    assert await manager.ensure(patient(tmp_path)) is True
    assert (await running(manager)).pid is not None


async def test_what_is_so_already_is_left_alone(manager: ServiceManager, tmp_path: Path) -> None:
    await manager.ensure(patient(tmp_path))
    before = await running(manager)
    assert await manager.ensure(patient(tmp_path)) is False
    assert (await running(manager)).pid == before.pid


async def test_a_changed_definition_restarts(manager: ServiceManager, tmp_path: Path) -> None:
    await manager.ensure(patient(tmp_path))
    before = await running(manager)
    assert await manager.ensure(patient(tmp_path, COLOUR="green")) is True
    assert (await running(manager)).pid != before.pid


@pytest.mark.parametrize("step", range(4))
async def test_a_change_that_was_cut_short_is_finished(manager: ServiceManager, tmp_path: Path, step: int) -> None:
    if isinstance(manager, MemoryServices):
        pytest.skip("it takes no steps")
    await manager.ensure(patient(tmp_path, COLOUR="red"))
    before = await running(manager)
    with killed_at(manager, step):
        await manager.ensure(patient(tmp_path, COLOUR="green"))
    assert await manager.ensure(patient(tmp_path, COLOUR="green")) is True
    after = await running(manager)
    assert after.pid != before.pid
    assert b"COLOUR=green" in Path(f"/proc/{after.pid}/environ").read_bytes().split(b"\0")
    assert await manager.ensure(patient(tmp_path, COLOUR="green")) is False
    assert (await running(manager)).pid == after.pid


async def test_stopped_stays_defined_and_starts_again(manager: ServiceManager, tmp_path: Path) -> None:
    await manager.ensure(patient(tmp_path))
    await running(manager)
    await manager.stop("patient")
    state = await state_of(manager, "patient")
    assert state is not None and not state.running
    assert await manager.ensure(patient(tmp_path)) is True
    await running(manager)


async def test_removed_is_forgotten(manager: ServiceManager, tmp_path: Path) -> None:
    await manager.ensure(patient(tmp_path))
    await manager.ensure(patient(tmp_path, "other"))
    await running(manager)
    await running(manager, "other")
    await manager.remove("patient")
    assert [state.name for state in await manager.states()] == ["other"]


async def test_stopping_and_removing_what_is_not_there_is_no_error(manager: ServiceManager) -> None:
    await manager.stop("nobody")
    await manager.remove("nobody")


async def test_after_shutting_down_all_is_defined_and_nothing_runs(manager: ServiceManager, tmp_path: Path) -> None:
    await manager.ensure(patient(tmp_path))
    await running(manager)
    await manager.shut_down()
    state = await state_of(manager, "patient")
    assert state is not None and not state.running
    await manager.shut_down()
    await manager.ensure(patient(tmp_path))
    await running(manager)
