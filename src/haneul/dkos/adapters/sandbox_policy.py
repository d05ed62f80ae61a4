"""What the management cluster lets run where node pods are: exactly what :mod:`sandbox_nodes` renders. Pure rendering.

The namespaces of nodes cannot have a narrow Pod Security level, because a node does more than a container may. So that
nothing else makes use of that, a fault of ours or of whoever reached the operator, an admission policy of the
management cluster knows the shape of a node pod and refuses every other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from haneul.dkos.adapters.sandbox_nodes import BPF_CAPABILITIES, BPF_PROFILE, CAPABILITIES, PROFILE, RUNTIME_CLASS
from haneul.dkos.control_plane import CLUSTER_LABEL
from haneul.kernel.kube import Manifest

_NAME: Final = "haneul-node-pods"
_REGISTRATION: Final = "admissionregistration.k8s.io/v1"
#: Who makes the pods of StatefulSets.
_MAKER: Final = "system:serviceaccount:kube-system:statefulset-controller"
_HINT: Final = "Hint: nodes are made by the operator; run your own pods in another namespace"


def runtime_class() -> Manifest:
    """Return the runtime of node pods with users of their own, by its name for the hosts' containerd."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": RUNTIME_CLASS, "labels": {"app.kubernetes.io/managed-by": "haneul"}},
        "handler": RUNTIME_CLASS,
    }


def node_pod_policy(image: str) -> list[Manifest]:
    """Return the policy and its binding; ``image`` is the node image's reference up to its version."""
    labels = {"app.kubernetes.io/managed-by": "haneul"}
    return [
        {
            "apiVersion": _REGISTRATION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": _NAME, "labels": labels},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {
                        "matchLabels": {"pod-security.kubernetes.io/enforce": "privileged"},
                        "matchExpressions": [{"key": CLUSTER_LABEL, "operator": "Exists"}],
                    },
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["*"],
                            "operations": ["CREATE", "UPDATE"],
                            "resources": ["pods", "pods/ephemeralcontainers"],
                        }
                    ],
                },
                # What was made before the policy may end.
                "matchConditions": [
                    {
                        "name": "another-spec",
                        "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
                    }
                ],
                "variables": [
                    {"name": "node", "expression": "object.spec.containers[0]"},
                    {"name": "security", "expression": "variables.node.securityContext"},
                    {"name": "ownUsers", "expression": "!object.spec.?hostUsers.orValue(true)"},
                ],
                "validations": [
                    {"expression": expression, "message": f"{message}. {_HINT}"}
                    for message, expression in _shape(image)
                ],
            },
        },
        {
            "apiVersion": _REGISTRATION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": _NAME, "labels": labels},
            "spec": {"policyName": _NAME, "validationActions": ["Deny"]},
        },
    ]


def _shape(image: str) -> Iterable[tuple[str, str]]:
    """Yield what must be true of a node pod, each after what to say if it is not."""
    yield (
        "only StatefulSets make pods here",
        f"request.operation != 'CREATE' || request.userInfo.username == '{_MAKER}'",
    )
    yield (
        "a node pod is one container of the node image",
        "object.spec.containers.size() == 1 && !has(object.spec.initContainers) && "
        f"!has(object.spec.ephemeralContainers) && variables.node.image.startsWith('{image}:')",
    )
    yield (
        "a node pod shares no namespace with its host",
        "!object.spec.?hostNetwork.orValue(false) && !object.spec.?hostPID.orValue(false) && "
        "!object.spec.?hostIPC.orValue(false)",
    )
    kinds = " || ".join(f"has(v.{kind})" for kind in ("configMap", "emptyDir", "image", "secret"))
    yield (
        "a node pod mounts nothing of its host",
        f"object.spec.?volumes.orValue([]).all(v, {kinds}) && !has(variables.node.volumeDevices)",
    )
    yield (
        "a node pod has no account",
        "has(object.spec.automountServiceAccountToken) && !object.spec.automountServiceAccountToken",
    )
    yield "a node pod is not privileged", "!variables.security.?privileged.orValue(false)"
    # A list of Python's words is one of CEL's.
    shared, more = list(CAPABILITIES), list(BPF_CAPABILITIES)
    yield (
        "a node pod has the capabilities of a node and no others",
        "variables.security.?capabilities.?drop.orValue([]) == ['ALL'] && "
        f"variables.security.?capabilities.?add.orValue([]).all(c, c in {shared} || "
        f"(!variables.ownUsers && c in {more}))",
    )
    yield (
        "a node pod that sees all of its process file system has users of its own and their runtime",
        "variables.ownUsers ? "
        f"object.spec.?runtimeClassName.orValue('') == '{RUNTIME_CLASS}' : "
        "(!has(object.spec.runtimeClassName) && variables.security.?procMount.orValue('Default') == 'Default')",
    )
    profile = "variables.security.?seccompProfile.?localhostProfile.orValue('')"
    yield (
        "a node pod has the profile of system calls of a node",
        f"{profile} == (variables.ownUsers ? '{PROFILE}' : '{BPF_PROFILE}')",
    )
