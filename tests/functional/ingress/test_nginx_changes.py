"""What happens to requests and connections of real nginx while endpoints, routes and certificates change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.ingress.adapters.nginx.processes import NginxProcesses, accepting, is_running
from haneul.ingress.adapters.nginx.proxy import NginxProxy
from haneul.ingress.annotations import PREFIX
from haneul.ingress.ports import Configuration, ConfigurationRefusedError
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import DeadlineExceededError, UnavailableError
from haneul.kernel.pki import KeyPair
from tests.ingress_proxy import PATIENCE, USER, Application, Ground, free_address, ground, program, until
from tests.unit.ingress.objects import HOST, certificate, ingress, path, tls_secret


@pytest.fixture
async def served() -> AsyncIterator[tuple[Ground, Application, Application]]:
    """Yield nginx with the Ingress of one host, whose Service has the first of two applications."""
    async with ground() as made, Application("one").running() as one, Application("two").running() as two:
        made.see(ingress("web"))
        made.point("web", one)
        await made.route()
        yield made, one, two


def workers(master: int) -> set[str]:
    return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())


Served = tuple[Ground, Application, Application]


async def test_endpoints_change_without_a_reload(served: Served) -> None:
    ground, one, two = served
    master = await ground.processes.master()
    assert master
    before = workers(master)
    async with ground.session(limit=1) as session:

        async def app() -> str:
            async with session.get(ground.url(), headers={"Host": HOST}) as answer:
                return str((await answer.json())["app"]) if answer.status == 200 else str(answer.status)

        assert await app() == "one"
        ground.point("web", two)
        await ground.repoint()
        assert await app() == "two"
        ground.point("web", one, two)
        await ground.repoint()
        assert {await app() for _ in range(4)} == {"one", "two"}
        ground.point("web")
        await ground.repoint()
        assert await app() == "503"
    assert workers(master) == before


async def test_no_request_fails_while_endpoints_are_replaced(served: Served) -> None:
    ground, one, two = served
    counts: dict[str, int] = {}
    done = asyncio.Event()

    async def ask() -> None:
        async with ground.session(limit=1) as session:
            while not done.is_set():
                async with session.get(ground.url(), headers={"Host": HOST}) as answer:
                    name = (await answer.json())["app"] if answer.status == 200 else str(answer.status)
                    counts[name] = counts.get(name, 0) + 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for turn in range(20):
        ground.point("web", one if turn % 2 else two)
        await ground.repoint()
    done.set()
    await asyncio.gather(*asking)
    assert set(counts) <= {"one", "two"}
    assert sum(counts.values()) >= 4


async def test_reloads_end_no_connection_and_fail_no_request(served: Served) -> None:
    ground, one, _ = served
    async with ground.session() as session, contextlib.AsyncExitStack() as stack:
        headers = {"Host": HOST}
        socket = await stack.enter_async_context(session.ws_connect(ground.url("/talk"), headers=headers))
        await socket.send_str("before")
        assert await socket.receive_str() == "one heard before"
        slow = await stack.enter_async_context(session.get(ground.url("/slow"), headers=headers))
        assert await slow.content.readany() == b"begun "

        done, statuses = asyncio.Event(), list[int]()

        async def ask() -> None:
            while not done.is_set():
                statuses.append((await ground.ask()).status)

        asking = [asyncio.create_task(ask()) for _ in range(2)]
        master = await ground.processes.master()
        for number in range(3):
            ground.see(ingress(f"more-{number}", host=f"more-{number}.example.com"))
            await ground.route()
            assert (await ground.ask(host=f"more-{number}.example.com")).status == 200
        done.set()
        await asyncio.gather(*asking)
        assert set(statuses) == {200}
        assert await ground.processes.master() == master

        await socket.send_str("after")
        assert await socket.receive_str() == "one heard after"
        one.released.set()
        assert await slow.content.read() == b"ended"


async def test_a_route_has_its_endpoints_from_its_first_moment(served: Served) -> None:
    ground, _, two = served
    ground.point("next", two)
    ground.see(ingress("web", path("/", service="next")))
    done, apps = asyncio.Event(), set[str]()

    async def ask() -> None:
        while not done.is_set():
            answer = await ground.ask()
            apps.add(answer.said["app"] if answer.status == 200 else str(answer.status))

    asking = asyncio.create_task(ask())
    await ground.route()
    apps.add((await ground.ask()).said["app"])
    done.set()
    await asking
    assert apps <= {"one", "two"}
    assert "two" in apps


async def test_a_reload_is_over_when_workers_of_before_take_no_more_connections(served: Served) -> None:
    ground, _, two = served
    master = await ground.processes.master()
    assert master
    before = sorted(map(int, workers(master)))
    ground.point("next", two)
    ground.see(ingress("web", path("/", service="next")))
    hasty = NginxProcesses(ground.folder, program=program(), user=USER, clock=SystemClock(), patience=3)
    # One that stands still takes part in nothing, but nobody knows for how long.
    os.kill(before[0], signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceededError):
            await NginxProxy(ground.folder, hasty).route(*ground.made())
    finally:
        os.kill(before[0], signal.SIGCONT)

    async def ended() -> bool:
        return not set(before) & accepting(master)

    await until(ended, "workers of before to take no more connections")
    await ground.route()
    assert {(await ground.ask()).said["app"] for _ in range(8)} == {"two"}


async def test_the_same_again_is_no_reload(served: Served) -> None:
    ground, _, _ = served
    master = await ground.processes.master()
    assert master
    before = workers(master)
    await ground.route()
    assert workers(master) == before


async def test_what_nginx_does_not_take_changes_nothing(served: Served) -> None:
    ground, _, _ = served
    configuration, table = ground.made()
    broken = Configuration(f"{configuration.text}\nno_such_directive;\n", "other")
    with pytest.raises(ConfigurationRefusedError, match="no_such_directive"):
        await ground.proxy.route(broken, table)
    assert (await ground.ask()).status == 200
    assert await ground.processes.generation() == configuration.generation


async def test_whoever_comes_later_finds_what_is_served(served: Served) -> None:
    ground, _, two = served
    master = await ground.processes.master()
    later = Ground(ground.folder)
    later.observed, later.site = ground.observed, ground.site
    later.address, later.http = ground.address, ground.http
    later.point("web", two)
    await later.route()
    assert await later.processes.master() == master
    assert (await later.ask()).said["app"] == "two"


async def test_a_killed_nginx_begins_with_the_endpoints_of_before(served: Served) -> None:
    ground, _, _ = served
    configuration, _ = ground.made()
    master = await ground.processes.master()
    assert master
    children = workers(master)
    for number in (master, *map(int, children)):
        os.kill(number, signal.SIGKILL)

    async def gone() -> bool:
        return not any(is_running(number) for number in (master, *map(int, children)))

    await until(gone, "nginx to be gone")
    assert await ground.processes.generation() == ""
    with pytest.raises(UnavailableError):
        await ground.repoint()
    await ground.processes.start(configuration.generation)
    assert (await ground.ask()).said["app"] == "one"


async def test_an_nginx_that_is_slow_is_not_taken_for_dead(served: Served) -> None:
    ground, _, _ = served
    configuration, table = ground.made()
    master = await ground.processes.master()
    assert master
    numbers = [master, *map(int, workers(master))]
    hasty = NginxProcesses(ground.folder, program=program(), user=USER, clock=SystemClock(), answer=0.2)
    for number in numbers:
        os.kill(number, signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            await NginxProxy(ground.folder, hasty).route(configuration, table)
    finally:
        for number in numbers:
            os.kill(number, signal.SIGCONT)
    assert await ground.processes.master() == master
    assert (await ground.ask()).status == 200


async def test_it_ends_after_its_requests(served: Served) -> None:
    ground, one, _ = served
    async with ground.session() as session, session.get(ground.url("/slow"), headers={"Host": HOST}) as slow:
        assert await slow.content.readany() == b"begun "
        ending = asyncio.create_task(ground.proxy.end())

        async def refuses() -> bool:
            try:
                await ground.ask()
            except OSError:
                return True
            return False

        await until(refuses, "nginx to take no more connections")
        one.released.set()
        assert await slow.content.read() == b"ended"
        assert await ending
    assert not await ground.proxy.end()


def secured(host: str, pair: KeyPair, age: int = 0) -> list[object]:
    name = host.partition(".")[0]
    return [
        ingress(name, host=host, tls=[{"hosts": [host], "secretName": name}], age=age),
        tls_secret(name, pair),
    ]


async def presented(ground: Ground, host: str) -> bytes:
    """Return the certificate that a client gets that asks for a host."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(PATIENCE):
        _, writer = await asyncio.open_connection(ground.address, ground.https, ssl=context, server_hostname=host)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return ssl.DER_cert_to_PEM_cert(found).encode()


