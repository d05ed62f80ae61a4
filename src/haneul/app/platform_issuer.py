"""Who certifies clusters' public hosts, as root named it once: kept on the host, and taken up by the worker of ingress.

One file has all of it, for root only, so that there is the old issuer or the new one whenever a program is ended. The
account is the host's, one for each directory: it outlives every cluster.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from haneul.ingress.adapters.acme_authority import AcmeAuthority, Binding, Issuing
from haneul.ingress.adapters.certificate_folder import CertificateFolder, account_key
from haneul.ingress.issuing import Issuer
from haneul.ingress.public_names import PublicNames
from haneul.ingress.settings import PlatformIssuerSettings, read_issuer
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private, write_atomically
from haneul.management.ingress_host import IngressFiles

_PRIVATE: Final = 0o600
_AGAIN: Final = "'haneul up --acme FILE' names the issuer again"


class _Kept(BaseModel):
    """All that the worker has to know, without another file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str
    contact: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    #: Authorities of the issuer's own server, PEM; empty for the system's.
    authorities: str = ""
    #: An account elsewhere with its key, Base64 with the alphabet for addresses.
    account: str = ""
    key: str = Field("", repr=False)


@dataclass(frozen=True)
class PublicIssuer:
    """An issuer for hosts with public names; ``mark`` tells its directory from others."""

    issuing: Issuing
    names: PublicNames
    mark: str

    def store(self, folder: Path) -> CertificateFolder:
        """Return where the certificates of a cluster lie that has ``folder``."""
        return CertificateFolder(folder / f"acme-{self.mark}")

    def issuer(self, folder: Path, clock: Clock) -> Issuer:
        """Return who supplies the cluster's hosts."""
        return Issuer(AcmeAuthority(self.issuing, clock), self.store(folder), clock)


class PlatformIssuer:
    """The issuer of this host's platform, if one is named."""

    def __init__(self, files: IngressFiles) -> None:
        self._files = files

    def name(self, file: Path) -> None:
        """Have an issuer from the next start of the worker on. Raises InvalidInputError for a file that names none."""
        settings = read_issuer(file)
        account, key = "", ""
        if settings.external_account:
            account, key = settings.external_account.id, _key(settings.external_account.key_file)
        kept = _Kept(
            directory=settings.directory,
            contact=settings.contact,
            names=settings.names,
            authorities=_authorities(settings),
            account=account,
            key=key,
        )
        write_atomically(self._files.issuer, kept.model_dump_json(indent=1) + "\n", mode=_PRIVATE)

    def forget(self) -> None:
        """Have none; what it gave stays where it is, and is not served any more."""
        self._files.issuer.unlink(missing_ok=True)

    def told(self) -> str:
        """Return a text that is another one whenever the issuer is; empty without one."""
        try:
            return self._files.issuer.read_text()
        except FileNotFoundError:
            return ""

    def made(self) -> PublicIssuer | None:
        """Return the issuer with its account. Raises InvalidInputError if what was kept was spoiled."""
        try:
            kept = _Kept.model_validate_json(read_private(self._files.issuer))
        except FileNotFoundError:
            return None
        except (ValidationError, NotPrivateError, ValueError) as error:
            raise InvalidInputError(f"{self._files.issuer} is none of ours", hint=_AGAIN) from error
        mark = hashlib.sha256(kept.directory.encode()).hexdigest()[:12]
        folder = self._files.accounts / mark
        key, trust = account_key(folder), None
        if kept.authorities:
            trust = folder / "authorities.pem"
            write_atomically(trust, kept.authorities, mode=_PRIVATE)
        binding = Binding(kept.account, kept.key) if kept.account else None
        issuing = Issuing(kept.directory, kept.contact, key, trust, binding)
        return PublicIssuer(issuing, PublicNames(kept.names), mark)


def _authorities(settings: PlatformIssuerSettings) -> str:
    if settings.authorities is None:
        return ""
    try:
        text = settings.authorities.read_text()
        x509.load_pem_x509_certificates(text.encode())
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{settings.authorities} has no certificates: {error}", hint="'authorities' names a file in PEM"
        ) from error
    return text


def _key(file: Path) -> str:
    try:
        text = read_private(file).strip()
        base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except NotPrivateError as error:
        raise InvalidInputError(f"others may read {file}", hint=f"chmod 600 {file}") from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{file} has no key: {error}", hint="'keyFile' has the issuer's key, Base64 with '-' and '_'"
        ) from error
    return text
