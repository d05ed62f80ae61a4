"""The platform's sign-on gate: what it and the nginx of its own host are told."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from haneul.app.ingress_worker import gate_of
from haneul.app.platform_gate import PlatformGate, door_configuration
from haneul.ingress.adapters.nginx.confined import Confinement
from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.ingress.ports import ConfigurationRefusedError
from haneul.kernel.clock import SystemClock
from haneul.management.settings import ManagementSettings
from haneul.signon.settings import read_settings
from tests.ingress_proxy import program
from tests.unit.ingress.objects import certificate


@pytest.fixture
def gate() -> Iterator[PlatformGate]:
    folder = Path(tempfile.mkdtemp(prefix="haneul-"))
    place = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(2)), "16"])  # noqa: S311
    yield PlatformGate(ManagementSettings(address="192.0.2.2", host_name="node-1", state=folder, ingress=f"{place}/28"))
    shutil.rmtree(folder)


def test_the_gate_reads_what_it_is_told(gate: PlatformGate) -> None:
    gate.folder.mkdir()
    (gate.folder / "client.secret").touch(mode=0o600)
    (gate.folder / "client.secret").write_text("secret\n")
    (gate.folder / "gate.yaml").write_text(yaml.safe_dump(gate.document()))
    settings = read_settings(gate.folder / "gate.yaml")
    assert settings.sites.host == "auth.haneul.internal"
    assert settings.sites.allows("https://web.first.team.haneul.internal/")
    asked = gate_of(gate.settings)
    assert asked is not None
    assert asked.address == settings.listen
    first = gate.service(build="1", search_path="/bin")
    # Two moments of a file system may be the same one.
    os.utime(gate.folder / "client.secret", (1, 1))
    assert gate.service(build="1", search_path="/bin") != first


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
        gate.folder, program=program(), user="", clock=SystemClock(), confinement=Confinement(user, Nobody())
    )
    processes.prepare()
    text = door_configuration(gate)
    assert f"listen {gate.address}:443 ssl" in text
    with pytest.raises(ConfigurationRefusedError, match="cannot load certificate"):
        await processes.check(text)
    pair = certificate(gate.host)
    processes.write({"private/host.crt": pair.certificate, "private/host.key": pair.key})
    await processes.check(text)
