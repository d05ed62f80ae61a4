"""Sandbox nodes: machines that are pods of the management cluster, as kind does it.

No node pod is privileged. With the native network it has users of its own: its root, and so that of every container
in it, is nobody on the host. Cilium's BPF programs are loaded by the host's root only, so there the node's root is it,
with the capabilities that a node needs and no device of the host.

Each node is a StatefulSet of one pod, so the management cluster replaces it when it dies; its settings are a
ConfigMap, its credential a Secret. A node that is replaced joins anew. What a node is made from has a digest, its
revision, which its StatefulSet's template and therefore its pod carry: a pod of another revision than its StatefulSet
is on its way out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import datetime
from typing import Any, Final

from haneul.dkos.control_plane import Images, labels
from haneul.dkos.credentials import secret_manifest
from haneul.dkos.model import Cluster, NetworkPlugin
from haneul.dkos.ports import NodeAnnouncement, ProvidedNode
from haneul.kernel.kube import CONFIG_MAPS, PODS, SECRETS, STATEFUL_SETS, KubeClient, Manifest

#: The runtime of node pods that have users of their own, and the profiles of system calls; `haneul up` makes them.
RUNTIME_CLASS: Final = "haneul-node"
PROFILE, BPF_PROFILE = "haneul-node.json", "haneul-node-bpf.json"
#: What a node does besides what any container may: mount, make namespaces and networks, look into its containers.
CAPABILITIES: Final = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
)
#: And what Cilium's agent does.
BPF_CAPABILITIES: Final = ("BPF", "PERFMON")
_NODE_LABEL = "dkos.haneul.dev/node"
_ERA = "NODE_ERA"
_REVISION = "dkos.haneul.dev/revision"
_ROLE = "node"


class SandboxNodes:
    """Node pods in the cluster's nodes namespace."""

    def __init__(self, client: KubeClient, images: Images) -> None:
        self._client = client
        self._images = images
        # What was rendered and applied last for each node; the network is all that rendering takes from the cluster.
        self._revisions: dict[tuple[str, str], tuple[NodeAnnouncement, str]] = {}
        self._applied: dict[tuple[str, str], NodeAnnouncement] = {}

    def revision(self, cluster: Cluster, node: NodeAnnouncement) -> str:
        """Return the digest of the pod and the files that the announcement asks for."""
        kept = self._revisions.get((cluster.uid, node.name))
        if kept is None or kept[0] != node:
            machine = node_manifests(cluster, node, self._images.of(node.version))[2]
            kept = self._revisions[(cluster.uid, node.name)] = (node, _revision_of(machine["spec"]["template"]))
        return kept[1]

    async def ensure(self, cluster: Cluster, node: NodeAnnouncement) -> None:
        """Apply the node's three objects, unless exactly they were applied before by this process."""
        if self._applied.get((cluster.uid, node.name)) == node:
            return
        settings, credential, machine = node_manifests(cluster, node, self._images.of(node.version))
        await asyncio.gather(self._client.apply(CONFIG_MAPS, settings), self._client.apply(SECRETS, credential))
        await self._client.apply(STATEFUL_SETS, machine)
        self._applied[(cluster.uid, node.name)] = node

    async def observe(self, cluster: Cluster) -> list[ProvidedNode]:
        """Return the node pods, and as not running those that have no pod just now."""
        selector = ",".join(f"{key}={value}" for key, value in labels(cluster, _ROLE).items())
        sets, pods = await asyncio.gather(
            self._client.list(STATEFUL_SETS, cluster.nodes_namespace, labels=selector),
            self._client.list(PODS, cluster.nodes_namespace, labels=selector),
        )
        by_node = {pod["metadata"]["labels"][_NODE_LABEL]: pod for pod in pods}
        revisions = {entry["metadata"]["name"]: _revision_of(entry["spec"]["template"]) for entry in sets}
        for place, node in list(self._applied.items()):
            # What somebody else changed or took away is to be applied again.
            if place[0] == cluster.uid and revisions.get(node.name) != self.revision(cluster, node):
                del self._applied[place]
        return [_provided(name, revision, by_node.get(name)) for name, revision in sorted(revisions.items())]

    async def remove(self, cluster: Cluster, name: str) -> None:
        """Delete the node's objects."""
        self._applied.pop((cluster.uid, name), None)
        self._revisions.pop((cluster.uid, name), None)
        for resource in (STATEFUL_SETS, CONFIG_MAPS, SECRETS):
            await self._client.delete(resource, name, cluster.nodes_namespace)


