"""The custom resources of clusters and machines; schemas come from their models, so that they cannot drift apart."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from haneul.dkos.machines import MACHINES, MachineSpec, MachineStatus
from haneul.dkos.model import CLUSTERS, ClusterSpec, ClusterStatus
from haneul.kernel.kube import Manifest, Resource

# Words of JSON Schema that structural schemas of Kubernetes do not know (documentation "Extend the Kubernetes API with
# CustomResourceDefinitions", section "Specifying a structural schema").
_UNKNOWN_WORDS = {"title", "discriminator", "examples", "const"}


def custom_resource_definition() -> Manifest:
    """Return the CustomResourceDefinition of clusters."""
    columns = [
        ("Phase", "string", ".status.phase"),
        ("Network", "string", ".spec.network.plugin"),
        ("Version", "string", ".spec.version"),
        ("Endpoint", "string", ".status.endpoint"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return _definition(CLUSTERS, columns, ClusterSpec, ClusterStatus)


def machine_resource_definition() -> Manifest:
    """Return the CustomResourceDefinition of machines."""
    columns = [
        ("Address", "string", ".spec.address"),
        ("Preset", "string", ".spec.preset"),
        ("Node", "string", ".status.claim.node"),
        ("Cluster", "string", ".status.claim.cluster"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return _definition(MACHINES, columns, MachineSpec, MachineStatus)


def _definition(
    resource: Resource, columns: list[tuple[str, str, str]], spec: type[BaseModel], status: type[BaseModel]
) -> Manifest:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            "labels": {"app.kubernetes.io/managed-by": "haneul"},
        },
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
            },
            "versions": [
                {
                    "name": resource.version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path} for name, kind, path in columns
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": structural(spec.model_json_schema(mode="validation")),
                                "status": structural(status.model_json_schema(mode="validation")),
                            },
                        }
                    },
                }
            ],
        },
    }


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON Schema as Kubernetes wants it: references written out, options that may be null as nullable."""
    definitions = schema.get("$defs", {})

    def convert(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            named = definitions[node["$ref"].rsplit("/", 1)[1]]
            return convert({**named, **{key: value for key, value in node.items() if key != "$ref"}})
        if "anyOf" in node:
            options = [option for option in node["anyOf"] if option.get("type") != "null"]
            rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
            return {**convert(options[0]), **convert(rest), "nullable": True}
        return {key: convert_value(key, value) for key, value in node.items() if key not in _UNKNOWN_WORDS | {"$defs"}}

    def convert_value(key: str, value: Any) -> Any:
        if key == "properties":
            return {name: convert(entry) for name, entry in value.items()}
        if key in ("items", "additionalProperties") and isinstance(value, dict):
            return convert(value)
        if key == "default" and isinstance(value, dict):
            # A word that may be left out is still none of the words if it is null.
            return {name: entry for name, entry in value.items() if entry is not None}
        return value

    return dict(_exclusive_bounds(_without_false(convert(schema))))


def _without_false(node: Any) -> Any:
    """Kubernetes prunes unknown fields by itself; ``additionalProperties: false`` beside properties is not allowed."""
    if isinstance(node, dict):
        return {
            key: _without_false(value)
            for key, value in node.items()
            if not (key == "additionalProperties" and value is False)
        }
    return [_without_false(entry) for entry in node] if isinstance(node, list) else node


def _exclusive_bounds(node: Any) -> Any:
    """OpenAPI 3.0 writes an exclusive bound as a bound and a flag."""
    if isinstance(node, dict):
        result = {key: _exclusive_bounds(value) for key, value in node.items()}
        if isinstance(result.get("exclusiveMinimum"), (int, float)) and not isinstance(
            result["exclusiveMinimum"], bool
        ):
            result["minimum"] = result["exclusiveMinimum"]
            result["exclusiveMinimum"] = True
        return result
    return [_exclusive_bounds(entry) for entry in node] if isinstance(node, list) else node
