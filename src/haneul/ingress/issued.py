"""What an issuer gave a host, or why it did not, as whoever asks for the host is served and told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from haneul.ingress.certificates import out_of_time
from haneul.ingress.model import Certificate
from haneul.ingress.new_orders import why_held_up
from haneul.ingress.next_steps import next_step
from haneul.ingress.options import Options
from haneul.ingress.renewals import Refusals


def certificate_of(host: str, options: Options, now: datetime) -> Certificate | None:
    """Return what the issuer gave a host; not what ended, if another authority gave the host one."""
    given = options.by_acme.get(host)
    if given and host in options.issued and out_of_time(given, now):
        return None
    return given


def reasons(refusals: Mapping[str, Refusals], held: Mapping[str, datetime]) -> dict[str, str]:
    """Return why hosts were given none, by what was refused and by who has to wait, and until when."""
    waiting = {host: why_held_up(goes_on) for host, goes_on in held.items()}
    return {host: one.why for host, one in refusals.items()} | waiting


def refusal_of(host: str, options: Options) -> str:
    """Return why a host was given none the last time, and what to do; empty if it was."""
    why = options.unissued.get(host, "")
    return f"{host}: {why}; {next_step(why, options.addresses)}" if why else ""
