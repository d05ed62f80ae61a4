"""Who gets in, by annotations and the objects that they name; what cannot be made out is closed. Pure."""

from __future__ import annotations

from typing import Final

from haneul.ingress.annotations import Wishes
from haneul.ingress.certificates import read_authority
from haneul.ingress.endpoints import port_of
from haneul.ingress.grammar import Url, parse_passwords
from haneul.ingress.model import AskedAuth, Auth, Backend, PasswordAuth, PeerTls, PeopleAuth, Upstream
from haneul.ingress.observed import Observed
from haneul.kernel.kube import SECRETS, SERVICES, Manifest

#: Characters of what the gate is asked with; it has to be a word of nginx's configuration.
_LONGEST_RULE: Final = 1800


class AccessRefusedError(ValueError):
    """What restricts access cannot be done as it is written."""


def auth_of(wishes: Wishes, namespace: str, observed: Observed, *, gate: bool) -> Auth | None:
    """Return who gets in; None is everybody. Raises AccessRefusedError."""
    named = PeopleAuth(wishes.auth_projects, wishes.auth_groups, wishes.auth_people, wishes.auth_emails)
    people = bool(wishes.auth) or named != PeopleAuth()
    if sum((people, bool(wishes.auth_type), bool(wishes.auth_url))) > 1:
        raise AccessRefusedError("only one of auth, auth-type and auth-url may be there")
    if people:
        if not gate:
            raise AccessRefusedError("auth: there is no gate to sign on at; whoever runs this has to name one")
        if len(named.rule) > _LONGEST_RULE:
            raise AccessRefusedError("auth: it names too many; make a group of them")
        return named
    if wishes.auth_url:
        asked = Upstream(_asked(wishes.auth_url, namespace, observed), wishes.auth_url.scheme.upper())
        return AskedAuth(asked, wishes.auth_url, wishes.auth_signin, wishes.auth_response_headers)
    if wishes.auth_type:
        secret = _secret(wishes.auth_secret, namespace, observed, "auth-secret")
        try:
            return PasswordAuth(wishes.auth_realm, parse_passwords((secret.get("data") or {}).get("auth", "")))
        except ValueError as error:
            raise AccessRefusedError(f"auth-secret: its auth: {error}") from error
    return None


def tls_of(wishes: Wishes, backend: Backend, observed: Observed) -> PeerTls | None:
    """Return how the certificates of endpoints are verified; None is not at all. Raises AccessRefusedError."""
    if not wishes.proxy_ssl_verify:
        return None
    if wishes.backend_protocol not in ("HTTPS", "GRPCS"):
        raise AccessRefusedError("proxy-ssl-verify: backend-protocol is neither HTTPS nor GRPCS")
    secret = _secret(wishes.proxy_ssl_secret, backend.namespace, observed, "proxy-ssl-secret")
    try:
        authority = read_authority(secret)
    except ValueError as error:
        raise AccessRefusedError(f"proxy-ssl-secret: {error}") from error
    return PeerTls(authority, wishes.proxy_ssl_name or f"{backend.service}.{backend.namespace}.svc")


def _secret(text: str, namespace: str, observed: Observed, annotation: str) -> Manifest:
    owner, _, name = text.rpartition("/")
    if owner not in ("", namespace):
        raise AccessRefusedError(f"{annotation}: a Secret of another namespace is not read")
    found = observed.get(SECRETS, namespace, name) if name else None
    if found is None:
        raise AccessRefusedError(f"{annotation}: there is no Secret {name or 'named'}")
    return found


def _asked(url: Url, namespace: str, observed: Observed) -> Backend:
    """Return the Service that an address names: no other is asked, as nobody may send this proxy where he pleases."""
    name, _, rest = url.host.partition(".")
    own = ("", namespace, f"{namespace}.svc")
    service = observed.get(SERVICES, namespace, name)
    if url.with_request or service is None or not (rest in own or rest.startswith(f"{namespace}.svc.")):
        raise AccessRefusedError(f"auth-url: {url.host} is no Service of this namespace")
    number = url.port or (443 if url.scheme == "https" else 80)
    port = port_of(service, {"number": number})
    if port is None:
        raise AccessRefusedError(f"auth-url: the Service {name} has no port {number}")
    return Backend(namespace, name, port)
