"""The Kubernetes API as a port: a few verbs over plain manifests.

Manifests are what Kubernetes documentation shows, as dictionaries, so that what is rendered, compared and applied
is one and the same thing. Writing is server-side apply (Kubernetes documentation "Server-Side Apply") under one
field manager, which makes every create idempotent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from haneul.kernel.errors import HaneulError

Manifest = dict[str, Any]

FIELD_MANAGER = "haneul"


@dataclass(frozen=True)
class Resource:
    """A resource type: where its objects live in the API's paths."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return ``group/version``, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


def _core(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource("", "v1", plural, kind, namespaced)


NAMESPACES = _core("namespaces", "Namespace", namespaced=False)
NODES = _core("nodes", "Node", namespaced=False)
PODS = _core("pods", "Pod")
SECRETS = _core("secrets", "Secret")
SERVICES = _core("services", "Service")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount")
CONFIG_MAPS = _core("configmaps", "ConfigMap")
PERSISTENT_VOLUMES = _core("persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = _core("persistentvolumeclaims", "PersistentVolumeClaim")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESS_CLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)
GATEWAY_CLASSES = Resource("gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass", namespaced=False)
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
REFERENCE_GRANTS = Resource("gateway.networking.k8s.io", "v1beta1", "referencegrants", "ReferenceGrant")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
CERTIFICATE_REQUESTS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)
ADMISSION_POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CILIUM_NETWORK_POLICIES = Resource("cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")

_KNOWN: dict[tuple[str, str], Resource] = {
    (resource.api_version, resource.kind): resource
    for resource in list(globals().values())
    if isinstance(resource, Resource)
}


def resource_of(manifest: Mapping[str, Any]) -> Resource:
    """Return the resource type of a manifest of a built-in kind. Raises KeyError for others."""
    return _KNOWN[(manifest["apiVersion"], manifest["kind"])]


def is_true(thing: Mapping[str, Any], condition: str) -> bool:
    """Say whether an object says of itself that a condition holds, such as a Job's ``Failed``."""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(entry["type"] == condition and entry["status"] == "True" for entry in conditions)


def is_ready(thing: Mapping[str, Any]) -> bool:
    """Say whether a pod or a node says of itself that it is ready."""
    return is_true(thing, "Ready")


def is_rolled_out(workload: Mapping[str, Any]) -> bool:
    """Say whether exactly the wanted pods of a Deployment or StatefulSet are of its last template and ready.

    That its controller has seen that template yet is part of it. A pod that ends is not counted there.
    """
    status, wanted = workload.get("status", {}), workload["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == workload["metadata"]["generation"]
        and all(status.get(count, 0) == wanted for count in ("replicas", "updatedReplicas", "readyReplicas"))
    )


class KubeApiError(HaneulError):
    """The API server refused: ``status`` is HTTP's, ``reason`` is Kubernetes' (NotFound, Conflict, Invalid…)."""

    code = "kubernetes-refused"
    title = "Kubernetes refused the request"
    http_status = 502
    exit_code = 10

    def __init__(self, detail: str, *, status: int, reason: str, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class WatchEvent:
    """A change of an object. ``type`` is ADDED, MODIFIED or DELETED."""

    type: str
    object: Manifest


@dataclass(frozen=True)
class KubeAccess:
    """How to reach one API server and as whom; PEM bytes, or a token file that is read anew for each connection."""

    server: str
    authority: bytes
    client_certificate: bytes = b""
    client_key: bytes = field(default=b"", repr=False)
    token_file: str = ""


class KubeClient(Protocol):
    """What controllers need of one API server. All methods raise UnavailableError when nobody answers."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        """Return the object, or None if there is none."""
        ...

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Return all objects that match the label and field selectors; of every namespace if none is named.

        Which fields can be selected by is the API's to say: a pod's ``spec.nodeName`` is one (Kubernetes documentation
        "Field Selectors").
        """
        ...

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Make the fields of ``manifest`` so, by server-side apply, and return the whole object."""
        ...

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Create the object; raises KubeApiError with reason AlreadyExists if there is one of its name.

        With a ``subresource``, ask it of the object that ``manifest`` names: a pod's ``eviction`` is refused with
        reason TooManyRequests while a disruption budget holds it (Kubernetes documentation "API-initiated Eviction").
        """
        ...

    async def patch(
        self, resource: Resource, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        """Merge ``patch`` into the object (RFC 7396) and return it."""
        ...

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None) -> bool:
        """Ask for the object's end, dependents after it; return False if there was none.

        ``grace`` is how many seconds a pod gets to end by itself instead of what it asked for.
        """
        ...

    def watch(self, resource: Resource, namespace: str = "", *, labels: str = "") -> AsyncIterator[WatchEvent]:
        """Yield what exists now as ADDED, then changes, reconnecting without end."""
        ...

    async def raw_get(self, path: str) -> str:
        """Return the body of a plain GET, such as ``/readyz``."""
        ...
