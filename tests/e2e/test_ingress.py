"""An Ingress on a real cluster: reached by its name over HTTPS whoever is dead, guarded by sign-on, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from haneul.app.demo import deploy_workload, kill_masters
from haneul.app.installation import Installation
from haneul.app.platform import PlatformFiles
from haneul.app.platform_gate import USER, PlatformGate
from haneul.cli.context import Contexts
from haneul.dkos.readers import INGRESS
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.files import read_private
from haneul.kernel.kube import CONFIG_MAPS, INGRESSES, NODES, SECRETS, SERVICES, KubeApiError, Manifest
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.waiting import wait_for
from haneul.management import host_users
from haneul.management.ingress_host import IngressFiles
from haneul.management.remains import mounts_below
from tests.e2e.names import resolved, until_resolved
from tests.e2e.tenants import PROJECT, tenant
from tests.pebble import pebble
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
NAME = "published"
#: The Core Rule Set's number of a rule that sees SQL in a parameter.
SEES_SQL = "942100"


class PlatformNames(AbstractResolver):
    """Asks the platform's own DNS server."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        code, values = await resolved(self._installation, host)
        if not values:
            raise OSError(f"{host}: {code}")
        return [ResolveResult(hostname=host, host=value, port=port, family=2, proto=0, flags=0) for value in values]

    async def close(self) -> None:
        """Hold nothing."""


@pytest.fixture
async def published(project: str) -> AsyncIterator[str]:
    """A cluster with one node and three replicas of a workload; its domain."""
    await asyncio.to_thread(haneul, "cluster", "create", NAME, "--memory", "1024", "-p", project)
    try:
        with Contexts.default().client() as client:
            await deploy_workload(client, NAME, CLOCK, project=PROJECT)
        yield f"{NAME}.{PROJECT}"
    finally:
        await asyncio.to_thread(haneul, "ingress", "audit", "usual", "--cluster", f"{PROJECT}/{NAME}", check=False)
        await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", project, check=False)


def ingress(name: str, host: str, service: str, **annotations: str) -> Manifest:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    return {
        "apiVersion": INGRESSES.api_version,
        "kind": INGRESSES.kind,
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
        },
    }


def inside(service: Manifest) -> Manifest:
    """Return a Service for the same pods that has no port of nodes, as most have none."""
    ports = [{"port": 80, "targetPort": port["targetPort"]} for port in service["spec"]["ports"][:1]]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "inside", "namespace": "default"},
        "spec": {"selector": service["spec"]["selector"], "ports": ports},
    }


class Client:
    """Somebody who asks the platform's DNS server, and trusts the platform's authority."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._tls = ssl.create_default_context(cafile=str(PlatformFiles(installation.settings.state).authority))

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Return the status, and the text or where it leads."""
        connector = aiohttp.TCPConnector(resolver=PlatformNames(self._installation), ssl=self._tls, force_close=True)
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status, answer.headers.get("Location", "") or await answer.text()

    async def until(self, url: str, status: int, headers: Mapping[str, str] | None = None) -> str:
        """Wait until an address answers so; return the text or where it leads."""
        said = ["nothing", ""]

        async def answered() -> bool:
            try:
                found, said[1] = await self.get(url, headers)
            except (OSError, aiohttp.ClientError, TimeoutError) as error:
                said[0] = repr(error)
                return False
            said[0] = str(found)
            return found == status

        try:
            await wait_for(answered, what=f"{url} to answer {status}", timeout=60, clock=CLOCK)
        except HaneulError as error:
            raise AssertionError(f"{error.detail}; the last answer: {said}") from error
        return said[1]


