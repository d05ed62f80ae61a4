"""What nginx is told."""

from __future__ import annotations

from pathlib import Path

from haneul.signon.addresses import sites_of
from haneul.signon.nginx import gate_part, http_part, open_part, protected_part, server_part
from haneul.signon.rules import rule_of
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"


def test_the_parts() -> None:
    compare(GOLDEN, "http.conf", http_part("127.0.0.1:7480"))
    compare(GOLDEN, "server.conf", server_part())
    compare(GOLDEN, "protected.conf", protected_part(rule_of(projects=["shop"], people=["alice"])))
    compare(GOLDEN, "open.conf", open_part())
    compare(GOLDEN, "gate.conf", gate_part(sites_of("https://auth.apps.test", "apps.test")))


def test_names_cannot_leave_the_rule() -> None:
    part = protected_part(rule_of(groups=['x"; return 200; #', "$host", "a\nb", "{}"]))
    first = part.splitlines()[0]
    assert first == 'set $haneul_rule "group:%24host group:a%0Ab group:x%22%3B%20return%20200%3B%20%23 group:%7B%7D";'
