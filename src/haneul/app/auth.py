"""The sign-on gate put together: providers, keys, sessions, and the server that nginx asks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.ending import told_to_end
from haneul.kernel.errors import ConflictError, UnavailableError
from haneul.kernel.openid import OpenIdAccess, OpenIdClient
from haneul.signon.adapters.ended_file import EndedFile
from haneul.signon.adapters.granian_server import GranianServer
from haneul.signon.adapters.key_file import KeyFile, make_keys, rotate_keys
from haneul.signon.adapters.platform_tokens import PlatformTokens
from haneul.signon.decisions import Decider
from haneul.signon.http import GateHttp
from haneul.signon.metrics import Metrics
from haneul.signon.nginx import gate_part, http_part, open_part, protected_part, server_part
from haneul.signon.ports import Provider
from haneul.signon.programs import Programs
from haneul.signon.rules import Rule
from haneul.signon.sessions import Lives, Sessions
from haneul.signon.settings import GateSettings, ProviderSettings, read_settings
from haneul.signon.sign_ons import SignOns

_log = structlog.get_logger(__name__)
_DRAIN_SECONDS: Final = 20.0
_UNIX: Final = "unix:"


async def serve_gate(file: Path, *, clock: Clock | None = None) -> None:
    """Answer the web server until SIGTERM or SIGINT; requests under way are answered first."""
    settings = read_settings(file)
    told = told_to_end()
    async with opened(settings, clock or SystemClock()) as gate:
        make_way(settings.listen)
        server = GranianServer(gate.answer, settings.listen)
        serving = asyncio.ensure_future(server.serve())
        waiting = asyncio.ensure_future(told.wait())
        _log.info("serving", url=settings.url, domain=settings.domain, listen=settings.listen)
        try:
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
                raise UnavailableError("the server ended by itself", hint="its log has more")
            server.stop()
            await asyncio.wait({serving}, timeout=_DRAIN_SECONDS)
        finally:
            for task in (serving, waiting):
                task.cancel()
            await asyncio.gather(serving, waiting, return_exceptions=True)
    _log.info("ended")


@contextlib.asynccontextmanager
async def opened(settings: GateSettings, clock: Clock) -> AsyncIterator[GateHttp]:
    """Yield the gate of some settings; keys that are not there are made."""
    async with contextlib.AsyncExitStack() as closing:
        keys, providers, sessions = _parts(settings, clock, closing)
        holders = None
        if settings.platform is not None:
            holders = PlatformTokens(settings.platform)
            closing.push_async_callback(holders.close)
        decider = Decider(sessions, Programs(providers, holders, clock=clock))
        sign_ons = SignOns(settings.sites, providers, keys, clock=clock)
        yield GateHttp(settings.sites, decider, sessions, sign_ons, Metrics(), settings.session_seconds)


@contextlib.asynccontextmanager
async def opened_sessions(settings: GateSettings, clock: Clock) -> AsyncIterator[Sessions]:
    """Yield the sessions alone, of which a benchmark begins one by hand."""
    async with contextlib.AsyncExitStack() as closing:
        yield _parts(settings, clock, closing)[2]


_Providers = dict[str, tuple[ProviderSettings, Provider]]


def _parts(
    settings: GateSettings, clock: Clock, closing: contextlib.AsyncExitStack
) -> tuple[KeyFile, _Providers, Sessions]:
    make_keys(settings.keys_file, clock=clock)
    keys = KeyFile(settings.domain, settings.keys_file, clock=clock)
    providers: _Providers = {}
    for one in settings.providers:
        client = OpenIdClient(_access(one), f"{settings.sites.url}/callback", clock=clock)
        closing.push_async_callback(client.close)
        providers[one.name] = one, client
    ended = EndedFile(settings.signed_out_file, clock=clock)
    lives = Lives(settings.session_seconds, int(settings.confirm_minutes * 60), int(settings.outage_minutes * 60))
    return keys, providers, Sessions(providers, keys, ended, lives, clock=clock)


def rotated_keys(file: Path, *, end_sessions: bool) -> int:
    """Put a new key to those of a gate; return how many there are."""
    settings, clock = read_settings(file), SystemClock()
    make_keys(settings.keys_file, clock=clock)
    life = timedelta(seconds=settings.session_seconds)
    return rotate_keys(settings.keys_file, life=life, end_sessions=end_sessions, clock=clock)


def nginx_parts(file: Path, rule: Rule) -> dict[str, str]:
    """Return what nginx needs to ask a gate, by where it stands."""
    settings = read_settings(file)
    return {
        "http": http_part(settings.listen),
        "each server with protected paths": server_part(),
        f"each location for {', '.join(rule.told())}": protected_part(rule),
        "each location for everybody": open_part(),
        "the server of the gate's own host": gate_part(settings.sites),
    }


def _access(provider: ProviderSettings) -> OpenIdAccess:
    return OpenIdAccess(
        provider.title,
        provider.issuer,
        provider.client_id,
        provider.client_secret_file,
        provider.scopes,
        provider.authority_file,
        provider.patience_seconds,
    )


def make_way(listen: str) -> None:
    """Say at once that an address is taken; remove the socket that a gate which was killed has left."""
    unix = listen.startswith(_UNIX)
    host, _, port = listen.rpartition(":")
    where: str | tuple[str, int] = listen.removeprefix(_UNIX) if unix else (host.strip("[]"), int(port))
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            if isinstance(where, tuple):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                return
            if probe.connect_ex(where) == 0:
                raise ConflictError(f"something serves on {where} already", hint="name another with 'listen'")
            Path(where).unlink(missing_ok=True)
        except OSError as error:
            raise ConflictError(
                f"{listen} cannot be served on: {error.strerror}", hint="name another with 'listen'"
            ) from error