async def test_an_ingress_is_all_that_it_takes(published: str, installation: Installation) -> None:
    domain = f"{published}.{installation.settings.zone}"
    client = Client(installation)
    async with tenant(NAME) as kube:
        service = await kube.get(SERVICES, "web", "default")
        assert service is not None
        await kube.apply(SERVICES, inside(service))
        await kube.apply(INGRESSES, ingress("web", f"web.{domain}", "inside"))
        await kube.apply(INGRESSES, ingress("theirs", "www.example.org", "inside"))
        await kube.apply(
            INGRESSES, ingress("guarded", f"guarded.{domain}", "inside", **{"haneul.dev/auth": "required"})
        )
        await client.until(f"https://web.{domain}/hostname", 200)
        assert await client.get(f"http://web.{domain}/hostname") == (308, f"https://web.{domain}/hostname")
        found = await kube.get(INGRESSES, "web", "default") or {}
        (at,) = found["status"]["loadBalancer"]["ingress"]
        await until_resolved(installation, f"web.{domain}", ("NOERROR", [at["ip"]]))
        shown = await asyncio.to_thread(haneul, "ingress", "list", "--cluster", f"{PROJECT}/{NAME}", "-o", "json")
        row = next(row for row in json.loads(shown.stdout) if row["ingress"] == "web")
        assert (row["host"], row["address"], row["backend"]) == (f"web.{domain}", at["ip"], "default/inside:")

        await guards(client, installation, f"https://guarded.{domain}")
        await is_recorded(client, f"https://web.{domain}/hostname")

        # Neither masters nor whoever tells nginx what to serve are needed for serving, nor for coming back.
        states = {state.name: state for state in await installation.services.states()}
        (nginx,) = [state for name, state in states.items() if name.startswith(f"ingress-{NAME}.{PROJECT}.")]
        assert await kill_masters(installation, PROJECT, NAME) >= 4
        os.kill(nginx.pid or 0, signal.SIGKILL)
        os.kill(states["ingress"].pid or 0, signal.SIGKILL)
        await client.until(f"https://web.{domain}/hostname", 200)
        await guards(client, installation, f"https://guarded.{domain}")

        async def back() -> bool:
            try:
                await kube.raw_get("/readyz")
            except HaneulError:
                return False
            return True

        await wait_for(back, what="the masters to be back", timeout=90, clock=CLOCK)
        await client.until(f"https://web.{domain}/hostname", 200)

    await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", PROJECT)
    await until_resolved(installation, f"web.{domain}", ("NXDOMAIN", []))

    async def gone() -> bool:
        names = [state.name for state in await installation.services.states()]
        return not any(name.startswith(f"ingress-{NAME}.{PROJECT}.") for name in names)

    await wait_for(gone, what="the cluster's nginx to go", timeout=60, clock=CLOCK)
    await wait_for(lambda: freed(installation, at["ip"]), what="its address to be free", timeout=60, clock=CLOCK)
    files = IngressFiles(installation.settings.state)
    assert not await asyncio.to_thread(left, files.proxies, at["ip"])
    # Nothing of its audit trail is left either.
    assert not mounts_below(Path("/proc/self/mountinfo").read_text(), [files.proxies])
    assert not list(files.trails.glob("*/cluster"))


async def test_a_granted_host_is_certified_by_an_issuer_that_up_names(
    published: str, installation: Installation, tmp_path: Path
) -> None:
    host, domain = "www.example.com", f"{published}.{installation.settings.zone}"
    client = Client(installation)
    async with tenant(NAME) as kube:
        service = await kube.get(SERVICES, "web", "default")
        assert service is not None
        await kube.apply(SERVICES, inside(service))
        await kube.apply(INGRESSES, ingress("web", f"web.{domain}", "inside"))
        await client.until(f"https://web.{domain}/hostname", 200)
        found = await kube.get(INGRESSES, "web", "default") or {}
        (at,) = found["status"]["loadBalancer"]["ingress"]
        async with pebble(tmp_path, address=at["ip"], http_port=80) as authority:
            root = (await authority.root()).decode()
            file = tmp_path / "issuer.yaml"
            told = {"directory": authority.directory, "authorities": "ca.pem", "termsOfServiceAgreed": True}
            file.write_text(json.dumps(told))
            try:
                await asyncio.to_thread(haneul, "up", "--acme", str(file), timeout=600)
                await asyncio.to_thread(haneul, "ingress", "grant", host, f"{PROJECT}/{NAME}")
                await kube.apply(INGRESSES, ingress("www", host, "inside"))
                await wait_for(
                    lambda: trusted(at["ip"], host, root), what=f"{host} to be certified", timeout=120, clock=CLOCK
                )
                # Names that nobody finds in public have the platform's certificates as before.
                await client.until(f"https://web.{domain}/hostname", 200)
            finally:
                await asyncio.to_thread(haneul, "ingress", "revoke", host, check=False)
                await asyncio.to_thread(haneul, "up", "--no-acme", timeout=600)


async def trusted(address: str, host: str, root: str) -> bool:
    """Say whether a host shows a certificate that whoever trusts one authority takes."""
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(
                address, 443, ssl=ssl.create_default_context(cadata=root), server_hostname=host
            )
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def guards(client: Client, installation: Installation, url: str) -> None:
    """Browsers are sent to sign on, and who is signed on gets in with a name that no client wrote."""
    sign_on = await client.until(f"{url}/hostname", 302, {"Accept": "text/html"})
    assert sign_on.startswith(f"https://auth.{installation.settings.zone}/start?")
    issuer = await client.until(sign_on, 303, {"Accept": "text/html"})
    assert issuer.startswith(f"https://{installation.settings.address}:7443/oidc/")
    assert (await client.get(f"{url}/hostname"))[0] == 401
    token = read_private(PlatformFiles(installation.settings.state).admin_token).strip()
    with Contexts.default().client() as api:
        name = (await asyncio.to_thread(api.get, "/whoami"))["person"]
    signed_on = {"Authorization": f"Bearer {token}", "X-Haneul-User": "somebody-else"}
    assert await client.until(f"{url}/header?key=X-Haneul-User", 200, signed_on) == name


