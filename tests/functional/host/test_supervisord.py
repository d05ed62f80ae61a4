"""supervisord for real: what it does when it, or what it keeps running, is killed."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.app.installation import renewal_service
from haneul.host.ownership import Ownership, process_at
from haneul.host.processes import command_line, processes_matching
from haneul.host.services import HostService
from haneul.host.supervisord import Supervisord
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for

PATIENT = "import signal; signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
    "[signal.pause() for _ in iter(int, 1)]"
)

ENDING_ORPHANS = """
import asyncio, sys
from pathlib import Path
from haneul.host.supervisord import Supervisord
from haneul.kernel.clock import SystemClock
folder = Path(sys.argv[1])
manager = Supervisord(state=folder / "state", runtime=folder / "run", logs=folder / "logs", clock=SystemClock())
asyncio.run(manager.shut_down())
asyncio.run(manager.remove("own"))
print("goes on")
"""


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Supervisord]:
    found = make(tmp_path)
    yield found
    await found.shut_down()


def make(tmp_path: Path, *, begins: bool = True) -> Supervisord:
    return Supervisord(
        state=tmp_path / "state",
        runtime=tmp_path / "run",
        logs=tmp_path / "logs",
        clock=SystemClock(),
        patience=2,
        begins=begins,
    )


def service(tmp_path: Path, program: str = PATIENT, name: str = "patient") -> HostService:
    return HostService(name, (sys.executable, "-c", program, str(tmp_path)))


def instances(wanted: HostService) -> list[int]:
    return processes_matching(lambda pid: command_line(pid) == wanted.argv)


async def one_instance(wanted: HostService, *, other_than: int = 0) -> int:
    async def probe() -> int | None:
        found = instances(wanted)
        return found[0] if len(found) == 1 and found[0] != other_than else None

    return await wait_for(probe, what="exactly one instance", timeout=60, clock=SystemClock())


def supervisor_pid(tmp_path: Path) -> int:
    return int((tmp_path / "run/supervisor.pid").read_text())


async def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)

    async def gone() -> bool:
        return command_line(pid) == ()

    await wait_for(gone, what="the killed process to be gone", timeout=60, clock=SystemClock())


async def test_a_killed_service_is_started_again(manager: Supervisord, tmp_path: Path) -> None:
    wanted = service(tmp_path)
    await manager.ensure(wanted)
    before = await one_instance(wanted)
    await killed(before)
    await one_instance(wanted, other_than=before)


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/autogroup").exists(), reason="the kernel groups no sessions here"
)
async def test_services_come_before_other_sessions(manager: Supervisord, tmp_path: Path) -> None:
    wanted = service(tmp_path)
    await manager.ensure(wanted)
    group, _, weight = Path(f"/proc/{await one_instance(wanted)}/autogroup").read_text().partition(" ")
    assert weight.split() == ["nice", "-10"]
    # A process in no group, as one without a session of its own may be, reads an empty file.
    assert group != Path("/proc/self/autogroup").read_text().partition(" ")[0]


async def test_after_a_killed_supervisord_no_service_runs_twice(manager: Supervisord, tmp_path: Path) -> None:
    wanted = service(tmp_path)
    await manager.ensure(wanted)
    orphan = await one_instance(wanted)
    await killed(supervisor_pid(tmp_path))
    assert instances(wanted) == [orphan]
    await make(tmp_path).ensure(wanted)
    await one_instance(wanted, other_than=orphan)


async def test_an_orphan_whose_definition_changes_is_ended_too(manager: Supervisord, tmp_path: Path) -> None:
    before, after = service(tmp_path), service(tmp_path, f"another = True; {PATIENT}")
    await manager.ensure(before)
    await one_instance(before)
    await killed(supervisor_pid(tmp_path))
    await manager.ensure(after)
    await one_instance(after)
    assert instances(before) == []


async def test_a_host_service_neither_starts_a_killed_supervisord_nor_ends_what_it_left(
    manager: Supervisord, tmp_path: Path
) -> None:
    wanted, other = service(tmp_path), service(tmp_path, name="other")
    worker = make(tmp_path, begins=False)
    with pytest.raises(UnavailableError) as refused:
        await worker.ensure(wanted)
    assert refused.value.hint == "run 'haneul up'"
    await manager.ensure(wanted)
    orphan = await one_instance(wanted)
    assert await worker.ensure(wanted) is False
    await killed(supervisor_pid(tmp_path))
    for one in (wanted, other):
        with pytest.raises(UnavailableError):
            await worker.ensure(one)
    assert instances(wanted) == [orphan]
    assert [state.name for state in await worker.states()] == ["patient"]
    await manager.ensure(wanted)
    await one_instance(wanted, other_than=orphan)
    assert await worker.ensure(wanted) is False


async def test_nobody_ends_itself_as_an_orphan(tmp_path: Path) -> None:
    """A process of its own asks: those that run tests beside this one have the same command line as this one has."""
    folder = tmp_path / "state/services"
    folder.mkdir(parents=True)
    (tmp_path / "program.py").write_text(ENDING_ORPHANS)
    argv = (sys.executable, str(tmp_path / "program.py"), str(tmp_path))
    (folder / "own.conf").write_text(f"[program:own]\ncommand={shlex.join(argv)}\n")
    assert (await run(argv, timeout=60)).stdout == "goes on\n"
    assert not (folder / "own.conf").exists()


async def test_removing_ends_what_a_killed_supervisord_left(manager: Supervisord, tmp_path: Path) -> None:
    wanted = service(tmp_path)
    await manager.ensure(wanted)
    await one_instance(wanted)
    await killed(supervisor_pid(tmp_path))
    await manager.remove("patient")
    assert instances(wanted) == []
    assert await manager.states() == []


async def test_the_sleep_that_a_service_became_is_known_when_a_killed_supervisord_left_it(
    manager: Supervisord, tmp_path: Path
) -> None:
    argv = renewal_service(tmp_path / "state").argv
    # What it looks at first, this host's certificates, is not what this is about.
    wanted = HostService("certificates", (*argv[: argv.index(sys.executable)], "/bin/true"))
    asleep = str(tmp_path / "state/certificates"), "21600"
    await manager.ensure(wanted)

    async def sleeps() -> int | None:
        return next(iter(processes_matching(lambda pid: command_line(pid) == asleep)), None)

    orphan = process_at(await wait_for(sleeps, what="the service to sleep", timeout=60, clock=SystemClock()))
    assert orphan is not None
    await killed(supervisor_pid(tmp_path))
    assert Ownership(Path("/nowhere"), tmp_path / "state", frozenset()).of({orphan.pid: orphan})
    await manager.shut_down()
    assert processes_matching(lambda pid: command_line(pid) == asleep) == []


async def test_a_renewal_that_hangs_is_ended_and_another_comes(manager: Supervisord, tmp_path: Path) -> None:
    argv = renewal_service(tmp_path / "state").argv
    first = argv.index(sys.executable)
    assert argv[first - 1] == "3600"
    wanted = HostService("certificates", (*argv[: first - 1], "1", "/bin/sleep", "infinity"))
    soon = str(tmp_path / "state/certificates"), "300"
    await manager.ensure(wanted)

    async def sleeps() -> bool:
        return bool(processes_matching(lambda pid: command_line(pid) == soon))

    await wait_for(sleeps, what="the service to sleep until the next look", timeout=60, clock=SystemClock())
    await manager.shut_down()
    assert not await sleeps()


async def test_shutting_down_ends_what_a_killed_supervisord_left(manager: Supervisord, tmp_path: Path) -> None:
    wanted = service(tmp_path)
    await manager.ensure(wanted)
    await one_instance(wanted)
    await killed(supervisor_pid(tmp_path))
    await manager.shut_down()
    assert instances(wanted) == []


async def test_a_service_that_will_not_end_is_ended_in_the_end(manager: Supervisord, tmp_path: Path) -> None:
    wanted = service(tmp_path, STUBBORN)
    await manager.ensure(wanted)
    await one_instance(wanted)
    log = tmp_path / "logs/patient.log"

    async def deaf() -> bool:
        return log.exists() and "ready" in log.read_text()

    await wait_for(deaf, what="the service to ignore SIGTERM", timeout=60, clock=SystemClock())
    await killed(supervisor_pid(tmp_path))
    await manager.remove("patient")
    assert instances(wanted) == []


async def test_arguments_arrive_as_they_are(manager: Supervisord, tmp_path: Path) -> None:
    wanted = HostService("patient", (sys.executable, "-c", PATIENT, "a b", "100%", "it's", '"quoted"', str(tmp_path)))
    await manager.ensure(wanted)
    await one_instance(wanted)


async def test_environment_and_output_are_kept(manager: Supervisord, tmp_path: Path) -> None:
    program = f"import os; print(os.environ['GREETING'], flush=True); {PATIENT}"
    wanted = HostService("speaker", (sys.executable, "-c", program, str(tmp_path)), (("GREETING", "hi, it's 100%"),))
    await manager.ensure(wanted)
    log = tmp_path / "logs/speaker.log"

    async def spoken() -> bool:
        return log.exists() and "hi, it's 100%" in log.read_text()

    await wait_for(spoken, what="the service's output", timeout=60, clock=SystemClock())
    assert (tmp_path / "state/services/speaker.conf").stat().st_mode & 0o777 == 0o600


async def test_only_root_may_talk_to_it(manager: Supervisord, tmp_path: Path) -> None:
    await manager.ensure(service(tmp_path))
    await one_instance(service(tmp_path))
    assert (tmp_path / "run/supervisor.sock").stat().st_mode & 0o777 == 0o600


async def test_a_service_that_was_started_just_now_ends_at_once_when_asked_to(tmp_path: Path) -> None:
    """What supervisord has forked but not executed yet would swallow the signal, and be killed only much later."""
    manager = Supervisord(
        state=tmp_path / "state", runtime=tmp_path / "run", logs=tmp_path / "logs", clock=SystemClock(), patience=120
    )
    wanted = service(tmp_path)
    try:
        async with asyncio.timeout(100):
            for _ in range(8):
                await manager.ensure(wanted)
                await manager.stop("patient")
                assert instances(wanted) == []
                await manager.ensure(wanted)
                await manager.remove("patient")
                assert instances(wanted) == []
            await manager.ensure(wanted)
            await manager.shut_down()
            assert instances(wanted) == []
    finally:
        for pid in instances(wanted):
            await killed(pid)
        await manager.shut_down()
