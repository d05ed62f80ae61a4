"""The behaviour that every ServiceManager has, whatever keeps the services running."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.host.memory_services import MemoryServices
from haneul.host.services import HostService, ServiceManager, ServiceState
from haneul.host.supervisord import Supervisord
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for

PATIENT = "import signal; signal.pause()"


@pytest.fixture(params=["memory", "supervisord"])
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServiceManager]:
    found: ServiceManager = MemoryServices()
    if request.param == "supervisord":
        found = Supervisord(
            state=tmp_path / "state", runtime=tmp_path / "run", logs=tmp_path / "logs", clock=SystemClock(), patience=2
        )
    yield found
    await found.shut_down()


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
