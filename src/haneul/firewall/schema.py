"""The custom resource of approvals, and the policy of who may write it. Pure.

The policy is a ValidatingAdmissionPolicy (Kubernetes documentation, "Validating Admission Policy"): rights alone would
let every administrator of the management cluster write approvals, by habit or by a script. Taking one away is always
allowed, as it only bars a node.
"""

from __future__ import annotations

from typing import Any, Final

from haneul.kernel.kube import Manifest

GROUP: Final = "firewall.haneul.dev"
_LABELS: Final = {"app.kubernetes.io/managed-by": "haneul"}
_NAME: Final = "firewall-approvals-by-the-platform-api"


def custom_resource_definition() -> Manifest:
    """Return the CustomResourceDefinition of approvals. What one says never changes."""
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    resource = _object({"name": text, "addresses": texts, "ports": texts, "reason": text})
    names = ("project", "cluster", "uid", "pool", "node", "address")
    way = _object({**dict.fromkeys(names, text), "resource": resource})
    moment = {"type": "string", "format": "date-time"}
    spec = _object({"way": way, "approver": text, "decision": {"type": "integer", "minimum": 1}, "moment": moment})
    spec["x-kubernetes-validations"] = [{"rule": "self == oldSelf", "message": "an approval never changes"}]
    columns = [
        ("Address", ".spec.way.address"),
        ("Resource", ".spec.way.resource.name"),
        ("Cluster", ".spec.way.cluster"),
        ("Node", ".spec.way.node"),
        ("Approver", ".spec.approver"),
    ]
    version: dict[str, Any] = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [{"name": name, "type": "string", "jsonPath": path} for name, path in columns],
        "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"firewallapprovals.{GROUP}", "labels": _LABELS},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": "firewallapprovals",
                "singular": "firewallapproval",
                "kind": "FirewallApproval",
                "listKind": "FirewallApprovalList",
            },
            "versions": [version],
        },
    }


def writer_policy(writer: str) -> list[Manifest]:
    """Return what refuses to everybody but the user ``writer`` to create and change approvals."""
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": _NAME, "labels": _LABELS},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [GROUP],
                            "apiVersions": ["*"],
                            "operations": ["CREATE", "UPDATE"],
                            "resources": ["firewallapprovals"],
                        }
                    ]
                },
                "validations": [
                    {
                        "expression": f"request.userInfo.username == '{writer}'",
                        "message": "only the platform's API writes approvals: a firewall approver decides there",
                    }
                ],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": _NAME, "labels": _LABELS},
            "spec": {"policyName": _NAME, "validationActions": ["Deny"]},
        },
    ]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}
