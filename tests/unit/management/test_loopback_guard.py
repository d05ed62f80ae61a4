"""The object store's servers are for its parts and root."""

from __future__ import annotations

from haneul.management.loopback_guard import rules


def test_everybody_else_is_refused_at_these_ports_alone() -> None:
    text = rules("127.0.1.0/24", (6200, 6203), user=65530)
    assert "ip daddr 127.0.1.0/24 tcp dport { 6200, 6203 } meta skuid != { 0, 65530 } reject with tcp reset" in text
    # What was there before goes in the same transaction, whether it was there or not.
    assert text.splitlines()[:2] == ["table ip haneul_kage { }", "delete table ip haneul_kage"]
    assert "policy accept" in text