async def test_host_services_have_the_rights_that_they_use(installation: Installation) -> None:
    """The gate is nobody; the worker has a credential that lets it do its work alone, and takes up a renewed one."""
    gate = PlatformGate(installation.settings)
    fields = status_of(await pid(installation, "auth"))
    assert set(fields["Uid"]) == set(fields["Gid"]) == {str(USER)}
    assert {int(fields[f"Cap{kind}"][0], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
    assert {path.name for path in gate.folder.iterdir()} <= {"certificates", "nginx", "own"}

    kubeconfig = host_users.INGRESS.kubeconfig(installation.settings.state)
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    assert await refused(kubeconfig) == []
    before = access_from_kubeconfig(kubeconfig), await pid(installation, "ingress")
    kubeconfig.unlink()
    await asyncio.to_thread(haneul, "renew")
    assert access_from_kubeconfig(kubeconfig) != before[0]

    async def another() -> bool:
        return await pid(installation, "ingress") not in (0, before[1])

    # It looks once a minute.
    await wait_for(another, what="the worker of ingress to begin anew", timeout=240, clock=CLOCK)
    assert await refused(kubeconfig) == []


@pytest.mark.long
async def test_up_takes_over_from_the_version_before(installation: Installation) -> None:
    """Where the gate was root and the worker the administrator, files lay elsewhere, or not at all."""
    gate = PlatformGate(installation.settings)
    keys = (gate.own / "keys").read_text()
    for name in ("keys", "client.secret"):
        (gate.own / name).rename(gate.folder / name)
    (gate.own / "gate.yaml").unlink()
    kubeconfig = host_users.INGRESS.kubeconfig(installation.settings.state)
    kubeconfig.unlink()
    before = await pid(installation, "auth")
    await asyncio.to_thread(haneul, "up", timeout=900)
    assert await refused(kubeconfig) == []
    assert (gate.own / "keys").read_text() == keys
    assert not gate.is_of_before()
    after = await pid(installation, "auth")
    assert after not in (0, before)
    # Its end of a browser answers once it runs, which it does as its own user by then.
    await Client(installation).until(f"https://{gate.host}/sign-out", 200, {"Accept": "text/html"})
    assert set(status_of(after)["Uid"]) == {str(USER)}


async def pid(installation: Installation, name: str) -> int:
    """Return the number of a host service's process, or 0."""
    states = {state.name: state for state in await installation.services.states()}
    return states[name].pid or 0


def status_of(process: int) -> dict[str, list[str]]:
    """Return what the kernel says of a process (proc_pid_status(5))."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


async def refused(kubeconfig: Path) -> list[str]:
    """Return what the worker of ingress may not do though it has to, or may do though it need not."""
    wrong = []
    async with HttpKubeClient(access_from_kubeconfig(kubeconfig)) as client:
        for resource, namespace, may in (
            (SECRETS, INGRESS.name, True),
            (CONFIG_MAPS, INGRESS.name, True),
            (SECRETS, "kube-system", False),
            (SECRETS, "", False),
            (NODES, "", False),
        ):
            try:
                await client.list(resource, namespace)
            except KubeApiError as error:
                if may or error.status != 403:
                    wrong.append(f"{resource.plural} in {namespace!r}: {error.detail}")
            else:
                if not may:
                    wrong.append(f"{resource.plural} in {namespace!r} are shown")
    return wrong


async def is_recorded(client: Client, url: str) -> None:
    """Once its switch is on, an attack passes, is in the cluster's audit trail, and is collected and found."""
    owner = f"{PROJECT}/{NAME}"
    await asyncio.to_thread(haneul, "ingress", "audit", "on", "--cluster", owner)

    async def seen() -> bool:
        await client.until(f"{url}?id=1%27%20OR%201=1--%20-", 200)
        shown = await asyncio.to_thread(haneul, "logs", "ingress", owner, "--since", "10m", "-o", "json", check=False)
        return shown.returncode == 0 and SEES_SQL in rules_in(shown.stdout)

    await wait_for(seen, what="an attack to be recorded", timeout=120, clock=CLOCK, interval=1.0)
    await asyncio.to_thread(haneul, "logs", "ingress", owner, "--since", "10m", "--collect")
    found = await asyncio.to_thread(haneul, "logs", "search", owner, "--path", "/hostname", "-o", "json")
    assert SEES_SQL in rules_in(found.stdout)


def rules_in(records: str) -> set[str]:
    return {message["rule"] for record in json.loads(records) for message in record["audit_data"]["messages"]}


async def freed(installation: Installation, address: str) -> bool:
    async with HttpKubeClient(access_from_kubeconfig(installation.settings.admin_kubeconfig)) as client:
        claims = await client.list(CONFIG_MAPS, INGRESS.name)
    return address not in {(claim.get("data") or {}).get("address") for claim in claims}


def left(folder: Path, address: str) -> list[Path]:
    """Return the configurations that still name an address."""
    return [file for file in folder.glob("*/nginx.conf") if address in file.read_text()]
