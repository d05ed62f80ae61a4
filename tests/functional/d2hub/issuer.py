"""An OpenID Connect issuer in the test process: its keys, its tokens, and its address."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

AUDIENCE = "https://hub.test"


class Issuer:
    """Signs tokens with the newest of its keys."""

    def __init__(self, url: str, *, now: int) -> None:
        self.url, self.now = url, now
        self.keys: list[RSAKey | ECKey] = []
        self.rotate()

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.keys.append(ECKey.generate_key("P-256", {"kid": f"key-{len(self.keys) + 1}", "use": "sig"}))

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def key_set(self) -> KeySet:
        return KeySet.import_key_set(self.jwks())  # type: ignore[arg-type]  # it is made of its keys

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Return claims of a build's token; one that is None is left out."""
        whole = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/web:main",
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + 600,
            **claims,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, *, key: RSAKey | ECKey | OctKey | None = None, alg: str = "ES256", **claims: Any) -> str:
        signing = key or self.keys[-1]
        header = {"alg": alg, "typ": "JWT", "kid": signing.kid}
        return jwt.encode(header, self.claims(**claims), signing, algorithms=[alg])


@contextlib.contextmanager
def served_issuer(now: int) -> Iterator[Issuer]:
    """Serve an issuer's discovery document and keys at a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            documents = {
                "/.well-known/openid-configuration": {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"},
                "/keys": issuer.jwks(),
            }
            found = documents.get(self.path)
            body = json.dumps(found or {}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}", now=now)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
