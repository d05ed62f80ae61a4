"""The certificate that a server presents, taken anew from its files while the server runs.

New connections get the new certificate; open ones go on with what they were begun with.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import structlog

from haneul.kernel.clock import Clock

_log = structlog.get_logger(__name__)
_LOOK_SECONDS: Final = 30.0


class ServingCertificate:
    """``tls.crt`` and ``tls.key`` in a folder that somebody else may change at any time, as a mounted Secret is."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._loaded = self._read()
        #: To be used by the server; what it presents changes in place.
        self.context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    async def follow(self) -> None:
        """Look for another certificate every half minute, without end."""
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            self.refresh()

    def refresh(self) -> bool:
        """Present what is in the files now; return whether that is something else than before.

        What cannot be used, such as a key that is not the certificate's, is left alone until the next look.
        """
        try:
            found = self._read()
            if found == self._loaded:
                return False
            # Half a failure would leave the server without a certificate, so another context tries it first.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except (OSError, ssl.SSLError) as error:
            _log.warning("the certificate in the files cannot be used", error=str(error))
            return False
        self._loaded = found
        _log.info("another certificate is presented from now on")
        return True

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        folder = self._current()
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        return context

    def _read(self) -> tuple[bytes, bytes]:
        folder = self._current()
        return (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()

    def _current(self) -> Path:
        """Return the folder behind the links by which the kubelet changes all files of a Secret at once."""
        return (self._folder / "tls.crt").resolve().parent