async def test_each_host_has_its_certificate_and_a_new_one_after_a_reload(served: Served) -> None:
    ground, one, _ = served
    first, second = certificate("a.example.com"), certificate("b.example.com")
    ground.see(*secured("a.example.com", first), *secured("b.example.com", second))  # type: ignore[arg-type]
    await ground.route()
    assert await presented(ground, "a.example.com") == first.certificate
    assert await presented(ground, "b.example.com") == second.certificate
    assert await presented(ground, "nobody.example.com") == ground.site.certificate.chain
    plain = await ground.ask("/x", host="a.example.com")
    assert (plain.status, plain.headers["location"]) == (308, f"https://a.example.com:{ground.https}/x")
    renewed = certificate("a.example.com")
    ground.see(tls_secret("a", renewed))
    await ground.route()
    assert await presented(ground, "a.example.com") == renewed.certificate
    keys = list((ground.folder / "private").glob("*.key"))
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    said = await ground.curl("-k", "--http2", "-i", host="a.example.com", path="/y")
    assert said.startswith("HTTP/2 200")
    headers = one.seen[-1]["headers"]
    assert (headers["x-forwarded-proto"], headers["x-forwarded-port"]) == ("https", str(ground.https))


async def ended_or_listening(process: asyncio.subprocess.Process, address: str, port: int) -> bool:
    if process.returncode is not None:
        return True
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


