"""Counts for Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from typing import Final

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_WHAT: Final = {
    "decisions": ("haneul_auth_decisions_total", "verdict", "Questions of the web server, by their answer."),
    "sign_ons": ("haneul_auth_sign_ons_total", "result", "Sign-ons that came back from a provider."),
    "sign_outs": ("haneul_auth_sign_outs_total", "result", "Sign-outs."),
}


class Metrics:
    """What this process has done since it began."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, what: str, label: str) -> None:
        """Count one."""
        self._counts[what, label] += 1

    def text(self) -> str:
        """Return everything for Prometheus."""
        lines = []
        for what, (name, label, words) in _WHAT.items():
            lines += [f"# HELP {name} {words}", f"# TYPE {name} counter"]
            lines += [
                f'{name}{{{label}="{value}"}} {count}'
                for (key, value), count in sorted(self._counts.items())
                if key == what
            ]
        return "\n".join(lines) + "\n"
