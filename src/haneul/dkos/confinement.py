"""What keeps a tenant inside its sandbox nodes: admission policies that its own API cannot change. Pure rendering.

A sandbox node shares its host's kernel, so no pod there may ask for more than a container needs. The tenant is
administrator of its cluster; a policy that is an object of the API would be theirs to delete. These are files beside
the API server's other configuration, and no request reaches them (Kubernetes documentation "Manifest-Based Admission
Control"). They forbid what Kubernetes' Pod Security level ``baseline`` forbids, but for ports of the node, and
besides it every volume that reaches a node's files or devices and every profile that is not the runtime's own.

Machines of the tenant's own share no kernel with others; on these pods may be privileged. What no cluster allows is
that another server answers for Kubernetes' own resources: kubelets, and the operator, act on what these say.
"""

from __future__ import annotations

from typing import Any, Final

from haneul.dkos.model import Cluster
from haneul.kernel.documents import to_yaml
from haneul.kernel.kube import Manifest

#: The feature by which an API server reads policies from files; no cluster may turn it off.
POLICY_FILES_GATE: Final = "ManifestBasedAdmissionControlConfig"
#: What names of policies in files end with; the API refuses to make others that do.
STATIC_SUFFIX: Final = ".static.k8s.io"
POLICIES_FILE: Final = "policies.yaml"
_REGISTRATION: Final = "admissionregistration.k8s.io/v1"

#: Capabilities that a container may add: those that the runtime gives to every container anyway.
CAPABILITIES: Final = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
#: Kinds of volumes that reach nothing of a node.
VOLUMES: Final = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
#: API groups of Kubernetes' name that usual servers of metrics answer for, and Kubernetes itself does not.
EXTENSION_GROUPS: Final = ("custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io")

_HINT: Final = (
    "Hint: sandbox nodes share their host's kernel with other tenants. Do without, or use a cluster on machines of "
    "your own (provider: ssh)."
)


def policies_in(folder: str) -> Manifest:
    """Return the configuration of the API server's plugin that reads :func:`policies` from a folder."""
    return {
        "name": "ValidatingAdmissionPolicy",
        "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyConfiguration",
            "staticManifestsDir": folder,
        },
    }


def policies(cluster: Cluster) -> str:
    """Return the policies that a cluster's API server reads from its file, each with its binding."""
    found = built_in_apis()
    if not cluster.spec.outside:
        found += [*confined_pods(), *confined_workloads(), *confined_volumes()]
    return "---\n".join(map(to_yaml, found))


def built_in_apis() -> list[Manifest]:
    """Return the policy that Kubernetes' own API groups stay Kubernetes' own.

    Whoever answers for pods tells a kubelet what to run, past every other policy; whoever answers for certificate
    requests tells DKOS who asks. Groups without a dot and below ``k8s.io`` belong to Kubernetes.
    """
    group = "object.spec.?group.orValue('')"
    return _policy(
        "haneul-built-in-apis",
        [{"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"]}],
        [
            {
                "expression": f"!has(object.spec.service) || {group} in {list(EXTENSION_GROUPS)} || "
                f"({group}.contains('.') && !{group}.endsWith('.k8s.io') && {group} != 'k8s.io')",
                "message": "no other server may answer for an API group of Kubernetes itself. Hint: give the "
                "extension API a group of your own, such as metrics.example.com.",
                "reason": "Forbidden",
            }
        ],
    )


def confined_pods() -> list[Manifest]:
    """Return the policy for pods, however they come to be: by controllers, by nodes, and in each of their changes.

    A pod that is older than the policy can still be changed in what is no part of its spec, such as finalizers.
    """
    return _policy(
        "haneul-sandbox-pods",
        [{"apiGroups": [""], "resources": ["pods", "pods/ephemeralcontainers", "pods/resize"]}],
        [_no_problems("this pod cannot run on sandbox nodes")],
        variables=_pod_variables("object.spec", "object.metadata"),
        only_changed_specs=True,
    )


def confined_workloads() -> list[Manifest]:
    """Return the policy that warns who writes a workload whose pods will be refused."""
    template = "has(object.spec.jobTemplate) ? object.spec.jobTemplate.spec.template : object.spec.template"
    return _policy(
        "haneul-sandbox-workloads",
        [
            {"apiGroups": [""], "resources": ["replicationcontrollers"]},
            {"apiGroups": ["apps"], "resources": ["daemonsets", "deployments", "replicasets", "statefulsets"]},
            {"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"]},
        ],
        [_no_problems("its pods will be refused on sandbox nodes")],
        variables=[
            {"name": "template", "expression": template},
            *_pod_variables("variables.template.spec", "variables.template.?metadata"),
        ],
        refuse=False,
    )


def confined_volumes() -> list[Manifest]:
    """Return the policy for volumes: only drivers give them, none is a part of a node."""
    return _policy(
        "haneul-sandbox-volumes",
        [{"apiGroups": [""], "resources": ["persistentvolumes"]}],
        [
            {
                "expression": "has(object.spec.csi)",
                "message": "a persistent volume of sandbox nodes comes from a CSI driver; all other kinds reach a "
                f"node's own files, devices or kernel. {_HINT}",
                "reason": "Forbidden",
            }
        ],
        only_changed_specs=True,
    )