#: What is printed by Lua has no length, so that its trailers come along.
GRPC = """
load_module /usr/lib/nginx/modules/ndk_http_module.so; load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off; pid {folder}/grpc.pid; error_log {folder}/grpc.log; worker_processes 1; events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen {address}:{port} http2;
    location / {{
      default_type application/grpc; add_trailer grpc-status 0;
      content_by_lua_block {{
        ngx.print(ngx.var.server_protocol, " ", ngx.var.request_uri, " [", ngx.var.http_x_haneul_user or "", "] ")
        ngx.print(ngx.var.http_te)
      }}
    }}
  }}
}}
"""


@contextlib.asynccontextmanager
async def grpc_server(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """Run a server that answers calls as gRPC does: by HTTP/2 without TLS, with trailers."""
    for _ in range(5):
        address, port = free_address()
        (folder / "grpc.conf").write_text(GRPC.format(folder=folder, address=address, port=port))
        process = await asyncio.create_subprocess_exec(
            program(), "-p", str(folder), "-e", str(folder / "grpc.log"), "-c", str(folder / "grpc.conf"),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

        async def listens(
            place: tuple[str, int] = (address, port), started: asyncio.subprocess.Process = process
        ) -> bool:
            if started.returncode is not None:
                return True
            try:
                _, writer = await asyncio.open_connection(*place)
            except OSError:
                return False
            writer.close()
            return True

        await until(listens, "the gRPC server to listen")
        if process.returncode is None:
            break
    try:
        yield address, port
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)


async def test_grpc(served: Served, tmp_path: Path) -> None:
    ground, _, _ = served
    async with grpc_server(tmp_path) as (address, port):
        calls = Application("grpc", port=port)
        ground.point("grpc", calls, address=address)
        host = "grpc.example.com"
        ground.see(
            ingress("grpc", path(service="grpc"), host=host, annotations={f"{PREFIX}backend-protocol": "GRPC"}),
        )
        await ground.route()
        call = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "x-haneul-user: root", "-d", "x"]
        said = await ground.curl("-k", "--http2", "-i", *call, host=host, path="/pkg.Service/Call")
    assert "HTTP/2.0 /pkg.Service/Call [] trailers" in said
    assert "grpc-status: 0" in said
