"""The platform's sign-on gate: one for all clusters, a host service, signed up as a client at the platform's issuer.

Proxies of clusters ask it on loopback, where it alone listens. Browsers reach its own host, ``auth.ZONE``, at an nginx
like those of clusters, at the last address of ingress's range.

The gate keeps no right of root's (:mod:`haneul.host.seclusion`). Of the installation's state it sees one folder, whose
files root writes; only which sessions ended, it writes itself, in a folder of its own in there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import yaml

from haneul.app.platform import API_PORT, PlatformFiles
from haneul.cli.client import ApiClient
from haneul.host.services import HostService, ServiceManager, made_from
from haneul.ingress.adapters.issued_certificates import IssuedCertificates
from haneul.ingress.adapters.nginx.confined import SCRATCH, Confinement, Keeper, kept
from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, NotFoundError
from haneul.kernel.files import read_private, write_atomically
from haneul.kernel.pki import KeyPair
from haneul.kernel.processes import find, send
from haneul.management.ingress_host import NGINX, user_of
from haneul.management.settings import ManagementSettings
from haneul.signon.adapters.key_file import make_keys
from haneul.signon.addresses import sites_of
from haneul.signon.nginx import gate_part, http_part

_log = structlog.get_logger(__name__)
SERVICE: Final = "auth"
DOOR_SERVICE: Final = "ingress-auth"
#: The user that the gate is: a number, which no account has.
USER: Final = 65530
_CLIENT: Final = "haneul-auth"
_LOOK_SECONDS: Final = 3600.0
_SOON_SECONDS: Final = 10.0
_KEYS, _SECRET, _ENDED, _AUTHORITY = "keys", "client.secret", "signed-out", "platform-ca.crt"
#: What lay beside the folder of the gate while it was root.
_OF_BEFORE: Final = ("gate.yaml", _KEYS, f"{_KEYS}.lock", _SECRET, _ENDED, f"{_ENDED}.lock")


@dataclass(frozen=True)
class PlatformGate:
    """What the gate of an installation is."""

    settings: ManagementSettings

    @property
    def folder(self) -> Path:
        """Return the folder, for root only, of the gate and of the nginx of its host."""
        return self.settings.state / "gate"

    @property
    def own(self) -> Path:
        """Return what the gate sees of it: its settings, its keys, its secret at the issuer, sessions that ended."""
        return self.folder / "own"

    @property
    def host(self) -> str:
        """Return the host at which browsers reach it."""
        return self.settings.sign_on_host

    @property
    def address(self) -> str:
        """Return the address of that host."""
        return self.settings.sign_on_address

    @property
    def listen(self) -> str:
        """Return where proxies ask it."""
        return f"127.0.0.1:{self.settings.gate_port}"

    @property
    def redirect_uri(self) -> str:
        """Return where the issuer sends browsers back to."""
        return f"https://{self.host}/callback"

    def document(self) -> dict[str, Any]:
        """Return the file that it reads."""
        platform = f"https://{self.settings.address}:{API_PORT}"
        provider = {
            "name": "platform",
            "title": "Haneul",
            "issuer": f"{platform}/oidc",
            "clientId": _CLIENT,
            "clientSecretFile": _SECRET,
            "authorityFile": _AUTHORITY,
            "emailIsVerified": True,
        }
        return {
            "url": f"https://{self.host}",
            "domain": self.settings.zone,
            "listen": self.listen,
            "providers": [provider],
            "platform": {"url": platform, "authorityFile": _AUTHORITY},
            "keysFile": _KEYS,
            "signedOutFile": f"{_ENDED}/sessions",
        }

    def service(self, *, build: str, search_path: str, environment: Iterable[tuple[str, str]] = ()) -> HostService:
        """Return it as a host service, another one when what it reads or the ``build`` changes."""
        argv = (
            sys.executable, "-m", "haneul.app.main", "serve", "gate", f"--folder={self.own}", f"--user={USER}",
        )  # fmt: skip
        written = str(self._secret.stat().st_mtime_ns)
        read = "".join((self.own / name).read_text() for name in ("gate.yaml", _AUTHORITY))
        told = made_from(read + written)
        variables = (("PATH", search_path), ("HANEUL_BUILD", build), told, *environment)
        return HostService(SERVICE, argv, variables)

    async def sign_up(self, token: str) -> None:
        """Have the issuer know the gate, by an administrator's ``token``, and keep its secret there."""
        self._make_folders()
        await asyncio.to_thread(self._sign_up, token)

    def is_of_before(self) -> bool:
        """Say whether files are there of a gate that was root, which has to end before they are taken over."""
        return any((self.folder / name).exists() for name in _OF_BEFORE)

    def prepare(self, *, clock: Clock) -> None:
        """Write what the gate reads, and take over what one that was root left; may be repeated."""
        self._make_folders()
        self._take_over()
        make_keys(self.own / _KEYS, clock=clock)
        for name in (_KEYS, _SECRET):
            # Its own and nobody else's; in this folder it can put nothing in their place.
            os.chown(self.own / name, USER, USER)
        authority = PlatformFiles(self.settings.state).authority
        write_atomically(self.own / _AUTHORITY, authority.read_bytes())
        write_atomically(self.own / "gate.yaml", yaml.safe_dump(self.document()))

    def _make_folders(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.own.mkdir(exist_ok=True)
        self.own.chmod(0o755)
        ended = self.own / _ENDED
        ended.mkdir(mode=0o700, exist_ok=True)
        os.chown(ended, USER, USER)

    def _take_over(self) -> None:
        ended = self.folder / _ENDED
        if ended.exists():
            os.chown(ended, USER, USER)
        moved = {_KEYS: self.own / _KEYS, _SECRET: self._secret, _ENDED: self.own / _ENDED / "sessions"}
        for name, place in moved.items():
            # Where both are there, the version of before was in use again, and its file is the later one.
            with suppress(FileNotFoundError):
                (self.folder / name).replace(place)
        for name in _OF_BEFORE:
            (self.folder / name).unlink(missing_ok=True)

    @property
    def _secret(self) -> Path:
        return self.own / _SECRET

    def _sign_up(self, token: str) -> None:
        files = PlatformFiles(self.settings.state)
        server = f"https://{self.settings.address}:{API_PORT}"
        with ApiClient(server, authority=files.authority, token=token) as api:
            known = {client["id"]: client for client in api.get("/clients")}
            client = known.get(_CLIENT)
            places = (self._secret, self.folder / _SECRET)
            if client is not None and any(map(Path.exists, places)) and self.redirect_uri in _uris(client):
                return
            # A secret of before would be taken for the new one's by whoever goes on after this was killed.
            for place in places:
                place.unlink(missing_ok=True)
            if client is not None:
                # Its secret is in no place but this file: whoever lost it is signed up anew.
                with suppress(NotFoundError):
                    api.delete(f"/clients/{_CLIENT}")
            body = {"id": _CLIENT, "name": "Sign-on before apps", "redirectUris": [self.redirect_uri]}
            made = api.post("/clients", body)
        write_atomically(self._secret, made["secret"] + "\n", mode=0o600)


def _uris(client: dict[str, Any]) -> list[str]:
    return list(client.get("redirectUris") or client.get("redirect_uris") or [])


class GateDoor:
    """The nginx of the gate's own host: kept as those of clusters are, with a certificate that is renewed."""

    def __init__(
        self,
        gate: PlatformGate,
        services: ServiceManager,
        *,
        keeper: Callable[[ServiceManager, HostService], Keeper],
        authority: Callable[[], KeyPair],
        clock: Clock,
    ) -> None:
        settings = gate.settings
        folder, user = gate.folder / "nginx", user_of(gate.address, settings.ingress)
        self._gate = gate
        self._folder = folder
        self._keeper = keeper(services, HostService(DOOR_SERVICE, kept(folder, user, str(NGINX))))
        self._processes = NginxProcesses(
            folder, program=str(NGINX), user="", clock=clock, confinement=Confinement(user, self._keeper)
        )
        self._certificates = IssuedCertificates(gate.folder / "certificates", authority, clock=clock)
        self._clock = clock
        #: What nginx was told last by this process, so that nothing is lost of what a process before it wrote.
        self._told: tuple[bytes, str] | None = None

    async def keep(self) -> None:
        """Have it run, with a certificate that is good, until cancelled."""
        while True:
            try:
                await self._look()
            except (HaneulError, OSError) as error:
                _log.warning("the sign-on host is held up", host=self._gate.host, detail=str(error))
                await self._clock.sleep(_SOON_SECONDS)
            else:
                await self._clock.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        host = self._gate.host
        certificate = (await self._certificates.certificates([host]))[host]
        files = {"private/host.crt": certificate.chain, "private/host.key": certificate.key}
        text = door_configuration(self._gate)
        self._processes.prepare()
        self._processes.write(files)
        await self._processes.check(text)
        self._processes.configure(text)
        number = await self._keeper.number()
        master = None if number is None else find(number)
        await self._keeper.start()
        if master is not None and self._told != (certificate.chain, text):
            send([master], signal.SIGHUP)
        self._told = (certificate.chain, text)


def door_configuration(gate: PlatformGate) -> str:
    """Return the configuration of the nginx of the gate's own host."""
    domain = sites_of(f"https://{gate.host}", gate.settings.zone)
    temporary = "\n".join(
        f"    {name}_temp_path {SCRATCH}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
worker_processes 1;
pid {SCRATCH}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
{temporary}
    access_log off;
    server_tokens off;
    ssl_protocols TLSv1.2 TLSv1.3;
{_indented(http_part(gate.listen))}
    server {{
        listen {gate.address}:80;
        server_name {gate.host};
        return 308 https://{gate.host}$request_uri;
    }}
    server {{
        listen {gate.address}:443 ssl http2;
        ssl_certificate private/host.crt;
        ssl_certificate_key private/host.key;
{_indented(gate_part(domain))}
    }}
}}
"""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.rstrip("\n").split("\n"))


def administrator_token(settings: ManagementSettings) -> str:
    """Return the first administrator's token."""
    return read_private(PlatformFiles(settings.state).admin_token).strip()
