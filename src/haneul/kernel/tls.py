"""TLS towards servers of an authority of one's own, by a certificate that is held in memory."""

from __future__ import annotations

import ssl
import tempfile


def client_context(authority: bytes, certificate: bytes = b"", key: bytes = b"") -> ssl.SSLContext:
    """Return what trusts exactly the servers of an authority and shows them a certificate, if there is one; all PEM."""
    context = ssl.create_default_context(cadata=authority.decode())
    if certificate:
        # OpenSSL's Python face loads key pairs from files only; this one is private and gone at once.
        with tempfile.NamedTemporaryFile(prefix="haneul-", suffix=".pem") as handle:
            handle.write(certificate + b"\n" + key)
            handle.flush()
            context.load_cert_chain(handle.name)
    return context
