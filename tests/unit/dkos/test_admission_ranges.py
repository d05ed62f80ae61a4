"""Ranges never overlap, whatever is asked for in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.dkos.admission import TakenRange, admit
from haneul.dkos.model import Cluster, ClusterSpec, Network, NodePool
from haneul.kernel.errors import ConflictError, InvalidInputError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
RESERVED = (
    TakenRange(IPv4Network("10.192.0.0/16"), "the management cluster's pods"),
    TakenRange(IPv4Network("10.0.0.0/20"), "the hosts"),
)


def _network(base: int, prefix: int) -> str:
    return str(IPv4Network((base, prefix), strict=False))


#: Mostly close together and near the pools' beginnings, so that they meet.
_ranges = st.one_of(
    st.none(),
    st.builds(
        _network,
        st.one_of(
            st.integers(int(IPv4Network("10.0.0.0/14")[0]), int(IPv4Network("10.0.0.0/14")[-1])),
            st.integers(int(IPv4Network("10.128.0.0/16")[0]), int(IPv4Network("10.128.0.0/16")[-1])),
            st.integers(0, 2**32 - 1),
        ),
        st.integers(10, 26),
    ),
)
_creations = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", "e", "f"]), _ranges, _ranges, st.integers(0, 64)), max_size=12
)


def _made(name: str, spec: ClusterSpec) -> Cluster:
    return Cluster(project="shop", name=name, uid=name, generation=1, created=NOW, spec=spec)


@settings(max_examples=150, deadline=None)
@given(_creations)
def test_no_sequence_of_creations_makes_ranges_overlap(
    creations: list[tuple[str, str | None, str | None, int]],
) -> None:
    clusters: dict[str, Cluster] = {}
    for name, pods, services, count in creations:
        asked = ClusterSpec(network=Network(pods=pods, services=services), node_pools=(NodePool(count=count),))
        try:
            spec = admit(name, asked, project="shop", others=list(clusters.values()), reserved=RESERVED)
        except (InvalidInputError, ConflictError) as refusal:
            assert refusal.hint
            continue
        assert name not in clusters
        # What was named is given as it was named, and nothing else about the spec changes.
        assert pods in (None, spec.network.pods) and services in (None, spec.network.services)
        assert spec.model_copy(update={"network": asked.network}) == asked
        assert count <= 2 ** (24 - IPv4Network(spec.network.pods or "").prefixlen)
        clusters[name] = _made(name, spec)
    used = [entry.network for entry in RESERVED]
    for cluster in clusters.values():
        used += [IPv4Network(cluster.spec.network.pods or ""), IPv4Network(cluster.spec.network.services or "")]
    for index, network in enumerate(used):
        assert not any(network.overlaps(other) for other in used[:index])


def test_ranges_that_became_free_are_given_again() -> None:
    first = admit("a", ClusterSpec(), project="shop", others=[], reserved=RESERVED)
    second = admit("b", ClusterSpec(), project="shop", others=[_made("a", first)], reserved=RESERVED)
    again = admit("c", ClusterSpec(), project="shop", others=[_made("b", second)], reserved=RESERVED)
    assert again.network == first.network


def test_a_pool_that_is_used_up_says_so() -> None:
    everything = (TakenRange(IPv4Network("10.0.0.0/9"), "somebody"),)
    with pytest.raises(ConflictError) as caught:
        admit("a", ClusterSpec(), project="shop", others=[], reserved=everything)
    assert "no free range" in caught.value.detail and caught.value.hint
    # A range of one's own is the way out that the hint tells.
    named = ClusterSpec(network=Network(pods="172.20.0.0/18"))
    assert admit("a", named, project="shop", others=[], reserved=everything).network.pods == "172.20.0.0/18"


@pytest.mark.parametrize("pods", ["127.0.0.0/16", "169.254.0.0/18", "100.64.0.0/18", "198.18.0.0/18", "240.0.0.0/18"])
def test_only_addresses_of_private_networks_are_given(pods: str) -> None:
    with pytest.raises(InvalidInputError, match="does not fit"):
        admit("a", ClusterSpec(network=Network(pods=pods)), project="shop", others=[], reserved=())
