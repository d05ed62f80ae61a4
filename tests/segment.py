"""Machines on one network segment, each a network namespace; a thread can open sockets in any of them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tests.namespaces import entered, inside, ip, namespace

NETWORK = "10.66.0"


class Segment:
    """Machines by their names; each has an interface ``eth0`` with an address of 10.66.0.0/24, from .1 on in order."""

    def __init__(self, names: list[str]) -> None:
        mark = secrets.token_hex(3)
        self.hub = f"hub-{mark}"
        self.places = {name: f"{name}-{mark}" for name in names}
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}

    def path(self, name: str) -> Path:
        """Return the file of a machine's namespace."""
        return Path("/run/netns") / self.places[name]

    def ip(self, name: str, *arguments: str) -> None:
        """Run ip(8) on a machine."""
        ip("-n", self.places[name], *arguments)

    def set(self, name: str, setting: str, value: str) -> None:
        """Set something below /proc/sys/net on a machine."""
        done = inside(self.places[name], "sh", "-c", f"echo {value} > /proc/sys/net/{setting}")
        assert done.returncode == 0, done.stderr

    def socket(self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Open a socket on a machine."""
        with entered(self.path(name)):
            made = socket.socket(socket.AF_INET, kind)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return made


@contextlib.contextmanager
def segment(*names: str) -> Iterator[Segment]:
    """Make machines and join them."""
    made = Segment(list(names))
    with contextlib.ExitStack() as stack:
        stack.enter_context(namespace(made.hub))
        ip("-n", made.hub, "link", "add", "br0", "type", "bridge")
        ip("-n", made.hub, "link", "set", "br0", "up")
        for name in names:
            stack.enter_context(namespace(made.places[name]))
            made.ip(name, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", made.hub)
            ip("-n", made.hub, "link", "set", name, "master", "br0", "up")
            made.ip(name, "address", "add", f"{made.addresses[name]}/24", "dev", "eth0")
            made.ip(name, "link", "set", "eth0", "up")
        yield made


class Responder:
    """A machine that says its name, and whom it thinks to talk to, to whoever asks by TCP or UDP; TCP goes on so."""

    def __init__(self, net: Segment, name: str) -> None:
        self.net = net
        self.name = name
        self.heard = 0
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[_Datagrams] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int) -> None:
        listening = self.net.socket(self.name)
        listening.bind(("", port))
        self._servers.append(await asyncio.start_server(self._serve, sock=listening))

    async def start_udp(self, port: int, address: str = "") -> None:
        """Answer datagrams; from the address that is bound, as from any a datagram leaves with the machine's own."""
        bound = self.net.socket(self.name, socket.SOCK_DGRAM)
        bound.bind((address, port))
        _, made = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Datagrams(self), sock=bound)
        self._datagrams.append(made)

    async def end(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for one in self._datagrams:
            await one.end()
        self._servers, self._datagrams = [], []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while await reader.readline():
                self.heard += 1
                writer.write(f"{self.name} {writer.get_extra_info('peername')[0]}\n".encode())
                await writer.drain()
        writer.close()
        self._writers.discard(writer)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._transport: asyncio.DatagramTransport | None = None
        self._over = asyncio.Event()

    async def end(self) -> None:
        if self._transport:
            self._transport.abort()
            await self._over.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python's own is one by its methods alone.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        # What is no question is a health check.
        if self._transport and data.endswith(b"\n"):
            self._responder.heard += 1
            self._transport.sendto(f"{self._responder.name} {addr[0]}\n".encode(), addr)


class Conversation:
    """A TCP connection of one machine to an address."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, net: Segment, name: str, address: str, port: int, *, source: str = "") -> Conversation:
        """Connect. Raises OSError, or TimeoutError after a while."""
        opened = net.socket(name)
        try:
            if source:
                opened.bind((source, 0))
            async with asyncio.timeout(20):
                await asyncio.get_running_loop().sock_connect(opened, (address, port))
        except BaseException:
            opened.close()
            raise
        return cls(*await asyncio.open_connection(sock=opened))

    async def ask(self) -> tuple[str, str]:
        """Return who answers, and whom they think to talk to; nothing if the connection is over."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(b"hello\n")
            async with asyncio.timeout(20):
                said = (await self._reader.readline()).decode().split()
            if said:
                return said[0], said[1]
        return "", ""

    def close(self) -> None:
        self._writer.transport.abort()


async def asked(net: Segment, name: str, address: str, port: int, *, source: str = "") -> tuple[str, str]:
    """Ask once by a new TCP connection; nothing if it does not come about, or is not answered."""
    try:
        conversation = await Conversation.begin(net, name, address, port, source=source)
    except OSError:
        return "", ""
    try:
        return await conversation.ask()
    finally:
        conversation.close()


class Datagrams:
    """A UDP socket of one machine that talks to an address."""

    def __init__(self, net: Segment, name: str, address: str, port: int) -> None:
        self.socket = net.socket(name, socket.SOCK_DGRAM)
        self.socket.connect((address, port))

    async def ask(self) -> tuple[str, str]:
        """Ask, again if nothing comes back for a second, as datagrams may get lost; nothing if it is refused."""
        loop = asyncio.get_running_loop()
        for _ in range(20):
            try:
                await loop.sock_sendall(self.socket, b"hello\n")
                async with asyncio.timeout(1):
                    said = (await loop.sock_recv(self.socket, 1000)).decode().split()
                return said[0], said[1]
            except TimeoutError:
                continue
            except ConnectionError:
                return "", ""
        raise TimeoutError("nobody answered")

    def close(self) -> None:
        self.socket.close()
