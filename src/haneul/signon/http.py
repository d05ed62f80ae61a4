"""The gate's endpoints: questions of the web server, and browsers on their way to a provider and back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, urlencode

import structlog

from haneul.kernel.errors import HaneulError, InvalidInputError, UnauthenticatedError, UnavailableError
from haneul.signon import metrics, model
from haneul.signon.addresses import Sites
from haneul.signon.cookies import (
    FORM,
    SESSION,
    SIGNED_OUT,
    remove_cookie,
    set_cookie,
    state_name,
    states_of,
    values_of,
    without_ours,
)
from haneul.signon.decisions import Decider, Decision, Verdict
from haneul.signon.exchange import Reply, Request
from haneul.signon.metrics import Metrics
from haneul.signon.model import Who
from haneul.signon.pages import RETRY_AFTER, Pages
from haneul.signon.rules import encoded
from haneul.signon.sessions import Sessions
from haneul.signon.sign_ons import LIFE, Finished, SignOns

_log = structlog.get_logger(__name__)
_LONGEST_BODY: Final = 4096
#: Sign-ons that a browser may have begun at once, and characters of their cookies; web servers take 8 KiB of cookies
#: at most. With more of them, all go, and it begins anew.
_MOST_BEGUN, _LONGEST_BEGUN = 8, 2500
_REMEMBER_SIGN_OUT: Final = 24 * 3600
_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")
_NOT_KEPT: Final = ("Cache-Control", "no-store")


class GateHttp:
    """Answers requests."""

    def __init__(
        self, sites: Sites, decider: Decider, sessions: Sessions, sign_ons: SignOns, counts: Metrics, session_life: int
    ) -> None:
        self._sites = sites
        self._decider = decider
        self._sessions = sessions
        self._sign_ons = sign_ons
        self._counts = counts
        self._life = session_life
        self._pages = Pages(sites.url)
        self._routes: Mapping[tuple[str, str], Callable[[Request], Awaitable[Reply]]] = {
            ("GET", "/auth"): self._auth,
            ("GET", "/denied"): self._denied,
            ("GET", "/start"): self._start,
            ("GET", "/callback"): self._callback,
            ("GET", "/"): self._sign_out_page,
            ("GET", "/sign-out"): self._sign_out_page,
            ("POST", "/sign-out"): self._sign_out,
            ("GET", "/style.css"): self._style,
            ("GET", "/healthz"): self._healthy,
            ("GET", "/metrics"): self._metrics,
        }

    async def answer(self, request: Request) -> Reply:
        """Answer a request, whatever it is."""
        asked = request.path in ("/auth", "/denied")
        # What the web server asks about may be of any method, and some servers ask with the same.
        method = "GET" if asked or request.method == "HEAD" else request.method
        route = self._routes.get((method, request.path))
        if route is None:
            known = any(path == request.path for _, path in self._routes)
            return Reply(405 if known else 404, (_PLAIN,), "There is nothing here.\n")
        try:
            return await route(request)
        except HaneulError as error:
            return self._failed(request, error)
        except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, nobody is let through by it
            _log.error("unexpected error", path=request.path, exc_info=error)
            return self._failed(request, HaneulError("the sign-on gate met an error that it does not know"))

    def _failed(self, request: Request, error: HaneulError) -> Reply:
        if request.path in ("/auth", "/denied"):
            self._counts.count("decisions", error.code)
            if not isinstance(error, UnavailableError):
                _log.error("a question cannot be answered", detail=error.detail, host=request.one("host"))
            # A header is one line; what errors say of others' answers need not be.
            said = " ".join(error.detail.encode("ascii", "replace").decode().split())
            return self._refusal(request, error, (model.PROBLEM, "".join(filter(str.isprintable, said))))
        return self._pages.failure(error, again=f"{self._sites.url}/start", action="Sign on")

    async def _auth(self, request: Request) -> Reply:
        """Say whether a request may go on. Servers that show this answer itself need nothing else."""
        decision = await self._decider.decide(request)
        self._counts.count("decisions", decision.verdict)
        match decision.verdict:
            case Verdict.PASS:
                return self._passed(request, decision)
            case Verdict.REFUSE:
                return self._refused(request, decision)
            case Verdict.SIGN_ON:
                return self._to_sign_on(request, decision)

    async def _denied(self, request: Request) -> Reply:
        """Say to a client why its request did not go on: browsers that may sign on are sent there."""
        decision = await self._decider.decide(request)
        if decision.verdict is Verdict.PASS:
            return Reply(403, (_PLAIN, _NOT_KEPT), "The web server refused this, not the sign-on.\n")
        if decision.verdict is Verdict.REFUSE:
            return self._refused(request, decision)
        if _navigates(request):
            return Reply(302, (("Location", self._sign_on_address(request)), _NOT_KEPT))
        return self._to_sign_on(request, decision)

    def _passed(self, request: Request, decision: Decision) -> Reply:
        who = decision.who
        assert who is not None  # noqa: S101 - nobody passes without being somebody
        headers = [
            *_identity(who),
            (model.COOKIE, without_ours(request.all("cookie"))),
            (model.AUTHORIZATION, decision.authorization),
        ]
        if decision.cookie:
            headers.append(("Set-Cookie", self._session_cookie(decision.cookie)))
        return Reply(200, tuple(header for header in headers if header[1]))

    def _refused(self, request: Request, decision: Decision) -> Reply:
        who, told = decision.who, decision.rule.told()
        assert who is not None  # noqa: S101 - as above
        if _shows_pages(request):
            return self._pages.show("refused", status=403, user=who.user, told=told)
        return _problem(
            403, "forbidden", "Not allowed", f"{who.user} may not open this", f"it is open to: {', '.join(told)}"
        )

    def _to_sign_on(self, request: Request, decision: Decision) -> Reply:
        address = self._sign_on_address(request)
        headers: tuple[tuple[str, str], ...] = (("WWW-Authenticate", 'Bearer realm="haneul"'),)
        if _navigates(request):
            headers = (*headers, (model.SIGN_ON, address))
        error = UnauthenticatedError(
            decision.why or "nobody is signed on in this browser, and no token came along",
            hint=f"browsers sign on at {self._sites.url}/start, programs send a token: Authorization: Bearer TOKEN",
        )
        if _shows_pages(request):
            return self._pages.failure(error, headers=headers, again=address, action="Sign on")
        return _problem(401, error.code, error.title, error.detail, error.hint, *headers)

    def _refusal(self, request: Request, error: HaneulError, *headers: tuple[str, str]) -> Reply:
        if _shows_pages(request):
            return self._pages.failure(error, headers=headers)
        again = (RETRY_AFTER,) if isinstance(error, UnavailableError) else ()
        return _problem(error.http_status, error.code, error.title, error.detail, error.hint, *headers, *again)

    def _sign_on_address(self, request: Request) -> str:
        wanted = request.one(model.ORIGINAL_URL)
        query = f"?{urlencode({'rd': wanted})}" if self._sites.allows(wanted) else ""
        return f"{self._sites.url}/start{query}"

    async def _start(self, request: Request) -> Reply:
        asked = _fields(request.query)
        back = self._sign_ons.checked(asked.get("rd", ""))
        providers = self._sign_ons.providers
        name = asked.get("provider", providers[0].name if len(providers) == 1 else "")
        if not name:
            choices = [
                (one.title, f"{self._sites.url}/start?{urlencode({'provider': one.name, 'rd': back})}")
                for one in providers
            ]
            return self._pages.show("choose", choices=choices)
        # Whoever signed out wants to be asked again, although the provider may still know them.
        prompt = "login" if values_of(request.all("cookie"), SIGNED_OUT) else ""
        begun = await self._sign_ons.begin(name, back, prompt=prompt)
        others = states_of(request.all("cookie"))
        long = sum(len(value) for name in others for value in values_of(request.all("cookie"), name))
        gone = others if len(others) >= _MOST_BEGUN or long > _LONGEST_BEGUN else []
        cookies = [remove_cookie(other) for other in gone]
        cookies.append(set_cookie(state_name(begun.state), begun.cookie, seconds=LIFE))
        return _sent(begun.url, cookies)

    async def _callback(self, request: Request) -> Reply:
        answer = _fields(request.query)
        name = state_name(answer.get("state", ""))
        bound = values_of(request.all("cookie"), name)
        # Its cookie goes in any case: an answer is looked at once.
        done = [remove_cookie(name)]
        try:
            finished = await self._sign_ons.finish(answer, bound)
            _, cookie = self._sessions.begin(finished.who, finished.refresh)
        except HaneulError as error:
            self._counts.count("sign_ons", error.code)
            _log.info("a sign-on did not succeed", detail=error.detail)
            query = urlencode({"rd": self._sign_ons.begun(answer.get("state", ""), bound)})
            headers = tuple(("Set-Cookie", one) for one in done)
            return self._pages.failure(
                error, headers=headers, again=f"{self._sites.url}/start?{query}", action="Try again"
            )
        self._counts.count("sign_ons", "done")
        _log.info("signed on", user=finished.who.user, provider=finished.who.provider)
        return self._arrived(finished, [*done, remove_cookie(SIGNED_OUT), self._session_cookie(cookie)])

    def _arrived(self, finished: Finished, cookies: list[str]) -> Reply:
        if finished.back:
            return _sent(finished.back, cookies)
        text = f"You are signed on as {finished.who.user}, at all sites of {self._sites.domain}."
        return self._done("Signed on", text, ("sign-out", "Sign out"), cookies)

    def _done(self, title: str, text: str, link: tuple[str, str], cookies: Iterable[str]) -> Reply:
        headers = tuple(("Set-Cookie", one) for one in cookies)
        return self._pages.show("done", headers=headers, title=title, text=text, action=link[0], label=link[1])

    async def _sign_out_page(self, request: Request) -> Reply:
        known = await self._sessions.known(values_of(request.all("cookie"), SESSION))
        form = secrets.token_urlsafe(24)
        cookie = set_cookie(FORM, form, seconds=LIFE, strict=True)
        return self._pages.show(
            "sign_out",
            headers=(("Set-Cookie", cookie),),
            user=known.session.who.user if known is not None else "",
            domain=self._sites.domain,
            form=form,
        )

    async def _sign_out(self, request: Request) -> Reply:
        """Sign out by the form of our own page alone: what it has, no other site can read or set."""
        if len(request.body) > _LONGEST_BODY:
            raise InvalidInputError("the form is too long", hint="load the page again")
        form = _fields(request.body.decode("utf-8", "replace")).get("form", "")
        bound = values_of(request.all("cookie"), FORM)
        same = len(bound) == 1 and bound[0] != "" and secrets.compare_digest(bound[0].encode(), form.encode())
        if not same or request.one("origin") not in ("", self._sites.url):
            raise InvalidInputError("this form was not opened in this browser", hint="load the page again")
        ended = await self._sessions.end(values_of(request.all("cookie"), SESSION))
        self._counts.count("sign_outs", "done" if ended else "nobody")
        for session in ended:
            _log.info("signed out", user=session.who.user)
        cookies = (
            remove_cookie(SESSION, domain=self._sites.domain),
            remove_cookie(FORM),
            set_cookie(SIGNED_OUT, "1", seconds=_REMEMBER_SIGN_OUT),
        )
        text = f"You are signed out at all sites of {self._sites.domain}. At your provider you may still be signed on."
        return self._done("Signed out", text, ("start", "Sign on again"), cookies)

    async def _style(self, _: Request) -> Reply:
        return self._pages.style()

    async def _healthy(self, _: Request) -> Reply:
        return Reply(200, (_PLAIN,), "alive\n")

    async def _metrics(self, _: Request) -> Reply:
        return Reply(200, (("Content-Type", metrics.MEDIA_TYPE),), self._counts.text())

    def _session_cookie(self, value: str) -> str:
        return set_cookie(SESSION, value, seconds=self._life, domain=self._sites.domain)


@lru_cache(maxsize=1024)
def _identity(who: Who) -> tuple[tuple[str, str], ...]:
    """Return what an app is told of somebody."""
    return (
        (model.USER, encoded(who.user)),
        (model.EMAIL, encoded(who.email)),
        (model.GROUPS, ",".join(map(encoded, who.groups))),
        (model.PROJECTS, ",".join(map(encoded, who.projects))),
    )


def _sent(address: str, cookies: list[str]) -> Reply:
    headers = (("Location", address), _NOT_KEPT, ("Referrer-Policy", "no-referrer"))
    return Reply(303, (*headers, *(("Set-Cookie", one) for one in cookies)))


def _shows_pages(request: Request) -> bool:
    return "text/html" in ",".join(request.all("accept")).lower()


def _navigates(request: Request) -> bool:
    """Say whether a browser asks for a page to show, which may be another than the one that it asked for."""
    method = request.one(model.ORIGINAL_METHOD) or request.method
    mode = request.one("sec-fetch-mode")
    return method in ("GET", "HEAD") and _shows_pages(request) and mode in ("", "navigate")


def _fields(text: str) -> dict[str, str]:
    """Return parameters; one that comes twice could be read in two ways. Raises InvalidInputError."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError as error:
        raise InvalidInputError("the parameters are not readable", hint="open the app's own address") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInputError("a parameter comes more than once", hint="open the app's own address")
    return {name: value for name, value in found.items() if value}


def _problem(status: int, code: str, title: str, detail: str, hint: str, *headers: tuple[str, str]) -> Reply:
    """Return problem details (RFC 9457)."""
    body = {"type": f"urn:haneul:error:{code}", "title": title, "status": status, "detail": detail}
    text = json.dumps({**body, "code": code, "hint": hint}) + "\n"
    return Reply(status, (("Content-Type", "application/problem+json"), _NOT_KEPT, *headers), text)
