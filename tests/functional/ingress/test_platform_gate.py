"""The platform's sign-on gate: what it and the nginx of its own host are told."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from haneul.app.auth import rotated_keys
from haneul.app.ingress_worker import gate_of
from haneul.app.platform import PlatformFiles
from haneul.app.platform_gate import USER, PlatformGate, door_configuration
from haneul.host.supervisord import Supervisord
from haneul.ingress.adapters.nginx.confined import Confinement
from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.ingress.ports import ConfigurationRefusedError
from haneul.kernel.clock import SystemClock
from haneul.kernel.pki import issue_authority
from haneul.management.settings import ManagementSettings
from haneul.signon.adapters.ended_file import EndedFile
from haneul.signon.keyring import as_text, new_key
from haneul.signon.settings import read_settings
from tests.ingress_proxy import program, until
from tests.ports import port
from tests.unit.ingress.objects import certificate

CLOCK = SystemClock()


@pytest.fixture
def gate() -> Iterator[PlatformGate]:
    folder = Path(tempfile.mkdtemp(prefix="haneul-"))
    place = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(2)), "16"])  # noqa: S311
    yield PlatformGate(ManagementSettings(address="192.0.2.2", host_name="node-1", state=folder, ingress=f"{place}/28"))
    shutil.rmtree(folder)


def prepared(gate: PlatformGate) -> PlatformGate:
    """Write all that the gate reads, as `up` does once the issuer knows the gate."""
    if os.geteuid() != 0:
        pytest.skip("the gate gets a user of its own from root")
    files = PlatformFiles(gate.settings.state)
    files.authority.write_bytes(issue_authority("test platform", now=CLOCK.now()).certificate)
    gate.own.mkdir(parents=True, exist_ok=True)
    (gate.own / "client.secret").touch(mode=0o600)
    (gate.own / "client.secret").write_text("secret\n")
    gate.prepare(clock=CLOCK)
    return gate


def test_the_gate_reads_what_it_is_told(gate: PlatformGate) -> None:
    prepared(gate)
    settings = read_settings(gate.own / "gate.yaml")
    assert settings.sites.host == "auth.haneul.internal"
    assert settings.sites.allows("https://web.first.team.haneul.internal/")
    assert settings.platform is not None
    assert {settings.platform.authority_file, settings.keys_file} == {gate.own / "platform-ca.crt", gate.own / "keys"}
    asked = gate_of(gate.settings)
    assert asked is not None
    assert asked.address == settings.listen
    first = gate.service(build="1", search_path="/bin")
    # Two moments of a file system may be the same one.
    os.utime(gate.own / "client.secret", (1, 1))
    assert gate.service(build="1", search_path="/bin") != first


def test_only_the_gate_reads_its_secrets_and_only_root_writes_beside_them(gate: PlatformGate) -> None:
    prepared(gate)
    seen = {path.name: path.stat() for path in (gate.own, *gate.own.iterdir())}
    assert {name for name, found in seen.items() if found.st_uid == USER} == {"keys", "client.secret", "signed-out"}
    assert {name for name, found in seen.items() if found.st_uid not in (0, USER)} == set()
    assert [seen[name].st_mode & 0o777 for name in ("keys", "client.secret", "signed-out")] == [0o600, 0o600, 0o700]
    # Root rotates keys, and they stay the gate's.
    before = (gate.own / "keys").read_text()
    assert rotated_keys(gate.own / "gate.yaml", end_sessions=True) == 1
    keys = gate.own / "keys"
    assert keys.read_text() != before
    assert (keys.stat().st_uid, keys.stat().st_gid, keys.stat().st_mode & 0o777) == (USER, USER, 0o600)
    # What it is told again is no other service; with another authority it begins anew.
    first = gate.service(build="1", search_path="/bin")
    gate.prepare(clock=CLOCK)
    assert gate.service(build="1", search_path="/bin") == first
    authority = PlatformFiles(gate.settings.state).authority
    authority.write_bytes(issue_authority("another", now=CLOCK.now()).certificate)
    gate.prepare(clock=CLOCK)
    assert (gate.own / "platform-ca.crt").read_bytes() == authority.read_bytes()
    assert gate.service(build="1", search_path="/bin") != first


@pytest.mark.parametrize("killed_after", [None, "keys", "client.secret", "signed-out"])
def test_what_a_gate_that_was_root_left_is_taken_over(
    gate: PlatformGate, killed_after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(gate)
    later = int(CLOCK.now().timestamp()) + 3600
    of_before = {
        "gate.yaml": "url: https://auth.haneul.internal\n",
        "keys": as_text([new_key(CLOCK.now())]),
        "keys.lock": "",
        "client.secret": "of before\n",
        "signed-out": f"{later} over\n",
        "signed-out.lock": "",
    }
    for name, content in of_before.items():
        (gate.folder / name).touch(mode=0o600)
        (gate.folder / name).write_text(content)
    (gate.folder / "nginx").mkdir()
    assert gate.is_of_before()
    if killed_after is not None:
        with monkeypatch.context() as patched, pytest.raises(EndedError):
            patched.setattr(Path, "replace", ending_after(killed_after))
            gate.prepare(clock=CLOCK)
        assert gate.is_of_before()
    gate.prepare(clock=CLOCK)
    assert not gate.is_of_before()
    assert sorted(path.name for path in gate.folder.iterdir()) == ["nginx", "own"]
    places = {"keys": "keys", "client.secret": "client.secret", "signed-out": "signed-out/sessions"}
    for name, place in places.items():
        found = gate.own / place
        assert (found.read_text(), found.stat().st_uid) == (of_before[name], USER)
        assert found.stat().st_mode & 0o777 == 0o600
    assert EndedFile(gate.own / "signed-out/sessions", clock=CLOCK).ended("over")


class EndedError(Exception):
    """The process was killed here."""


def ending_after(name: str) -> Callable[[Path, Path], Path]:
    """Return what puts files in their place and, after the one of a name, is killed."""

    def replace(path: Path, target: Path) -> Path:
        path.rename(target)
        if path.name == name:
            raise EndedError
        return target

    return replace


async def test_the_gate_is_nobody_and_sees_its_own_folder_alone(gate: PlatformGate) -> None:
    gate = PlatformGate(replace(gate.settings, gate_port=port()))
    state = gate.settings.state
    prepared(gate)
    # Everybody may enter the folder of the test, as everybody may enter the one that the state is in.
    state.chmod(0o700)
    (gate.folder / "certificates").mkdir(mode=0o700)
    (state / "admin.kubeconfig").touch(mode=0o600)
    services = Supervisord(
        state=state, runtime=state / "run", logs=state / "logs", clock=CLOCK, patience=10, begins=True
    )
    try:
        await services.ensure(gate.service(build="1", search_path=os.environ["PATH"]))
        async with httpx2.AsyncClient(base_url=f"http://{gate.listen}", timeout=60, trust_env=False) as http:

            async def answers() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return (await http.get("/healthz")).status_code == 200
                return False

            await until(answers, "the gate to answer")
            # It has its keys, and so judges: who brings nothing is asked to sign on.
            assert (await http.get("/auth", headers={"X-Haneul-Rule": "anyone"})).status_code == 401
        (running,) = await services.states()
        process = Path(f"/proc/{running.pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Eff", "Prm", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        inside = process / "root" / state.relative_to("/")
        assert [str(path.relative_to(inside)) for path in sorted(inside.glob("*"))] == ["gate"]
        assert [path.name for path in (inside / "gate").iterdir()] == ["own"]
        # What ended it writes, and nothing beside.
        assert (gate.own / "signed-out/sessions").stat().st_uid == USER
    finally:
        await services.shut_down()


class Nobody:
    """Keeps no nginx."""

    async def number(self) -> int | None:
        return None

    async def start(self) -> None:
        """Start none."""

    async def end(self) -> bool:
        return False


async def test_nginx_takes_the_configuration_of_the_gates_host(gate: PlatformGate) -> None:
    if os.geteuid() != 0:
        pytest.skip("proxies get users of their own from root")
    user = 1_950_000_000 + random.randrange(1 << 20)  # noqa: S311
    processes = NginxProcesses(
        gate.folder, program=program(), user="", clock=CLOCK, confinement=Confinement(user, Nobody())
    )
    processes.prepare()
    text = door_configuration(gate)
    assert f"listen {gate.address}:443 ssl" in text
    with pytest.raises(ConfigurationRefusedError, match="cannot load certificate"):
        await processes.check(text)
    pair = certificate(gate.host)
    processes.write({"private/host.crt": pair.certificate, "private/host.key": pair.key})
    await processes.check(text)