#: What is wrong with a container ``c``, in words that follow its name, each with when it is so.
_CONTAINER_PROBLEMS: Final = (
    ("is privileged", "c.?securityContext.?privileged.orValue(false)"),
    (
        f"adds capabilities other than {', '.join(CAPABILITIES)}",
        "c.?securityContext.?capabilities.?add.orValue([]).exists(a, !(a in variables.capabilities))",
    ),
    ("sets procMount", "!(c.?securityContext.?procMount.orValue('') in ['', 'Default'])"),
    (
        "asks for a seccomp profile other than RuntimeDefault",
        "!(c.?securityContext.?seccompProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault')",
    ),
    (
        "asks for an AppArmor profile other than RuntimeDefault",
        "!(c.?securityContext.?appArmorProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault')",
    ),
    (
        "sets SELinux options",
        "!(c.?securityContext.?seLinuxOptions.?type.orValue('') in variables.selinuxTypes) || "
        "c.?securityContext.?seLinuxOptions.?user.orValue('') != '' || "
        "c.?securityContext.?seLinuxOptions.?role.orValue('') != ''",
    ),
    ("is a host process", "c.?securityContext.?windowsOptions.?hostProcess.orValue(false)"),
    ("uses raw block devices", "c.?volumeDevices.orValue([]).size() > 0"),
    (
        "lets its volumes' mounts spread to the node",
        "c.?volumeMounts.orValue([]).exists(m, m.?mountPropagation.orValue('') == 'Bidirectional')",
    ),
    (
        "has a probe or lifecycle handler that names a host",
        "[c.?livenessProbe, c.?readinessProbe, c.?startupProbe, c.?lifecycle.?postStart, c.?lifecycle.?preStop]"
        ".exists(p, p.?httpGet.?host.orValue('') != '' || p.?tcpSocket.?host.orValue('') != '')",
    ),
)

#: The same of a pod as a whole.
_POD_PROBLEMS: Final = (
    ("it uses the node's network", "variables.spec.?hostNetwork.orValue(false)"),
    ("it uses the node's process ids", "variables.spec.?hostPID.orValue(false)"),
    ("it uses the node's inter-process communication", "variables.spec.?hostIPC.orValue(false)"),
    (
        "it asks for a seccomp profile other than RuntimeDefault",
        "!(variables.spec.?securityContext.?seccompProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault')",
    ),
    (
        "it asks for an AppArmor profile other than RuntimeDefault",
        "!(variables.spec.?securityContext.?appArmorProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault') || "
        "variables.annotations.exists(k, k.startsWith('container.apparmor.security.beta.kubernetes.io/') && "
        "!(variables.annotations[k] in ['', 'runtime/default']))",
    ),
    (
        "it sets SELinux options",
        "!(variables.spec.?securityContext.?seLinuxOptions.?type.orValue('') in variables.selinuxTypes) || "
        "variables.spec.?securityContext.?seLinuxOptions.?user.orValue('') != '' || "
        "variables.spec.?securityContext.?seLinuxOptions.?role.orValue('') != ''",
    ),
    ("it is a host process", "variables.spec.?securityContext.?windowsOptions.?hostProcess.orValue(false)"),
)


def _pod_variables(spec: str, metadata: str) -> list[Manifest]:
    """Return the variables of a policy about a pod, the last of which is the list of its problems in words."""
    allowed = " || ".join(f"has(v.{name})" for name in VOLUMES)
    problems = [
        *(f'({condition} ? ["{words}"] : [])' for words, condition in _POD_PROBLEMS),
        f"variables.spec.?volumes.orValue([]).filter(v, !({allowed}))"
        ".map(v, 'volume ' + v.name + ' is of a kind that reaches the node')",
        *(
            f'variables.containers.filter(c, {condition}).map(c, "container " + c.name + " {words}")'
            for words, condition in _CONTAINER_PROBLEMS
        ),
    ]
    return [
        {"name": "spec", "expression": spec},
        {"name": "annotations", "expression": f"{metadata}.?annotations.orValue({{}})"},
        # A list of Python's words is one of CEL's.
        {"name": "capabilities", "expression": str(list(CAPABILITIES))},
        {"name": "selinuxTypes", "expression": "['', 'container_t', 'container_init_t', 'container_kvm_t']"},
        {
            "name": "containers",
            "expression": "variables.spec.containers + variables.spec.?initContainers.orValue([]) + "
            "variables.spec.?ephemeralContainers.orValue([])",
        },
        {"name": "problems", "expression": " + ".join(problems)},
    ]


def _no_problems(what: str) -> Manifest:
    return {
        "expression": "variables.problems.size() == 0",
        "message": f"{what}. {_HINT}",
        "messageExpression": f'"{what}: " + variables.problems.join("; ") + ". {_HINT}"',
        "reason": "Forbidden",
    }


def _policy(
    name: str,
    rules: list[dict[str, Any]],
    validations: list[Manifest],
    *,
    variables: list[Manifest] | None = None,
    only_changed_specs: bool = False,
    refuse: bool = True,
) -> list[Manifest]:
    """Return a policy and its binding to the whole cluster; one that does not ``refuse`` warns."""
    full_name = f"{name}{STATIC_SUFFIX}"
    resources = [{**one, "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"]} for one in rules]
    changed = {
        "name": "another-spec",
        "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
    }
    return [
        {
            "apiVersion": _REGISTRATION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": full_name},
            "spec": {
                # What cannot be judged is refused; a warning that cannot be given is left out.
                "failurePolicy": "Fail" if refuse else "Ignore",
                "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": resources},
                **({"matchConditions": [changed]} if only_changed_specs else {}),
                **({"variables": variables} if variables else {}),
                "validations": validations,
            },
        },
        {
            "apiVersion": _REGISTRATION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": full_name},
            "spec": {"policyName": full_name, "validationActions": ["Deny" if refuse else "Warn"]},
        },
    ]
