"""The whole of it: Debian's nginx asks the gate, the platform's issuer signs people on, an app shows what it gets."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml

from tests.functional.sign_on.processes import Platform, running_platform
from tests.functional.signon.front import DOMAIN, Front, running_front

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
SESSION = "__Secure-haneul-session"
#: What a client may try to say of itself.
LIES = {
    "X-Haneul-User": "root",
    "x-haneul-groups": "ops",
    "X-HANEUL-PROJECTS": "shop",
    "X-Haneul-Email": "root@example.com",
    "X_Haneul_User": "root",
    "X-Haneul-Rule": "anyone",
    "X-Haneul-Cookie": "a=b",
    "X-Haneul-Authorization": "Basic eDp5",
    "X-Original-URL": "https://evil.test/",
    "X-Original-Method": "OPTIONS",
}


class Ground:
    """The front, and the platform that people sign on at."""

    def __init__(self, front: Front, platform: Platform) -> None:
        self.front = front
        self.platform = platform

    def browser(self) -> httpx2.Client:
        return self.front.browser(self.platform.authority)

    def sign_on(self, http: httpx2.Client, name: str, address: str) -> httpx2.Response:
        """Open an address as somebody who is not signed on; return what is there in the end."""
        page = http.get(address)
        assert (page.status_code, page.headers["location"].partition("?")[0]) == (302, f"{self.front.url}/start")
        sent = http.get(page.headers["location"])
        answer = self.platform.visit(http, sent.headers["location"], name)
        assert answer.status_code == 303, answer.text
        back = http.get(answer.headers["location"])
        assert (back.status_code, back.headers["location"]) == (303, address), back.text
        return http.get(address)

    def token(self, name: str) -> str:
        return str(self.platform.admin("POST", f"/people/{name}/tokens", {})["secret"])


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("front")
    with running_platform(tmp_path_factory.mktemp("platform")) as platform:

        def configured(front: Front) -> None:
            body = {"id": "apps", "redirectUris": [f"{front.url}/callback"]}
            secret = platform.admin("POST", "/clients", body)["secret"]
            (folder / "secret").write_text(secret)
            (folder / "secret").chmod(0o600)
            authority = str(platform.authority)
            provider: dict[str, Any] = {"name": "platform", "issuer": f"{platform.origin}/oidc", "clientId": "apps"}
            provider |= {"clientSecretFile": "secret", "authorityFile": authority, "emailIsVerified": True}
            provider["patienceSeconds"] = 60
            document: dict[str, Any] = {"url": front.url, "domain": DOMAIN, "listen": front.listen}
            document |= {"providers": [provider], "platform": {"url": platform.origin, "authorityFile": authority}}
            document["platform"]["patienceSeconds"] = 60
            front.config.write_text(yaml.safe_dump(document))

        for name in ("alice", "bob"):
            platform.add(name)
        platform.admin("POST", "/projects", {"name": "shop"})
        platform.admin("PUT", "/projects/shop/members/alice", {"role": "viewer"})
        with running_front(folder, configured) as front:
            yield Ground(front, platform)


def seen(answer: httpx2.Response) -> dict[str, list[str]]:
    """Return the headers that the app got."""
    assert answer.status_code == 200, answer.text
    headers: dict[str, list[str]] = answer.json()["headers"]
    return headers


def test_a_browser_signs_on_once_for_all_hosts_and_the_app_learns_who_it_is(ground: Ground) -> None:
    wiki = ground.front.site("wiki", "/page?x=1&y=%20z")
    with ground.browser() as http:
        first = ground.sign_on(http, "alice", wiki)
        assert first.json()["path"] == "/page?x=1&y=%20z"
        http.get(wiki)
        headers = seen(http.get(ground.front.site("docs", "/shop/")))
        assert headers["x-haneul-user"] == ["alice"]
        assert headers["x-haneul-email"] == ["alice@example.com"]
        assert headers["x-haneul-projects"] == ["shop"]
        # Its own cookie came back to it, and no other did.
        assert seen(http.get(wiki))["cookie"] == ["theme=dark"]
        assert http.post(wiki, content=b"x" * 100_000).json()["body"] == 100_000


def test_who_may_not_is_told_who_may(ground: Ground) -> None:
    with ground.browser() as http:
        ground.sign_on(http, "bob", ground.front.site("wiki"))
        refused = http.get(ground.front.site("wiki", "/shop/"))
        assert refused.status_code == 403
        assert "signed on as bob" in refused.text and "members of the project shop" in refused.text
        assert "frame-ancestors 'none'" in refused.headers["content-security-policy"]


def test_programs_pass_by_token_and_the_app_does_not_get_it(ground: Ground) -> None:
    alice = {"Authorization": f"Bearer {ground.token('alice')}", "Accept": "application/json"}
    with ground.browser() as http:
        headers = seen(http.get(ground.front.site("wiki", "/shop/"), headers=alice))
        assert (headers["x-haneul-user"], "authorization" in headers) == (["alice"], False)
        refused = http.get(ground.front.site("wiki", "/ops/"), headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        for token in ("haneul_a_b", secrets.token_hex(20)):
            answer = http.get(
                ground.front.site("wiki", "/shop/"),
                headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            )
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == 'Bearer realm="haneul"'


def test_what_clients_say_of_themselves_reaches_neither_app_nor_gate(ground: Ground) -> None:
    with ground.browser() as http:
        assert not [
            name for name in seen(http.get(ground.front.site("wiki", "/open/"), headers=LIES)) if "haneul" in name
        ]
        # Nor does the rule of a route come from them, with or without a session.
        refused = http.get(ground.front.site("wiki", "/ops/"), headers={**LIES, "Sec-Fetch-Mode": "cors"})
        assert (refused.status_code, "evil" in refused.text) == (401, False)
        ground.sign_on(http, "alice", ground.front.site("wiki"))
        assert http.get(ground.front.site("wiki", "/ops/"), headers=LIES).status_code == 403
        headers = seen(http.get(ground.front.site("wiki", "/shop/"), headers=LIES))
        told = {name: value for name, value in headers.items() if "haneul" in name}
        assert told == {
            "x-haneul-user": ["alice"], "x-haneul-email": ["alice@example.com"], "x-haneul-projects": ["shop"],
        }  # fmt: skip
        # An app that nobody guards gets no session either, which it could use elsewhere.
        session = http.cookies[SESSION]
        for sent, left in (
            (f"theme=dark; {SESSION}={session}", "theme=dark"),
            (f"{SESSION}={session}; theme=dark", "theme=dark"),
            (f"a=1; {SESSION}=x; b=2", "a=1; b=2"),
            (f"{SESSION}={session}; a=1; {SESSION}=y", ""),
        ):
            found = seen(http.get(ground.front.site("wiki", "/open/"), headers={"Cookie": sent})).get("cookie", [""])
            assert found[0].rstrip("; ") == left


def test_a_route_whose_rule_is_missing_lets_nobody_pass(ground: Ground) -> None:
    with ground.browser() as http:
        ground.sign_on(http, "alice", ground.front.site("wiki"))
        refused = http.get(ground.front.site("wiki", "/unset/"), headers={"X-Haneul-Rule": "anyone"})
        assert (refused.status_code, "rule" in refused.text) == (503, True)


def test_the_question_itself_cannot_be_asked_from_outside(ground: Ground) -> None:
    with ground.browser() as http:
        assert http.get(ground.front.site("wiki", "/.haneul/auth")).status_code == 404
        for path in ("/auth", "/denied", "/metrics", "/healthz"):
            assert http.get(ground.front.site("auth", path)).status_code == 404


@pytest.mark.parametrize(
    ("request_", "status"),
    # What names another host meets the first server, the gate's own.
    [
        (b"GET /shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nX-Haneul-User : root\r\n", b"400"),
        (b"GET /shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nHost: evil.test\r\n", b"400"),
        (b"GET /shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nCookie: " + b"a" * 40_000 + b"\r\n", b"400"),
        (
            b"POST /shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
            b"Sec-Fetch-Mode: cors\r\n",
            b"400",
        ),
        (b"GET /shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nCookie: " + b"a" * 7_000 + b"\r\n", b"401"),
        (b"GET /shop/\xff\xfe HTTP/1.1\r\nHost: wiki.apps.test\r\nCookie: a=\xff\xfe\r\n", b"401"),
        (b"GET https://evil.test/shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nAccept: text/html\r\n", b"404"),
        (b"GET /shop/ HTTP/1.1\r\nHost: evil.test\r\nAccept: text/html\r\n", b"404"),
        (b"GET //evil.test/%2e%2e/shop/ HTTP/1.1\r\nHost: wiki.apps.test\r\nAccept: text/html\r\n", b"302"),
    ],
)
def test_requests_that_are_meant_to_confuse(ground: Ground, request_: bytes, status: bytes) -> None:
    head = ground.front.raw(request_ + b"Connection: close\r\n\r\n")
    assert head.split(b" ", 2)[1] == status, head
    location = [line.partition(b" ")[2] for line in head.splitlines() if line.lower().startswith(b"location:")]
    # The Host header named no port, so it is no address of the domain: nothing of it is kept.
    assert location == ([f"{ground.front.url}/start".encode()] if status == b"302" else [])


def test_a_long_cookie_and_a_session_pass_together(ground: Ground) -> None:
    with ground.browser() as http:
        ground.sign_on(http, "alice", ground.front.site("wiki"))
        cookie = f"{SESSION}={http.cookies[SESSION]}; long={'x' * 5000}"
        headers = seen(http.get(ground.front.site("wiki"), headers={"Cookie": cookie}))
        assert headers["cookie"] == [f"long={'x' * 5000}"]


def test_signing_out_is_for_all_hosts(ground: Ground) -> None:
    with ground.browser() as http:
        ground.sign_on(http, "alice", ground.front.site("wiki"))
        copied = f"{SESSION}={http.cookies[SESSION]}"
        page = http.get(ground.front.site("auth", "/sign-out"))
        form = page.text.partition('name="form" value="')[2].partition('"')[0]
        assert http.post(ground.front.site("auth", "/sign-out"), data={"form": "guess"}).status_code == 422
        done = http.post(
            ground.front.site("auth", "/sign-out"), data={"form": form}, headers={"Origin": ground.front.url}
        )
        assert (done.status_code, SESSION in http.cookies) == (200, False)
        for cookie in ("", copied):
            asked = http.get(ground.front.site("docs"), headers={"Cookie": cookie})
            assert (asked.status_code, "/start" in asked.headers["location"]) == (302, True)
    sessions = ground.platform.admin("GET", "/people/alice/sessions")
    assert isinstance(sessions, list)


def test_without_the_gate_protected_paths_say_so_and_open_ones_serve(ground: Ground) -> None:
    with ground.browser() as http:
        ground.sign_on(http, "alice", ground.front.site("wiki"))
        ground.front.stop_gate()
        try:
            for path in ("/", "/shop/", "/ops/"):
                away = http.get(ground.front.site("wiki", path))
                assert away.status_code == 503
                assert (away.text.startswith("Sign-on is not available"), away.headers["retry-after"]) == (True, "10")
            assert http.get(ground.front.site("wiki", "/open/")).status_code == 200
            assert http.get(ground.front.site("auth", "/start")).status_code == 502
        finally:
            ground.front.start_gate()
        # Whoever was signed on still is.
        assert seen(http.get(ground.front.site("wiki", "/shop/")))["x-haneul-user"] == ["alice"]


def test_the_log_has_no_secret(ground: Ground) -> None:
    token = ground.token("alice")
    with ground.browser() as http:
        ground.sign_on(http, "alice", ground.front.site("wiki"))
        http.get(ground.front.site("wiki", "/shop/"), headers={"Authorization": f"Bearer {token}"})
        session = http.cookies[SESSION]
    log = (ground.front.folder / "gate.log").read_text()
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [entry["user"] for entry in entries if entry["event"] == "signed on"]
    for secret in (token, session, (ground.front.folder / "secret").read_text()):
        assert secret not in log
