"""What an operator asks a controller by its socket: counts, the ring, freezing and collecting. Masked records only.

```
GET  /state
GET  /records?since=MILLISECONDS&limit=N     lines of JSON, the newest first
POST /freeze        POST /thaw
POST /collect?since=MILLISECONDS
```

The socket lies in a folder that its owner alone may enter, and is the owner's alone besides; nothing else guards it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from aiohttp import web

from haneul.kernel.errors import HaneulError, InvalidInputError, UnavailableError
from haneul.trail.recorder import Recorder

#: Lines that are read in one turn of a thread.
_BATCH: Final = 500
_MOST: Final = 1_000_000_000
#: A socket's path may be this long (unix(7)).
_LONGEST_SOCKET: Final = 107

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(recorder: Recorder, socket: Path) -> AsyncIterator[None]:
    """Answer at a socket while the block runs. Raises UnavailableError if its path is too long."""
    if len(str(socket).encode()) > _LONGEST_SOCKET:
        raise UnavailableError(f"{socket} is too long a path for a socket", hint="use a shorter folder")
    socket.unlink(missing_ok=True)
    runner = web.AppRunner(_application(recorder), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    before = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(socket)).start()
    finally:
        os.umask(before)
    try:
        yield
    finally:
        await runner.cleanup()
        socket.unlink(missing_ok=True)


def _application(recorder: Recorder) -> web.Application:
    async def state(_: web.Request) -> web.StreamResponse:
        return web.json_response(recorder.state())

    async def records(request: web.Request) -> web.StreamResponse:
        limit = _number(request, "limit", _MOST)
        lines = itertools.islice(recorder.lines(_number(request, "since", 0)), limit)
        answer = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await answer.prepare(request)
        while batch := await asyncio.to_thread(lambda: list(itertools.islice(lines, _BATCH))):
            await answer.write(b"".join(batch))
        await answer.write_eof()
        return answer

    async def freeze(_: web.Request) -> web.StreamResponse:
        return web.json_response({"records": recorder.freeze()})

    async def thaw(_: web.Request) -> web.StreamResponse:
        return web.json_response({"thawed": recorder.thaw()})

    async def collect(request: web.Request) -> web.StreamResponse:
        # Whoever asked may go; what was begun is done.
        collecting = asyncio.ensure_future(recorder.collect(_number(request, "since", 0)))
        return web.json_response(asdict(await asyncio.shield(collecting)))

    application = web.Application(middlewares=[_errors])
    application.add_routes(
        [
            web.get("/state", state),
            web.get("/records", records),
            web.post("/freeze", freeze),
            web.post("/thaw", thaw),
            web.post("/collect", collect),
        ]
    )
    return application


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HaneulError as error:
        return web.json_response(error.problem_details(), status=error.http_status)


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 15:
        raise InvalidInputError(f"{name!r} is no number")
    return int(text)
