"""Pools of machines: what a cluster may ask for, and which machine is whose."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from haneul.dkos.admission import admit_change, admit_machines, check_shape
from haneul.dkos.machines import Claim, Machine, MachineSpec, MachineStatus
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError

PIN = "SHA256:" + "A" * 43


def spec(*pools: dict[str, Any], **rest: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"nodePools": list(pools), **rest})


def metal(*machines: str, **rest: Any) -> dict[str, Any]:
    return {"name": "metal", "provider": "ssh", "machines": list(machines), **rest}


def machine(name: str, *, project: str = "shop", claim: Claim | None = None) -> Machine:
    return Machine(
        project=project,
        name=name,
        uid=f"uid-{name}",
        spec=MachineSpec(address="192.0.2.11", host_key=PIN),
        status=MachineStatus(claim=claim),
    )


def cluster(name: str, of: ClusterSpec, project: str = "shop") -> Cluster:
    return Cluster(project=project, name=name, uid=name, generation=1, created=datetime.now(UTC), spec=of)


def admit(of: ClusterSpec, *, others: Sequence[Cluster] = (), machines: Sequence[Machine] = ()) -> None:
    admit_machines(of, project="shop", name="mine", others=others, machines=machines)


def test_pool_of_machines_counts_them_and_names_its_nodes_after_them() -> None:
    wanted = spec(metal("rack1", "rack2"))
    check_shape(wanted)
    assert wanted.node_count == 2
    assert wanted.node_pools[0].node_names == ("metal-rack1", "metal-rack2")
    # The first going away does not make the second another node.
    assert spec(metal("rack2")).node_pools[0].node_names == ("metal-rack2",)


@pytest.mark.parametrize(
    "wrong",
    [
        spec(metal("rack1"), {"name": "pods", "count": 1}),
        spec(metal("rack1", count=2)),
        spec({"name": "pods", "machines": ["rack1"]}),
        spec(metal("rack1", "rack1")),
        spec(metal("Rack_1")),
        spec(metal("rack1"), network={"plugin": "cilium"}),
        spec(
            {"name": "a", "provider": "ssh", "machines": ["b-c"]},
            {"name": "a-b", "provider": "ssh", "machines": ["c"]},
        ),
    ],
    ids=["mixed", "miscounted", "sandbox", "twice", "no-name", "cilium", "same-node-name"],
)
def test_pools_that_make_no_sense_are_refused_with_a_hint(wrong: ClusterSpec) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_shape(wrong)
    assert refused.value.hint


def test_machine_must_be_registered_in_the_project() -> None:
    with pytest.raises(InvalidInputError, match="no machine named rack1"):
        admit(spec(metal("rack1")), machines=[machine("rack1", project="lab")])


@pytest.mark.parametrize("used_by", ["spec", "claim", "leaving"])
def test_machine_of_another_cluster_is_refused(used_by: str) -> None:
    claim = Claim(cluster_uid="u", cluster="shop/other", node="metal-rack1", releasing=used_by == "leaving")
    others = [cluster("other", spec(metal("rack1")))] if used_by == "spec" else []
    registered = machine("rack1", claim=None if used_by == "spec" else claim)
    with pytest.raises(ConflictError, match="other"):
        admit(spec(metal("rack1")), others=others, machines=[registered])


def test_machine_of_the_same_name_in_another_project_is_another_machine() -> None:
    admit(
        spec(metal("rack1")),
        others=[cluster("other", spec(metal("rack1")), project="lab")],
        machines=[machine("rack1"), machine("rack1", project="lab")],
    )


def test_cluster_keeps_its_own_machines_when_it_changes() -> None:
    claim = Claim(cluster_uid="u", cluster="shop/mine", node="metal-rack1")
    wanted = spec(metal("rack1"))
    admit(wanted, others=[cluster("mine", wanted)], machines=[machine("rack1", claim=claim)])


def test_cluster_does_not_change_between_sandbox_and_machines() -> None:
    sandbox, machines = spec({"name": "pods"}), spec(metal("rack1"))
    for before, after in ((sandbox, machines), (machines, sandbox)):
        with pytest.raises(HaneulError, match="cannot change"):
            admit_change(before, after)
    admit_change(machines, spec(metal("rack2")))


def test_cluster_on_machines_does_not_become_one_of_sandbox_nodes_by_having_none() -> None:
    """What was admitted for machines, and waits, would run on the first sandbox node."""
    machines, bare = spec(metal("rack1")), spec()
    with pytest.raises(HaneulError, match="keeps a pool"):
        admit_change(machines, bare)
    admit_change(machines, spec(metal()))
    admit_change(bare, machines)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "192.0.2.11"},
        {"address": "rack1.example.org", "hostKey": PIN},
        {"address": "127.0.0.1", "hostKey": PIN},
        {"address": "192.0.2.11", "hostKey": "SHA256:short"},
        {"address": "192.0.2.11", "hostKey": PIN, "user": "root; reboot"},
        {"address": "192.0.2.11", "hostKey": PIN, "port": 0},
        {"address": "192.0.2.11", "hostKey": PIN, "preset": "toaster"},
    ],
)
def test_machine_that_cannot_be_reached_safely_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MachineSpec.model_validate(wrong)
