"""The gate's pages for people. They need no script, load nothing but a style sheet, and nobody may frame them."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from haneul.kernel.errors import HaneulError, UnavailableError
from haneul.signon.exchange import Reply

_HEADERS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
RETRY_AFTER: Final = ("Retry-After", "10")


class Pages:
    """Renders pages; ``base`` is the gate's own origin, as they are also shown at other hosts of the domain."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._templates = Environment(
            loader=PackageLoader("haneul.signon"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._elsewhere = tuple((name, value.replace("'self'", base)) for name, value in _HEADERS)

    def show(self, name: str, *, status: int = 200, headers: tuple[tuple[str, str], ...] = (), **values: Any) -> Reply:
        """Return a page."""
        text = self._templates.get_template(f"{name}.html").render(base=self._base, **values)
        return Reply(status, (*self._elsewhere, *headers), text)

    def failure(
        self, error: HaneulError, *, headers: tuple[tuple[str, str], ...] = (), again: str = "", action: str = ""
    ) -> Reply:
        """Return an error as a page, with a link to ``again`` that says ``action``."""
        if isinstance(error, UnavailableError):
            headers = (*headers, RETRY_AFTER)
        return self.show("problem", status=error.http_status, headers=headers, error=error, again=again, action=action)

    def style(self) -> Reply:
        """Return the style sheet."""
        headers = (("Content-Type", "text/css; charset=utf-8"), ("Cache-Control", "max-age=3600"))
        return Reply(200, headers, self._templates.get_template("style.css").render())
