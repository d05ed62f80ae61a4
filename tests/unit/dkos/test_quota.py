"""What a project may have: counting, inheriting limits, and refusing growth."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.model import (
    Cluster,
    ClusterSpec,
    ClusterStatus,
    Hibernation,
    NodePool,
    NodeProviderName,
    Phase,
)
from haneul.dkos.quota import (
    BUILT_IN,
    MASTERS_MEMORY_MIB,
    MASTERS_MILLICORES,
    Amounts,
    QuotaLimits,
    Quotas,
    admit_growth,
    counts_for,
    needs,
    total,
    used_by_clusters,
)
from haneul.kernel.errors import QuotaExceededError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
_GOLDEN = Path(__file__).parent / "golden"


def cluster(name: str, nodes: int = 1, project: str = "shop") -> Cluster:
    spec = ClusterSpec(node_pools=(NodePool(count=nodes),))
    return Cluster(project=project, name=name, uid=f"uid-{name}", generation=1, created=NOW, spec=spec)


def test_a_cluster_counts_with_its_nodes_and_its_masters() -> None:
    pools = (NodePool(name="small", count=3, cpu=0.1, memory_mib=512), NodePool(name="big", cpu=3.5, memory_mib=4096))
    assert needs(ClusterSpec(node_pools=pools)) == Amounts(1, 4, 100 + 300 + 3500, 512 + 3 * 512 + 4096)
    assert needs(ClusterSpec(node_pools=())) == Amounts(1, 0, MASTERS_MILLICORES, MASTERS_MEMORY_MIB)


def test_a_project_s_own_machines_count_as_nodes_and_not_with_what_they_have() -> None:
    metal = NodePool(name="metal", provider=NodeProviderName.SSH, machines=("rack1", "rack2"), count=2)
    assert needs(ClusterSpec(node_pools=(metal,))) == Amounts(1, 2, MASTERS_MILLICORES, MASTERS_MEMORY_MIB)


@pytest.mark.parametrize(
    ("wish", "phase", "observed", "counts"),
    [
        (True, Phase.ASLEEP, 1, Amounts(clusters=1)),
        # Somebody's word to wake it counts at once; pods that still end, too.
        (False, Phase.ASLEEP, 1, needs(ClusterSpec())),
        (True, Phase.HIBERNATING, 1, needs(ClusterSpec())),
        # That was of an earlier sleep: it may have begun to wake since.
        (True, Phase.ASLEEP, 0, needs(ClusterSpec())),
        (False, Phase.READY, 1, needs(ClusterSpec())),
    ],
)
def test_only_a_cluster_of_which_nothing_runs_counts_by_itself_alone(
    wish: bool, phase: Phase, observed: int, counts: Amounts
) -> None:
    spec = ClusterSpec(hibernation=Hibernation(asleep=wish))
    status = ClusterStatus(phase=phase, observed_generation=observed)
    seen = cluster("a").model_copy(update={"spec": spec, "status": status})
    assert counts_for(seen) == counts
    assert used_by_clusters("shop", [seen]) == {"a": counts}
    awake = spec.model_copy(update={"hibernation": Hibernation()})
    assert counts_for(seen, awake) == needs(awake)


def test_masters_count_for_no_less_than_they_reserve() -> None:
    parts = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "cilium-operator")
    millicores = memory = 0
    for part in parts:
        for manifest in yaml.safe_load_all((_GOLDEN / f"{part}.yaml").read_text()):
            for found in containers(manifest):
                requests = found["resources"]["requests"]
                millicores += int(requests["cpu"].removesuffix("m"))
                memory += int(requests["memory"].removesuffix("Mi"))
    assert 0 < millicores <= MASTERS_MILLICORES
    assert 0 < memory <= MASTERS_MEMORY_MIB


def containers(part: object) -> list[dict[str, dict[str, dict[str, str]]]]:
    if isinstance(part, list):
        return [found for entry in part for found in containers(entry)]
    if not isinstance(part, dict):
        return []
    here = [part] if "requests" in part.get("resources", {}) and "image" in part else []
    return here + [found for entry in part.values() for found in containers(entry)]


def test_limits_are_inherited_from_the_platform_and_there_from_the_program() -> None:
    quotas = Quotas().with_limits(None, QuotaLimits(nodes=7)).with_limits("shop", QuotaLimits(clusters=2, cpu=0.5))
    assert quotas.of("shop") == Amounts(2, 7, 500, 400 * 1024, 20, 200)
    assert quotas.of("other") == Amounts(20, 7, 200_000, 400 * 1024, 20, 200)
    assert Quotas().of("shop").clusters == BUILT_IN.clusters


def test_a_limit_of_nothing_is_a_limit() -> None:
    assert Quotas().with_limits("shop", QuotaLimits(clusters=0)).of("shop").clusters == 0


def test_a_project_without_limits_of_its_own_leaves_nothing_behind() -> None:
    quotas = Quotas().with_limits("shop", QuotaLimits(nodes=1))
    assert quotas.with_limits("shop", QuotaLimits()) == Quotas()


def test_a_cluster_that_comes_twice_counts_for_the_larger_of_each_thing() -> None:
    wide = ClusterSpec(node_pools=(NodePool(count=4, cpu=0.5, memory_mib=256),))
    tall = ClusterSpec(node_pools=(NodePool(count=1, cpu=8, memory_mib=8192),))
    seen = [cluster("web").model_copy(update={"spec": spec}) for spec in (wide, tall)]
    assert used_by_clusters("shop", [*seen, cluster("x", project="other")]) == {
        "web": Amounts(1, 4, 8000 + MASTERS_MILLICORES, 8192 + MASTERS_MEMORY_MIB)
    }


def test_a_refusal_says_what_is_used_and_asked_who_has_most_and_who_can_help() -> None:
    limits = Quotas(projects={"shop": QuotaLimits(nodes=10, cpu=24)}).of("shop")
    clusters = [cluster("a", 2), cluster("b", 5), cluster("c", 1), cluster("d", 1), cluster("e", 9, "other")]
    with pytest.raises(QuotaExceededError) as caught:
        admit_growth("shop", "new", Amounts(), needs(cluster("new", 3).spec), clusters=clusters, limits=limits)
    assert caught.value.code == "quota-exceeded"
    assert caught.value.detail == (
        "shop would have more than its quota; nodes: 9 used of 10, 3 more asked for; "
        "cores: 18.4 used of 24, 6.1 more asked for"
    )
    assert caught.value.hint == (
        "most nodes have b (5), a (2), c (1); a platform administrator raises it: "
        "'haneul project quota set shop --nodes 12 --cpu 24.5'"
    )


def test_the_first_cluster_may_be_too_large() -> None:
    with pytest.raises(QuotaExceededError) as caught:
        admit_growth("shop", "new", Amounts(), Amounts(1, 3), clusters=[], limits=Amounts(1, 2))
    assert caught.value.hint.startswith("a platform administrator")


def test_a_lowered_limit_only_stops_growth() -> None:
    limits = Quotas(projects={"shop": QuotaLimits(nodes=1)}).of("shop")
    clusters = [cluster("a", 5), cluster("b", 5)]
    before = needs(clusters[0].spec)
    for nodes in (0, 1, 4, 5):
        admit_growth("shop", "a", before, needs(cluster("a", nodes).spec), clusters=clusters, limits=limits)
    with pytest.raises(QuotaExceededError):
        admit_growth("shop", "a", before, needs(cluster("a", 6).spec), clusters=clusters, limits=limits)


amounts = st.builds(Amounts, *(st.integers(0, 5) for _ in range(5)))


@given(before=amounts, after=amounts, limits=amounts, others=st.lists(st.integers(0, 3), max_size=3))
def test_what_is_admitted_fits_or_does_not_grow(
    before: Amounts, after: Amounts, limits: Amounts, others: list[int]
) -> None:
    clusters = [cluster(f"c{number}", nodes) for number, nodes in enumerate(others)]
    used = total(used_by_clusters("shop", clusters).values())
    fields = ("clusters", "nodes", "millicores", "memory_mib", "addresses")
    fits = all(
        getattr(after, field) <= getattr(before, field)
        or getattr(used, field) + getattr(after, field) <= getattr(limits, field)
        for field in fields
    )
    try:
        admit_growth("shop", "new", before, after, clusters=clusters, limits=limits)
    except QuotaExceededError:
        assert not fits
    else:
        assert fits
