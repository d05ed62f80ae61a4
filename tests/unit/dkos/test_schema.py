"""The custom resource's schema is one that Kubernetes takes, and takes exactly what the model does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from haneul.dkos.model import (
    MOST_NODES,
    ClusterSpec,
    ClusterStatus,
    LoadBalancing,
    Network,
    NetworkPlugin,
    NodePool,
    Settings,
    Tunnel,
    cluster_from_resource,
)
from haneul.dkos.schema import custom_resource_definition

SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]
_KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def schemas(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    children = list(node.get("properties", {}).values())
    children += [node[word] for word in ("items", "additionalProperties") if isinstance(node.get(word), dict)]
    for child in children:
        yield from schemas(child)


def problems(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Return where ``value`` is not as the structural schema says."""
    if value is None:
        # Kubernetes holds null against an enumeration too.
        return [] if schema.get("nullable") and "enum" not in schema else [f"{path} is null"]
    kind = schema["type"]
    if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{path} is no {kind}"]
    found = [f"{path} is not one of the words"] if "enum" in schema and value not in schema["enum"] else []
    if kind == "string":
        found += [f"{path} is too long"] if len(value) > schema.get("maxLength", len(value)) else []
        found += [f"{path} has another pattern"] if not re.search(schema.get("pattern", ""), value) else []
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        found += [f"{path} is out of bounds"] if not low <= value <= high else []
        found += [f"{path} is at its bound"] if schema.get("exclusiveMinimum") and value == low else []
    if kind == "object":
        known = schema.get("properties", {})
        found += [f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, entry in value.items():
            child = known.get(name) or schema.get("additionalProperties")
            found += problems(child, entry, f"{path}.{name}") if child else [f"{path}.{name} is unknown"]
    if kind == "array":
        found += [
            problem for number, entry in enumerate(value) for problem in problems(schema["items"], entry, str(number))
        ]
    return found


def test_schema_is_structural() -> None:
    for node in schemas(SCHEMA):
        assert node["type"] in _KINDS, node
        assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "discriminator"} & node.keys()
        assert node.get("additionalProperties") is not False
        assert not ("properties" in node and "additionalProperties" in node)
        assert node["type"] != "array" or "items" in node
        assert isinstance(node.get("exclusiveMinimum", False), bool)
        assert isinstance(node.get("exclusiveMaximum", False), bool)


def test_defaults_are_what_the_schema_takes() -> None:
    for node in schemas(SCHEMA):
        if "default" in node:
            assert problems(node, node["default"]) == []


def test_fields_have_the_names_that_kubernetes_gives() -> None:
    fields = {"version", "nodeVersion", "masters", "network", "nodePools", "settings", "hibernation", "authorities"}
    fields |= {"restore"}
    assert set(SPEC["properties"]) == fields
    assert {"observedGeneration", "conditions", "phase"} <= set(STATUS["properties"])
    definition = custom_resource_definition()
    assert definition["metadata"]["name"] == "clusters.dkos.haneul.dev"
    assert definition["spec"]["versions"][0]["subresources"] == {"status": {}}


_labels = st.from_regex(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?", fullmatch=True)
_specs = st.builds(
    ClusterSpec,
    network=st.builds(
        Network,
        plugin=st.sampled_from(NetworkPlugin),
        pods=st.none() | st.just("10.0.64.0/18"),
        services=st.none() | st.just("10.128.16.0/20"),
        tunnel=st.none() | st.sampled_from(Tunnel),
        load_balancing=st.sampled_from(LoadBalancing),
    ),
    node_pools=st.lists(
        st.builds(
            NodePool,
            name=_labels,
            count=st.integers(0, 64),
            cpu=st.floats(0, 256, exclude_min=True),
            memory_mib=st.integers(256, 1 << 20),
        ),
        max_size=3,
        unique_by=lambda pool: pool.name,
    ).map(tuple),
    settings=st.builds(
        Settings,
        node_status_update_seconds=st.integers(1, 60),
        node_monitor_grace_seconds=st.integers(5, 600),
        max_pods_per_node=st.integers(1, 250),
        feature_gates=st.dictionaries(_labels, st.booleans(), max_size=3),
    ),
)


@settings(deadline=None)
@given(_specs)
def test_schema_takes_every_spec_that_the_model_makes_and_it_comes_back_the_same(spec: ClusterSpec) -> None:
    # As the store writes it.
    written = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert problems(SPEC, written) == []
    resource = {
        "metadata": {
            "name": "one",
            "namespace": "project-shop",
            "uid": "u",
            "generation": 1,
            "creationTimestamp": "2026-11-01T12:00:00Z",
        },
        "spec": written,
    }
    cluster = cluster_from_resource(resource)
    assert (cluster.spec, cluster.spec_problem, cluster.project) == (spec, "", "shop")


def test_schema_takes_an_empty_status_and_a_full_one() -> None:
    assert problems(STATUS, ClusterStatus().model_dump(mode="json", by_alias=True)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodePools": [{"cpu": 0}]},
        {"nodePools": [{"memoryMib": 1}]},
        {"nodePools": [{"count": -1}]},
        {"nodePools": [{"count": 65}]},
        {"nodePools": [{"name": "Big"}]},
        {"nodePools": [{"name": "-a"}]},
        {"nodePools": [{"name": "a-"}]},
        {"nodePools": [{"name": "1a"}]},
        {"nodePools": [{"name": "a.b"}]},
        {"nodePools": [{"name": "a/../b"}]},
        {"nodePools": [{"name": ""}]},
        {"nodePools": [{"name": "a" * 21}]},
        {"network": {"plugin": "none"}},
        {"network": {"tunnel": "never"}},
        {"network": {"loadBalancing": "direct"}},
        {"settings": {"maxPodsPerNode": 0}},
        {"settings": {"noSuchSetting": 1}},
        {"version": 1},
        {"nodePools": None},
    ],
)
def test_what_the_model_refuses_the_schema_refuses_too_and_is_shown_as_a_problem(wrong: dict[str, Any]) -> None:
    assert problems(SPEC, wrong)
    metadata = {"name": "one", "namespace": "project-shop", "uid": "u", "generation": 1}
    resource = {"metadata": {**metadata, "creationTimestamp": "2026-11-01T12:00:00Z"}, "spec": wrong}
    cluster = cluster_from_resource(resource)
    assert cluster.spec_problem
    assert cluster.spec == ClusterSpec()


def test_deleted_resource_is_being_deleted_even_if_its_spec_is_none() -> None:
    metadata = {"name": "one", "namespace": "project-shop", "uid": "u", "generation": 1}
    metadata |= {"creationTimestamp": "2026-11-01T12:00:00Z", "deletionTimestamp": "2026-11-01T13:00:00Z"}
    assert cluster_from_resource({"metadata": metadata, "spec": {"version": 1}}).deleting


def test_the_name_of_a_pool_is_refused_in_words_for_people() -> None:
    with pytest.raises(ValidationError, match=r"pool name 'Big' is no DNS label of at most 20 characters: use small"):
        NodePool(name="Big")


def test_the_longest_names_fit_where_they_end_up() -> None:
    """Pods of a StatefulSet carry its name and a hash of ten characters in a label, which has 63."""
    node = f"{NodePool(name='a' * 20).name}-{MOST_NODES - 1}"
    assert len(f"{node}-0123456789") <= 63
