"""What a pod asks for that the benchmark would rather not see, and which pod security level forbids it. Pure.

See Kubernetes documentation "Pod Security Standards".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from haneul.kernel.kube import Manifest

LEVEL_LABEL: Final = "pod-security.kubernetes.io/enforce"
LEVELS: Final = ("privileged", "baseline", "restricted")
Asks = Callable[[Manifest], bool]


def containers(pod: Manifest) -> Iterator[Manifest]:
    """Yield every container of a pod."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod["spec"].get(kind) or []


def place(pod: Manifest) -> str:
    """Return a pod's namespace and name."""
    return f"{pod['metadata'].get('namespace', '')}/{pod['metadata']['name']}"


def asks_for(field: str) -> Asks:
    """Say whether a pod asks to share something of its host: ``hostPID``, ``hostIPC``, ``hostNetwork``."""
    return lambda pod: bool(pod["spec"].get(field))


def privileged(pod: Manifest) -> bool:
    """Say whether a container may do everything."""
    return any(_security(one).get("privileged") for one in containers(pod))


def escalates(pod: Manifest) -> bool:
    """Say whether a container's processes may get more rights than it started with."""
    return any(_security(one).get("allowPrivilegeEscalation") is not False for one in containers(pod))


def may_be_root(pod: Manifest) -> bool:
    """Say whether a container may run as root."""
    whole = _security(pod["spec"])

    def one(container: Manifest) -> bool:
        own = _security(container)
        user = own.get("runAsUser", whole.get("runAsUser"))
        return user == 0 or (not user and not own.get("runAsNonRoot", whole.get("runAsNonRoot")))

    return any(one(container) for container in containers(pod))


def may_forge_packets(pod: Manifest) -> bool:
    """Say whether a container has NET_RAW, which is among what a runtime gives by itself."""
    return any(
        not {"ALL", "NET_RAW"} & set(_capabilities(one, "drop")) or "NET_RAW" in _capabilities(one, "add")
        for one in containers(pod)
    )


def adds_capabilities(pod: Manifest) -> bool:
    """Say whether a container asks for capabilities."""
    return any(_capabilities(one, "add") for one in containers(pod))


def keeps_capabilities(pod: Manifest) -> bool:
    """Say whether a container does not give up all capabilities."""
    return any("ALL" not in _capabilities(one, "drop") for one in containers(pod))


def windows_host(pod: Manifest) -> bool:
    """Say whether a container is a process of a Windows host."""
    asked = [_security(pod["spec"]), *(_security(one) for one in containers(pod))]
    return any((security.get("windowsOptions") or {}).get("hostProcess") for security in asked)


def host_paths(pod: Manifest) -> bool:
    """Say whether a pod mounts folders of its host."""
    return any("hostPath" in volume for volume in pod["spec"].get("volumes") or [])


def host_ports(pod: Manifest) -> bool:
    """Say whether a container takes a port of its host."""
    return any(port.get("hostPort") for one in containers(pod) for port in one.get("ports") or [])


def mounts_token(pod: Manifest) -> bool:
    """Say whether a pod has its account's token."""
    return any(
        "serviceAccountToken" in source
        for volume in pod["spec"].get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
    )


def secrets_in_environment(pod: Manifest) -> bool:
    """Say whether a container has secrets in its environment."""
    return any(
        "secretKeyRef" in (entry.get("valueFrom") or {}) for one in containers(pod) for entry in one.get("env") or []
    ) or any("secretRef" in entry for one in containers(pod) for entry in one.get("envFrom") or [])


def unfiltered(pod: Manifest) -> bool:
    """Say whether a container asks for no system call filter at all."""
    return "Unconfined" in _filters(pod)


def without_filter(pod: Manifest) -> bool:
    """Say whether a container names no system call filter."""
    return None in _filters(pod)


def without_context(pod: Manifest) -> bool:
    """Say whether neither a pod nor all its containers have a security context."""
    return not _security(pod["spec"]) and any(not _security(one) for one in containers(pod))


def _filters(pod: Manifest) -> set[Any]:
    whole = (_security(pod["spec"]).get("seccompProfile") or {}).get("type")
    return {(_security(one).get("seccompProfile") or {}).get("type", whole) for one in containers(pod)}


def _security(thing: Manifest) -> dict[str, Any]:
    return thing.get("securityContext") or {}


def _capabilities(container: Manifest, what: str) -> list[str]:
    found: list[str] = (_security(container).get("capabilities") or {}).get(what) or []
    return found
