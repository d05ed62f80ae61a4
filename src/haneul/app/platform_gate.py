"""The platform's sign-on gate: one for all clusters, a host service, signed up as a client at the platform's issuer.

Proxies of clusters ask it on loopback, where it alone listens. Browsers reach its own host, ``auth.ZONE``, at an nginx
like those of clusters, at the last address of ingress's range.
"""

from __future__ import annotations

import asyncio
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
from haneul.signon.addresses import sites_of
from haneul.signon.nginx import gate_part, http_part

_log = structlog.get_logger(__name__)
SERVICE: Final = "auth"
DOOR_SERVICE: Final = "ingress-auth"
_CLIENT: Final = "haneul-auth"
_LOOK_SECONDS: Final = 3600.0
_SOON_SECONDS: Final = 10.0


@dataclass(frozen=True)
class PlatformGate:
    """What the gate of an installation is."""

    settings: ManagementSettings

    @property
    def folder(self) -> Path:
        """Return the folder, for root only, of its settings, its keys, and its secret at the issuer."""
        return self.settings.state / "gate"

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
        authority = str(PlatformFiles(self.settings.state).authority)
        provider = {
            "name": "platform",
            "title": "Haneul",
            "issuer": f"{platform}/oidc",
            "clientId": _CLIENT,
            "clientSecretFile": "client.secret",
            "authorityFile": authority,
            "emailIsVerified": True,
        }
        return {
            "url": f"https://{self.host}",
            "domain": self.settings.zone,
            "listen": self.listen,
            "providers": [provider],
            "platform": {"url": platform, "authorityFile": authority},
        }

    def service(self, *, build: str, search_path: str, environment: Iterable[tuple[str, str]] = ()) -> HostService:
        """Return it as a host service, another one when its settings or the ``build`` change."""
        file = self.folder / "gate.yaml"
        argv = (sys.executable, "-m", "haneul.app.main", "auth", "serve", "--config", str(file))
        written = str(self._secret.stat().st_mtime_ns)
        told = made_from(file.read_text() + written)
        variables = (("PATH", search_path), ("HANEUL_BUILD", build), told, *environment)
        return HostService(SERVICE, argv, variables)

    async def sign_up(self, token: str) -> None:
        """Have the issuer know the gate, by an administrator's ``token``, and write what the gate reads."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(self._sign_up, token)
        write_atomically(self.folder / "gate.yaml", yaml.safe_dump(self.document()), mode=0o600)

    @property
    def _secret(self) -> Path:
        return self.folder / "client.secret"

    def _sign_up(self, token: str) -> None:
        files = PlatformFiles(self.settings.state)
        server = f"https://{self.settings.address}:{API_PORT}"
        with ApiClient(server, authority=files.authority, token=token) as api:
            known = {client["id"]: client for client in api.get("/clients")}
            client = known.get(_CLIENT)
            if client is not None and self._secret.exists() and self.redirect_uri in _uris(client):
                return
            # A secret of before would be taken for the new one's by whoever goes on after this was killed.
            self._secret.unlink(missing_ok=True)
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
