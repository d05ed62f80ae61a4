"""Who may decide, and what decisions amount to: by table and by property."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.firewall.decisions import check_approval, check_denial, check_revocation, lapsed, missing, open_rules
from haneul.firewall.model import (
    Actor,
    Approval,
    Asker,
    Decision,
    DecisionKind,
    Resource,
    Site,
    SiteNode,
    WantedNode,
    Way,
    rule_of,
)
from haneul.kernel.errors import ConflictError, ForbiddenError, HaneulError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
DB = Resource(name="db-prod", addresses=("10.1.2.3/32",), ports=("5432/tcp",), reason="orders")
MAIL = Resource(name="mail", addresses=("10.1.9.0/24",), ports=("25/tcp", "587/tcp"), reason="letters")
WAY = Way(project="shop", cluster="web", uid="uid-1", pool="gated", node="gated-0", address="192.0.2.7", resource=DB)
ASKED = "digest-of-the-pool"
BOB = Asker(person="bob", behind=False, asked=ASKED)


def decision(kind: DecisionKind, way: Way = WAY, number: int = 1) -> Decision:
    return Decision(number=number, moment=NOW, kind=kind, person="carol", why="so", way_id=way.id, way=way)


def approval(way: Way) -> Approval:
    return Approval(way=way, approver="carol", decision=1, moment=NOW)


@pytest.mark.parametrize(
    ("actor", "askers", "latest", "refused"),
    [
        (Actor(person="carol"), [BOB], None, None),
        (Actor(person="carol"), [BOB], decision(DecisionKind.DENIED), None),
        (Actor(person="carol"), [BOB], decision(DecisionKind.REVOKED), None),
        (Actor(person="carol"), [BOB], decision(DecisionKind.LAPSED), None),
        (Actor(person="carol"), [BOB], decision(DecisionKind.APPROVED), ConflictError),
        (Actor(person="bob"), [BOB], None, ForbiddenError),
        # Who asked for an earlier form of the pool, with a robot's or somebody else's token, is an asker too.
        (Actor(person="carol"), [BOB, Asker(person="carol", behind=False, asked="older")], None, ForbiddenError),
        (Actor(person="carol"), [BOB, Asker(person="carol", behind=True, asked=ASKED)], None, ForbiddenError),
        (Actor(person="carol", behind=frozenset({"bob"})), [BOB], None, ForbiddenError),
        (Actor(person="carol", behind=frozenset({"admin"})), [BOB], None, None),
        # Nobody asked for the pool as it is now.
        (Actor(person="carol"), [], None, ConflictError),
        (Actor(person="carol"), [Asker(person="bob", behind=False, asked="older")], None, ConflictError),
        (Actor(person="carol"), [Asker(person="bob", behind=True, asked=ASKED)], None, ConflictError),
    ],
)
def test_whose_approval_counts(
    actor: Actor, askers: list[Asker], latest: Decision | None, refused: type[HaneulError] | None
) -> None:
    if refused is None:
        check_approval(WAY, ASKED, actor, askers, latest)
    else:
        with pytest.raises(refused):
            check_approval(WAY, ASKED, actor, askers, latest)


@pytest.mark.parametrize("kind", [None, *DecisionKind])
def test_only_an_approval_is_revoked_and_everything_else_can_be_denied(kind: DecisionKind | None) -> None:
    latest = None if kind is None else decision(kind)
    check, other = (
        (check_revocation, check_denial) if kind is DecisionKind.APPROVED else (check_denial, check_revocation)
    )
    check(WAY, latest)
    with pytest.raises(ConflictError):
        other(WAY, latest)


def wanted(**changes: object) -> WantedNode:
    node = WantedNode(
        project="shop",
        cluster="web",
        uid="uid-1",
        pool="gated",
        node="gated-0",
        address="192.0.2.7",
        asked=ASKED,
        resources=(DB,),
    )
    return node.model_copy(update=changes)


@pytest.mark.parametrize(
    ("nodes", "lapses"),
    [
        ([wanted()], False),
        ([wanted(address="")], False),
        ([wanted(resources=(MAIL, DB))], False),
        ([wanted(address="192.0.2.8")], True),
        ([wanted(uid="uid-2")], True),
        ([wanted(pool="other")], True),
        ([wanted(node="gated-1")], True),
        ([wanted(resources=(DB.model_copy(update={"ports": ("1-65535/tcp",)}),))], True),
        ([wanted(resources=(DB.model_copy(update={"reason": "another"}),))], True),
        ([], True),
    ],
)
def test_an_approval_lapses_with_what_it_was_for(nodes: list[WantedNode], lapses: bool) -> None:
    kept = decision(DecisionKind.APPROVED)
    assert lapsed([kept], nodes) == ([kept] if lapses else [])


names = st.sampled_from(["a", "b"])
resources = st.builds(
    Resource,
    name=names,
    addresses=st.sampled_from([("10.1.2.3/32",), ("10.1.0.0/16",)]),
    ports=st.sampled_from([("5432/tcp",), ("53/udp",)]),
    reason=names,
)
addresses = st.sampled_from(["192.0.2.7", "192.0.2.8"])
ways = st.builds(
    Way,
    project=st.just("shop"),
    cluster=st.just("web"),
    uid=names,
    pool=names,
    node=names,
    address=addresses,
    resource=resources,
)
nodes = st.builds(
    SiteNode,
    node=names,
    pool=names,
    address=st.sampled_from(["", "192.0.2.7", "192.0.2.8"]),
    joined=st.booleans(),
    resources=st.lists(resources, max_size=2, unique_by=lambda one: one.name).map(tuple),
)


@given(
    st.builds(Site, project=st.just("shop"), cluster=st.just("web"), uid=names, nodes=st.tuples(nodes, nodes)),
    st.lists(ways),
)
def test_a_node_is_let_in_only_by_an_approval_of_exactly_each_of_its_ways(site: Site, approved: list[Way]) -> None:
    approvals = [approval(way) for way in approved]
    rules, _ = open_rules(site, approvals)
    exactly = {way.model_dump_json() for way in approved}
    for node in site.nodes:
        may = bool(node.address) and all(way.model_dump_json() in exactly for way in site.ways(node))
        assert (missing(site, node, approvals) == []) == (may or not node.resources)
    # Nothing is open that a person has not approved, in every detail, for a node that is there now.
    for rule in rules:
        assert any(rule == rule_of(way) for way in approved if way.uid == site.uid)
        assert any(rule in map(rule_of, site.ways(node)) for node in site.nodes)


@given(ways, ways)
def test_two_ways_share_a_name_only_if_they_are_one(first: Way, second: Way) -> None:
    assert (first.id == second.id) == (first == second)
