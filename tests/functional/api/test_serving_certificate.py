"""A server takes up a renewed certificate while it runs, and open connections do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from haneul.app.server import DrainingServer
from haneul.app.serving_certificate import ServingCertificate
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf
from haneul.kernel.waiting import wait_for

NOW = datetime.now(UTC)
AUTHORITY = issue_authority("test", now=NOW)
PROFILE = LeafProfile("haneul-api", dns_names=("localhost",), addresses=("127.0.0.1",), server=True)


def leaf() -> KeyPair:
    return issue_leaf(AUTHORITY, PROFILE, now=NOW)


def mount(folder: Path, certificate: bytes, key: bytes) -> None:
    """Change both files at once through a link, as the kubelet does with a Secret's."""
    version = folder / f"..{hashlib.sha256(certificate + key).hexdigest()[:8]}"
    version.mkdir(parents=True, exist_ok=True)
    (version / "tls.crt").write_bytes(certificate)
    (version / "tls.key").write_bytes(key)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def fingerprint(pair: KeyPair) -> bytes:
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


class Connection:
    """A client's connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.presented = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").digest()

    async def ask(self) -> bytes:
        self._writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        await self._reader.readexactly(2)
        return head.split(b"\r\n")[0]


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def application(scope: dict[str, object], receive: object, send: object) -> None:
    assert callable(send)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def serving(certificate: ServingCertificate) -> AsyncIterator[int]:
    async def drain() -> None:
        """Nothing streams here."""

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application,
        ssl_context_factory=lambda _config, _default: certificate.context,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    server = DrainingServer(config, drain=drain, certificate=certificate)
    running = asyncio.create_task(server.serve(sockets=[listener]))

    async def started() -> bool:
        return server.started

    await wait_for(started, what="the server to listen", timeout=60, clock=SystemClock(), interval=0.02)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


async def test_renewed_certificate_is_presented_while_a_connection_stays_open(tmp_path: Path) -> None:
    first, second = leaf(), leaf()
    mount(tmp_path, first.certificate, first.key)
    # Time flies: the server looks at the files all the while.
    certificate = ServingCertificate(tmp_path, clock=VirtualClock(NOW))
    async with serving(certificate) as port, connected(port) as old:
        assert old.presented == fingerprint(first)
        assert await old.ask() == b"HTTP/1.1 200 OK"
        mount(tmp_path, second.certificate, second.key)

        async def renewed() -> bool:
            async with connected(port) as new:
                assert await new.ask() == b"HTTP/1.1 200 OK"
                return new.presented == fingerprint(second)

        await wait_for(renewed, what="the second certificate", timeout=60, clock=SystemClock(), interval=0.02)
        assert await old.ask() == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("broken", ["foreign key", "no certificate", "gone"])
async def test_what_cannot_be_used_is_left_alone_until_it_can(tmp_path: Path, broken: str) -> None:
    first, second = leaf(), leaf()
    mount(tmp_path, first.certificate, first.key)
    certificate = ServingCertificate(tmp_path, clock=SystemClock())
    async with serving(certificate) as port:
        match broken:
            case "foreign key":
                mount(tmp_path, second.certificate, first.key)
            case "no certificate":
                mount(tmp_path, b"", second.key)
            case "gone":
                (tmp_path / "..data").unlink()
        assert certificate.refresh() is False
        async with connected(port) as client:
            assert client.presented == fingerprint(first)
        mount(tmp_path, second.certificate, second.key)
        assert certificate.refresh() is True
        assert certificate.refresh() is False
        async with connected(port) as client:
            assert client.presented == fingerprint(second)
