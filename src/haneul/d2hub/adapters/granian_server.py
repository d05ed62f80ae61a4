"""Granian as D2Hub's server: an RSGI application, which can answer with files that Python never reads.

One process, one event loop: the server runs inside ours, so there is nothing left to end when this process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]  # public by its documentation
from granian.server.embed import Server

from haneul.d2hub.errors import BlobUploadInvalidError
from haneul.d2hub.exchange import Reply, Request, SlowClientError
from haneul.d2hub.model import BytesContent, FileContent, GrowingContent, RemoteContent
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)
_HEADER_MILLISECONDS: Final = 30_000


@dataclass(frozen=True)
class Listening:
    """Where to serve, and by which certificate; without one, plain HTTP."""

    address: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


class GranianServer:
    """Serves a function from requests to replies."""

    def __init__(
        self,
        answer: Callable[[Request], Any],
        listening: Listening,
        *,
        received: Callable[[int], None],
        silence_seconds: float = 60.0,
    ) -> None:
        self._answer, self._received, self._silence = answer, received, silence_seconds
        self._scheme = "https" if listening.certificate else "http"
        self._server = Server(
            self,
            address=listening.address,
            port=listening.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            backlog=1024,
            log_enabled=False,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MILLISECONDS),
            ssl_cert=listening.certificate,
            ssl_key=listening.key,
            ssl_protocol_min=SSLProtocols.tls12,
        )

    async def serve(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.serve()

    def stop(self) -> None:
        """Take no more connections; requests under way are answered."""
        self._server.stop()  # type: ignore[no-untyped-call]  # granian gives this one no types

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        headers = scope.headers
        request = Request(
            scope.method,
            scope.path,
            scope.query_string,
            headers,
            _RsgiBody(protocol, headers, self._silence, self._received),
            self._scheme,
            scope.client,
            # HTTP/2 has no header of that name; HTTP/1.1's request line seldom has an authority.
            scope.authority or headers.get("host") or "",
        )
        await _send(protocol, scope.method == "HEAD", await self._answer(request), silence=self._silence)


async def _send(protocol: Any, head: bool, reply: Reply, *, silence: float) -> None:
    content, headers = reply.content, reply.headers
    if content is None:
        protocol.response_empty(reply.status, headers)
        return
    data = content.data if isinstance(content, BytesContent) else content
    size = len(data) if isinstance(data, bytes) else data.size
    if reply.part is not None:
        size = reply.part[1] - reply.part[0] + 1
    headers.append(("content-length", str(size)))
    if head:
        protocol.response_empty(reply.status, headers)
        return
    match data:
        case GrowingContent():
            await _stream(protocol.response_stream(reply.status, headers), data, silence)
        case RemoteContent():
            raise TypeError("content on other machines is sent as it arrives")
        case FileContent() if reply.part is not None:
            protocol.response_file_range(reply.status, headers, str(data.path), reply.part[0], reply.part[1] + 1)
        case FileContent():
            protocol.response_file(reply.status, headers, str(data.path))
        case _:
            if reply.part is not None:
                data = data[reply.part[0] : reply.part[1] + 1]
            protocol.response_bytes(reply.status, headers, data)


async def _stream(transport: Any, content: GrowingContent, silence: float) -> None:
    """Send bytes as they arrive. Where their end cannot be sent, the connection ends before the length that was said.

    The server ends it when nothing more is sent, so the client sees that something is missing.
    """
    try:
        async with contextlib.aclosing(content.parts()) as parts:
            async for part in parts:
                async with asyncio.timeout(silence):
                    await transport.send_bytes(part)
    except (ProtocolClosed, ProtocolError):
        _log.info("a client went away")
    except TimeoutError:
        _log.warning("a client took nothing for too long", seconds=silence)
    except Exception as error:  # noqa: BLE001, RUF100 - the head was sent: all that can be done is to end
        _log.error("an answer is cut short", error=str(error), kind=type(error).__name__)
    finally:
        # The connection ends with the last that knows of it, and an error's traceback knows of all that is here.
        del transport


class _RsgiBody:
    """A body as granian hands it over."""

    def __init__(self, protocol: Any, headers: Any, silence: float, received: Callable[[int], None]) -> None:
        self._protocol, self._headers, self._silence, self._count = protocol, headers, silence, received

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield parts; each has to come within the time that a client may be silent."""
        said = self._headers.get("content-length")
        received = 0
        iterator = aiter(self._protocol)
        while True:
            try:
                async with asyncio.timeout(self._silence):
                    part = await anext(iterator)
            except StopAsyncIteration:
                break
            except TimeoutError as error:
                raise SlowClientError(
                    f"nothing arrived for {self._silence:.0f} s", hint="go on with the upload where it ended"
                ) from error
            except HaneulError:
                raise
            except Exception as error:
                raise _cut_short(received) from error
            if part:
                received += len(part)
                self._count(len(part))
                yield part
        if said is not None and said.isdigit() and received != int(said):
            raise _cut_short(received)


def _cut_short(received: int) -> BlobUploadInvalidError:
    return BlobUploadInvalidError(f"the body ended after {received} bytes, before its end", hint="send it again")