def node_manifests(cluster: Cluster, node: NodeAnnouncement, images: Images) -> tuple[Manifest, Manifest, Manifest]:
    """Return a node's ConfigMap, Secret and StatefulSet."""
    owned = {**labels(cluster, _ROLE), _NODE_LABEL: node.name}
    namespace = cluster.nodes_namespace
    settings: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": node.name, "namespace": namespace, "labels": owned},
        "data": node.files,
    }
    credential = secret_manifest(
        namespace, node.name, {"kubeconfig": node.bootstrap_kubeconfig, "ca.crt": node.authority}, owned
    )
    pod = _pod_spec(cluster, node, images)
    revision = hashlib.sha256(json.dumps([settings["data"], pod], sort_keys=True).encode()).hexdigest()[:16]
    machine: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": node.name, "namespace": namespace, "labels": owned},
        "spec": {
            "replicas": 1,
            "serviceName": node.name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": owned},
            "template": {
                "metadata": {"labels": owned, "annotations": {_REVISION: revision}},
                "spec": pod,
            },
        },
    }
    return settings, credential, machine


def _pod_spec(cluster: Cluster, node: NodeAnnouncement, images: Images) -> dict[str, Any]:
    volumes: list[Manifest] = [
        {"name": "settings", "configMap": {"name": node.name}},
        {"name": "bootstrap", "secret": {"secretName": node.name, "defaultMode": 0o400}},
        {"name": "containerd", "emptyDir": {}},
        {"name": "kubelet", "emptyDir": {}},
        {"name": "logs", "emptyDir": {}},
    ]
    mounts: list[Manifest] = [
        {"name": "settings", "mountPath": "/etc/haneul/node", "readOnly": True},
        {"name": "bootstrap", "mountPath": "/etc/haneul/bootstrap", "readOnly": True},
        {"name": "containerd", "mountPath": "/var/lib/containerd"},
        {"name": "kubelet", "mountPath": "/var/lib/kubelet"},
        {"name": "logs", "mountPath": "/var/log"},
    ]
    if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
        # Cilium's agent and compiler are large: the host's one copy is shared read-only by all nodes on it.
        volumes.append({"name": "cilium", "image": {"reference": images.cilium, "pullPolicy": "IfNotPresent"}})
        mounts.append({"name": "cilium", "mountPath": "/opt/haneul/cilium", "readOnly": True})
    # Machines that are older than eras are of the first; another era makes another pod.
    era = [{"name": _ERA, "value": str(node.era)}] if node.era else []
    return {
        "hostname": node.name,
        **_users(cluster),
        "containers": [
            {
                "name": "node",
                "image": images.node,
                "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, *era],
                "securityContext": _security(cluster),
                "resources": {
                    "requests": {"cpu": "2m", "memory": "192Mi"},
                    "limits": {"cpu": f"{round(node.pool.cpu * 1000)}m", "memory": f"{node.pool.memory_mib}Mi"},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "dnsPolicy": "Default",
    }


def _users(cluster: Cluster) -> dict[str, Any]:
    """Return what gives the pod users of its own, where its network allows that."""
    if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
        return {}
    return {"hostUsers": False, "runtimeClassName": RUNTIME_CLASS}


def _security(cluster: Cluster) -> dict[str, Any]:
    bpf = cluster.spec.network.plugin is NetworkPlugin.CILIUM
    capabilities = [*CAPABILITIES, *(BPF_CAPABILITIES if bpf else ())]
    return {
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": capabilities},
        "seccompProfile": {"type": "Localhost", "localhostProfile": BPF_PROFILE if bpf else PROFILE},
        # A container in the node gets a process file system of its own, which the kernel gives only to who sees all
        # of theirs. Only a pod with users of its own may ask for that; the other one's root helps itself.
        **({} if bpf else {"procMount": "Unmasked"}),
    }


def _revision_of(pod: Manifest) -> str:
    """Return the revision that a pod or a template carries."""
    annotations: dict[str, str] = pod["metadata"].get("annotations") or {}
    return annotations.get(_REVISION, "")


def _provided(name: str, revision: str, pod: Manifest | None) -> ProvidedNode:
    if pod is None:
        return ProvidedNode(name, "", message="its pod is being made", revision=revision)
    leaves = "deletionTimestamp" in pod["metadata"] or _revision_of(pod) != revision
    status = pod.get("status", {})
    states = [entry.get("state", {}) for entry in status.get("containerStatuses", [])]
    waiting: dict[str, str] = next((state["waiting"] for state in states if "waiting" in state), {})
    started = next((state["running"]["startedAt"] for state in states if "running" in state), None)
    reason = ": ".join(filter(None, (waiting.get("reason"), waiting.get("message")))) or status.get("phase", "")
    return ProvidedNode(
        name,
        instance=pod["metadata"]["uid"],
        address=status.get("podIP", ""),
        running=any("running" in state for state in states) and not leaves,
        started=datetime.fromisoformat(started) if started else None,
        message="its pod is being replaced" if leaves else reason,
        revision=revision,
        era=_era_of(pod),
    )


def _era_of(pod: Manifest) -> int:
    containers = pod.get("spec", {}).get("containers", [])
    values = [entry["value"] for one in containers for entry in one.get("env", []) if entry["name"] == _ERA]
    return int(values[0]) if values else 0
