"""Paths of Ingress rules, and which of several that match is taken. Pure.

The API's rule (Kubernetes documentation "Ingress", "Multiple matches"): the longest path goes first, and of equally
long ones an exact path before a prefix. An exact path is tried before all others here, as nothing that matches is
longer. A path of type ImplementationSpecific is a prefix. Where the Ingress asks for expressions, all but exact paths
are such: they begin at the path's start, have no end of their own, and are compared without case, as ingress-nginx
does.
"""

from __future__ import annotations

from haneul.ingress.expressions import parse_expression
from haneul.ingress.grammar import parse_path
from haneul.ingress.model import Match, Path

_ORDER = {Match.EXACT: 0, Match.PREFIX: 1, Match.EXPRESSION: 2}


def parse_rule_path(text: str, kind: str, *, expressions: bool) -> Path:
    """Return the path of a rule of a type of the API. Raises ValueError."""
    if kind == "Exact":
        return Path(Match.EXACT, parse_path(text))
    if kind not in ("Prefix", "ImplementationSpecific"):
        raise ValueError(f"there is no type {kind!r}")
    if expressions:
        expression = parse_expression(text or "/")
        return Path(Match.EXPRESSION, expression.text, expression)
    return Path(Match.PREFIX, parse_path(text or "/").rstrip("/") or "/")


def precedence(path: Path) -> tuple[bool, int, int, str]:
    """Return what paths of one host are sorted by, the first to be tried first."""
    return (path.match is not Match.EXACT, -len(path.text), _ORDER[path.match], path.text)
