"""An etcd over its JSON gateway (etcd documentation "Why gRPC gateway"), with a client certificate.

Streams come as one JSON object a line, ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Final

import aiohttp

from haneul.dkos.backup.ports import Batch, Identity, WatchCompactedError
from haneul.dkos.backup.segments import Change
from haneul.kernel.errors import UnavailableError

_CALL_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 60.0
#: The key before all others; from it on means everything.
_FIRST: Final = base64.b64encode(b"\x00").decode()


class EtcdGateway:
    """One etcd, of which each of ``urls`` is a member; without ``context`` it is reached in the clear.

    One member is asked as long as it answers: then the next, in turn.
    """

    def __init__(self, urls: Sequence[str], context: ssl.SSLContext | None = None) -> None:
        self._urls = deque(urls)
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def identity(self) -> Identity:
        """Ask for the revision by a read through the quorum, so that it comes after all that was acknowledged."""
        answer = await self._call("/v3/kv/range", {"key": _FIRST, "limit": "1", "keys_only": True})
        header = answer["header"]
        return Identity(int(header["cluster_id"]), int(header["revision"]))

    async def snapshot(self) -> AsyncIterator[bytes]:
        """Yield the file of a snapshot."""
        async for result in self._stream("/v3/maintenance/snapshot", {}, silence=_SILENCE_SECONDS):
            if blob := result.get("blob"):
                yield base64.b64decode(blob)

    async def watch(self, revision: int) -> AsyncGenerator[Batch]:
        """Yield all changes from a revision on."""
        wanted = {"key": _FIRST, "range_end": _FIRST, "start_revision": str(revision)}
        # Silence is no trouble here: who reads also asks for the revision, and notices what does not come.
        stream = self._stream("/v3/watch", {"create_request": wanted}, silence=None)
        async with contextlib.aclosing(stream) as results:
            async for result in results:
                if result.get("canceled"):
                    if int(result.get("compact_revision", 0)):
                        raise WatchCompactedError
                    reason = result.get("cancel_reason", "it does not say why")
                    raise UnavailableError(f"etcd ended the watch: {reason}")
                if events := result.get("events"):
                    yield _batch(events)

    async def lease_life(self, lease: str) -> int:
        """Return for how many seconds a lease was granted."""
        answer = await self._call("/v3/lease/timetolive", {"ID": lease})
        return int(answer.get("grantedTTL", 0)) if int(answer.get("TTL", -1)) >= 0 else 0

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            limit = aiohttp.ClientTimeout(total=_CALL_SECONDS)
            async with self._open().post(self._urls[0] + path, json=body, timeout=limit) as answer:
                content = await answer.read()
                if answer.status != 200:
                    raise UnavailableError(f"etcd refused {path}: {content[:200].decode(errors='replace')}")
                found: dict[str, Any] = json.loads(content)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._urls.rotate(-1)
            raise _silent(error) from error

    async def _stream(
        self, path: str, body: dict[str, Any], *, silence: float | None
    ) -> AsyncGenerator[dict[str, Any]]:
        limit = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        try:
            async with self._open().post(self._urls[0] + path, json=body, timeout=limit) as answer:
                if answer.status != 200:
                    refused = await answer.content.read(200)
                    raise UnavailableError(f"etcd refused {path}: {refused.decode(errors='replace')}")
                pending = bytearray()
                async for part in answer.content.iter_any():
                    pending += part
                    # Looking for an end only where something is new: a line may be large.
                    if b"\n" not in part:
                        continue
                    *whole, rest = bytes(pending).split(b"\n")
                    pending = bytearray(rest)
                    for text in whole:
                        if text.strip():
                            yield _result(json.loads(text))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._urls.rotate(-1)
            raise _silent(error) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context) if self._context else aiohttp.TCPConnector()
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _silent(error: Exception) -> UnavailableError:
    return UnavailableError(f"etcd does not answer: {type(error).__name__} {error}".rstrip())


def _result(document: dict[str, Any]) -> dict[str, Any]:
    if "error" in document:
        raise UnavailableError(f"etcd ended the stream: {document['error'].get('message', document['error'])}")
    found: dict[str, Any] = document.get("result", {})
    return found


def _batch(events: list[dict[str, Any]]) -> Batch:
    """Group events by their revisions, which etcd never spreads over two answers."""
    revisions: dict[int, list[Change]] = {}
    for event in events:
        kv = event["kv"]
        deleted = event.get("type") == "DELETE"
        change = Change(kv["key"], "" if deleted else kv.get("value", ""), str(kv.get("lease", "0")), deleted=deleted)
        revisions.setdefault(int(kv["mod_revision"]), []).append(change)
    return Batch(tuple((number, tuple(changes)) for number, changes in sorted(revisions.items())))
