"""A tenant's own masters as manifests of the management cluster: pure rendering, held by golden files.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are hardened pods: no root, nothing writable but
their volumes, no capabilities, the runtime's seccomp profile, no service account. etcd's data lies on its host, in a
volume made for exactly this cluster. Network policies let only the cluster's own parts meet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from haneul.dkos import high_availability
from haneul.dkos.authentication import IssuerTrust, authentication
from haneul.dkos.confinement import POLICIES_FILE, POLICY_FILES_GATE, policies, policies_in
from haneul.dkos.credentials import Endpoints
from haneul.dkos.etcd_slots import (
    CLIENT_PORT,
    FOUNDERS_FOLDER,
    GATEWAY_PORT,
    PEER_PORT,
    Slot,
    claim_name,
    in_play,
    member_name,
    pod_name,
    volume_name,
)
from haneul.dkos.model import Cluster, Settings
from haneul.kernel.documents import to_yaml
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import (
    STRONG_CIPHERS,
    admission_configuration,
    hardened_container,
    hardened_pod,
)

USER: Final = 65532
CLUSTER_LABEL: Final = "dkos.haneul.dev/cluster"
ROLE_LABEL: Final = "dkos.haneul.dev/role"
#: A pod carries the digest of the secrets and settings that it was made from.
CREDENTIALS_ANNOTATION: Final = "dkos.haneul.dev/credentials"
NODE_CIDR_BITS: Final = 24
#: Where the pods of masters find their certificates and keys.
PEM: Final = "/etc/haneul/pki"
_POLICIES: Final = "/etc/haneul/policies"
#: A Go program with several processors wakes another of its threads at each of its timers, of which a cluster without
#: work has hundreds a second; one is enough for what these parts do.
_ONE_PROCESSOR: Final = {"name": "GOMAXPROCS", "value": "1"}


@dataclass(frozen=True)
class Images:
    """References of the images that masters and nodes run."""

    etcd: str
    apiserver: str
    controller_manager: str
    scheduler: str
    toolbox: str
    node: str
    cilium: str

    def of(self, version: str) -> Images:
        """Return the same with what is Kubernetes' own in this version, which the tags carry.

        The version need not be built here: a cluster that an earlier Haneul made stays as it is until it is upgraded.
        """

        def tagged(reference: str) -> str:
            return f"{reference.rpartition(':')[0]}:v{version}"

        return replace(
            self,
            apiserver=tagged(self.apiserver),
            controller_manager=tagged(self.controller_manager),
            scheduler=tagged(self.scheduler),
            node=tagged(self.node),
        )


@dataclass(frozen=True)
class Placement:
    """Where a cluster's data lies: the management host and the folder that holds all clusters' data there."""

    host: str
    data: str = "/var/lib/haneul/clusters"


def labels(cluster: Cluster, role: str = "") -> dict[str, str]:
    """Return the ownership labels of everything that is made for a cluster."""
    result = {"app.kubernetes.io/managed-by": "haneul", CLUSTER_LABEL: cluster.uid}
    return {**result, ROLE_LABEL: role} if role else result


def kubernetes_service_address(services: str) -> str:
    """Return the first address of a service range, which Kubernetes gives to its own API service."""
    return str(ipaddress.IPv4Network(services)[1])


def namespaces(cluster: Cluster) -> list[Manifest]:
    """Return the two namespaces of a cluster: one for its masters, one for its sandbox nodes, which are privileged."""
    levels = {cluster.masters_namespace: "restricted", cluster.nodes_namespace: "privileged"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {**labels(cluster), "pod-security.kubernetes.io/enforce": level},
            },
        }
        for name, level in levels.items()
    ]


def services(cluster: Cluster, slots: Sequence[Slot] = (Slot(0),)) -> list[Manifest]:
    """Return the services of the places for etcd members, by their numbers, and last the API server's.

    Each etcd member has an address of its own that outlives its pods, so that nothing in a control plane needs DNS.
    Clients reach it there only while it votes: one that does not would refuse them.
    The API server is reached from outside at a port of every management host. Its address is published before the
    kubelet, which looks once a second, has seen that it is ready, until the cluster was ready once: so long everything
    waits for it and an answer that comes too early harms nobody.
    """
    known = {slot.index: slot for slot in slots}
    return [
        *(_etcd_service(cluster, index, known.get(index)) for index in range(in_play(cluster.spec.masters, slots))),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-apiserver", "namespace": cluster.masters_namespace, "labels": labels(cluster)},
            "spec": {
                "type": "NodePort",
                "publishNotReadyAddresses": publishes_early(cluster),
                "selector": labels(cluster, "kube-apiserver"),
                "ports": [{"name": "https", "port": 6443, "targetPort": 6443}],
            },
        },
    ]


def publishes_early(cluster: Cluster) -> bool:
    """Say whether an API server's address is published before it is ready; several replace each other long before."""
    return ("api" if cluster.spec.highly_available else "ready") not in cluster.status.milestones


def _etcd_service(cluster: Cluster, index: int, slot: Slot | None) -> Manifest:
    ports = [("client", CLIENT_PORT)] if slot is not None and slot.published else []
    ports.append(("peer", PEER_PORT))
    if slot is not None and slot.published and slot.gateway_port != CLIENT_PORT:
        ports.append(("gateway", GATEWAY_PORT))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": member_name(index), "namespace": cluster.masters_namespace, "labels": labels(cluster)},
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": {**labels(cluster, "etcd"), "statefulset.kubernetes.io/pod-name": pod_name(index)},
            "ports": [{"name": name, "port": port, "targetPort": port} for name, port in ports],
        },
    }


def volume(cluster: Cluster, placement: Placement, index: int = 0) -> list[Manifest]:
    """Return the volume and claim of one etcd member, bound to each other and to the member's host.

    The volume is the host's folder of all clusters' data, of which the member's pod mounts only its own part: the
    kubelet makes that part with the folder's mode, so that no container of root has to hand it over first.
    """
    name, claim = volume_name(cluster.uid, index), claim_name(index)
    size = {"storage": "4Gi"}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": labels(cluster)},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": cluster.masters_namespace,
                    "name": claim,
                },
                "hostPath": {"path": placement.data, "type": "Directory"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [placement.host]}
                                ]
                            }
                        ]
                    }
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": cluster.masters_namespace, "labels": labels(cluster)},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "volumeName": name,
                "resources": {"requests": size},
            },
        },
    ]


def hosts_of(volume: Manifest) -> list[str]:
    """Return the hosts that a volume made by :func:`volume` is bound to."""
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return list(terms[0]["matchExpressions"][0]["values"])


def configurations(cluster: Cluster, trust: IssuerTrust | None = None) -> dict[str, Manifest]:
    """Return the configuration files that are no secrets, by the component that reads them."""
    data = {
        "kube-apiserver": {
            "admission.yaml": to_yaml(admission_configuration(policies_in(_POLICIES))),
            "audit.yaml": _audit_policy(),
            "authentication.yaml": authentication(cluster, trust),
            POLICIES_FILE: policies(cluster),
        },
        "kube-scheduler": {"scheduler.yaml": _scheduling(cluster)},
    }
    return {
        component: {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": component, "namespace": cluster.masters_namespace, "labels": labels(cluster)},
            "data": files,
        }
        for component, files in data.items()
    }


def _scheduling(cluster: Cluster) -> str:
    """The scheduler looks at a pod again after a second at most.

    The default of up to ten seconds spares clusters with thousands of pods that fit nowhere; here it is what the first
    pods of a cluster wait for, which are asked for before its first node is ready.
    """
    return to_yaml(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": f"{PEM}/kubeconfig", "qps": 200, "burst": 400},
            "leaderElection": {"leaderElect": cluster.spec.highly_available},
            "enableProfiling": False,
            "podInitialBackoffSeconds": 1,
            "podMaxBackoffSeconds": 1,
        }
    )


def _audit_policy() -> str:
    """Who changed what, without bodies or the machinery's own chatter (Kubernetes documentation "Auditing")."""
    return to_yaml(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "nonResourceURLs": ["/livez*", "/readyz*", "/healthz*", "/version"]},
                {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
                {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
                {
                    "level": "None",
                    "userGroups": ["system:nodes", "system:serviceaccounts:kube-system", "system:masters"],
                    "verbs": ["get", "list", "watch"],
                },
                {
                    "level": "None",
                    "users": ["system:kube-controller-manager", "system:kube-scheduler"],
                    "verbs": ["get", "list", "watch"],
                },
                {"level": "Metadata"},
            ],
        }
    )


def etcd(
    cluster: Cluster, endpoints: Endpoints, images: Images, digests: Mapping[str, str], *, replicas: int = 1
) -> Manifest:
    """Return the cluster's own etcd; a sleeping cluster has no replica of it, nor of what follows.

    It is the one that begins the cluster alone; :mod:`haneul.dkos.etcd_members` makes the others of it.
    """
    namespace = cluster.masters_namespace
    address = endpoints.places[0]
    name = member_name(0)
    arguments = {
        "name": name,
        "data-dir": f"/data/{FOUNDERS_FOLDER}",
        "listen-client-urls": f"https://0.0.0.0:{CLIENT_PORT}",
        "advertise-client-urls": f"https://{address}:{CLIENT_PORT}",
        "listen-peer-urls": f"https://0.0.0.0:{PEER_PORT}",
        "initial-advertise-peer-urls": f"https://{address}:{PEER_PORT}",
        "initial-cluster": f"{name}=https://{address}:{PEER_PORT}",
        "initial-cluster-token": cluster.uid,
        "listen-metrics-urls": "http://0.0.0.0:2381",
        "cert-file": f"{PEM}/server.crt",
        "key-file": f"{PEM}/server.key",
        "client-cert-auth": "true",
        "trusted-ca-file": f"{PEM}/ca.crt",
        "peer-cert-file": f"{PEM}/server.crt",
        "peer-key-file": f"{PEM}/server.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": f"{PEM}/ca.crt",
        "tls-min-version": "TLS1.3",
        "quota-backend-bytes": str(2 << 30),
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "30m",
        # A member that is alone only ever waits for itself: short times save half a second at each start.
        "heartbeat-interval": "50",
        "election-timeout": "250",
    }
    container = _container("etcd", images.etcd, arguments, memory="48Mi", limit="512Mi", cpu="12m")
    container |= {
        "env": [{"name": "GOMEMLIMIT", "value": "384MiB"}, _ONE_PROCESSOR],
        "volumeMounts": [
            _mount("pki", PEM),
            {"name": "data", "mountPath": "/data", "subPath": f"{cluster.uid}/{name}"},
        ],
        "startupProbe": _probe(2381, "/readyz", scheme="HTTP", period=1, failures=60),
        "livenessProbe": _probe(2381, "/livez", scheme="HTTP", period=10, failures=6),
        "readinessProbe": _probe(2381, "/readyz", scheme="HTTP", period=5, failures=3),
    }
    pod = _pod(cluster, "etcd", container, [_secret_volume("pki", "etcd"), _claim_volume("data", claim_name(0))])
    pod["spec"]["terminationGracePeriodSeconds"] = 10
    pod["metadata"]["annotations"] = {CREDENTIALS_ANNOTATION: digests["etcd"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "etcd", "namespace": namespace, "labels": labels(cluster, "etcd")},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels(cluster, "etcd")},
            "template": pod,
        },
    }


def apiserver(
    cluster: Cluster, endpoints: Endpoints, images: Images, digests: Mapping[str, str], *, replicas: int = 1
) -> Manifest:
    """Return the cluster's API server."""
    settings = cluster.spec.settings
    reading = settings.max_requests_in_flight * 2 // 3
    arguments = {
        "etcd-servers": ",".join(f"https://{address}:{CLIENT_PORT}" for address in endpoints.etcd_addresses),
        "etcd-cafile": f"{PEM}/etcd-ca.crt",
        "etcd-certfile": f"{PEM}/etcd-client.crt",
        "etcd-keyfile": f"{PEM}/etcd-client.key",
        "secure-port": "6443",
        # Pods of the cluster reach their API server where every other part does: at the service that never moves.
        "advertise-address": endpoints.service_address,
        "service-cluster-ip-range": str(cluster.spec.network.services),
        "client-ca-file": f"{PEM}/ca.crt",
        "tls-cert-file": f"{PEM}/server.crt",
        "tls-private-key-file": f"{PEM}/server.key",
        "tls-min-version": "VersionTLS12",
        "tls-cipher-suites": ",".join(STRONG_CIPHERS),
        "kubelet-client-certificate": f"{PEM}/kubelet-client.crt",
        "kubelet-client-key": f"{PEM}/kubelet-client.key",
        "kubelet-certificate-authority": f"{PEM}/ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "proxy-client-cert-file": f"{PEM}/front-proxy-client.crt",
        "proxy-client-key-file": f"{PEM}/front-proxy-client.key",
        "requestheader-client-ca-file": f"{PEM}/front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": f"{PEM}/service-account.pub",
        "service-account-signing-key-file": f"{PEM}/service-account.key",
        "service-account-extend-token-expiration": "false",
        "authorization-mode": "Node,RBAC",
        "authentication-config": "/etc/haneul/config/authentication.yaml",
        "enable-admission-plugins": "NodeRestriction,DenyServiceExternalIPs,EventRateLimit",
        "admission-control-config-file": "/etc/haneul/config/admission.yaml",
        # What pods may do is judged in one place, whose refusals say why: the policies (confinement).
        "allow-privileged": "true",
        "default-not-ready-toleration-seconds": str(settings.pod_eviction_seconds),
        "default-unreachable-toleration-seconds": str(settings.pod_eviction_seconds),
        "enable-bootstrap-token-auth": "true",
        "encryption-provider-config": f"{PEM}/encryption.yaml",
        "audit-policy-file": "/etc/haneul/config/audit.yaml",
        "audit-log-path": "/var/log/audit/audit.log",
        # Eleven files of five megabytes, in a volume of 64.
        "audit-log-maxsize": "5",
        "audit-log-maxbackup": "10",
        "audit-log-maxage": str(settings.audit_log_days),
        "profiling": "false",
        "max-requests-inflight": str(reading),
        "max-mutating-requests-inflight": str(settings.max_requests_in_flight - reading),
        "event-ttl": "1h0m0s",
        # Machines do not reach the advertised address; DKOS writes down the one that they do (tenant_objects).
        **({} if cluster.spec.announces_itself else {"endpoint-reconciler-type": "none"}),
        **(high_availability.SERVER_ARGUMENTS if cluster.spec.highly_available else {}),
        **_feature_gates(settings, {POLICY_FILES_GATE: True}),
    }
    container = _container("kube-apiserver", images.apiserver, arguments, memory="256Mi", limit="1536Mi", cpu="25m")
    etcd_addresses = [f"{address}:{CLIENT_PORT}" for address in endpoints.etcd_addresses]
    container |= {
        # Its client backs off for a second when etcd, which starts at the same time, is not there yet.
        "command": ["await-connection", "-within=30s", *etcd_addresses, "--", "kube-apiserver"],
        "env": [{"name": "GOMEMLIMIT", "value": "1280MiB"}],
        "volumeMounts": [
            _mount("pki", PEM),
            _mount("config", "/etc/haneul/config"),
            _mount("policies", _POLICIES),
            {"name": "audit", "mountPath": "/var/log/audit"},
        ],
        "startupProbe": _probe(6443, "/readyz", period=1, failures=120),
        "livenessProbe": _probe(6443, "/livez", period=10, failures=8, timeout=15),
        "readinessProbe": _probe(6443, "/readyz", period=2, failures=3, timeout=10),
    }
    volumes = [
        _secret_volume("pki", "kube-apiserver"),
        {"name": "config", "configMap": {"name": "kube-apiserver"}},
        # The API server takes every file of a folder for policies, so they lie in one of their own.
        {
            "name": "policies",
            "configMap": {"name": "kube-apiserver", "items": [{"key": POLICIES_FILE, "path": POLICIES_FILE}]},
        },
        {"name": "audit", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    made = _deployment(cluster, "kube-apiserver", container, volumes, digests, replicas)
    if cluster.spec.highly_available:
        made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = high_availability.SERVER_GRACE_SECONDS
    return made


def controller_manager(cluster: Cluster, images: Images, digests: Mapping[str, str], *, replicas: int = 1) -> Manifest:
    """Return the cluster's controller manager.

    It signs and approves no node certificate: DKOS does, after its own checks. Its client rate is raised because the
    default of 20 requests a second is what a fresh cluster waits for: each of some forty controllers asks for an
    account and a token before the first of them starts.
    """
    settings = cluster.spec.settings
    arguments = {
        "kubeconfig": f"{PEM}/kubeconfig",
        "authentication-skip-lookup": "true",
        "root-ca-file": f"{PEM}/ca.crt",
        "service-account-private-key-file": f"{PEM}/service-account.key",
        "use-service-account-credentials": "true",
        "controllers": ",".join(
            (
                "*",
                "tokencleaner",
                "-certificatesigningrequest-approving-controller",
                "-certificatesigningrequest-signing-controller",
            )
        ),
        "allocate-node-cidrs": "true",
        "cluster-cidr": str(cluster.spec.network.pods),
        "node-cidr-mask-size": str(NODE_CIDR_BITS),
        "service-cluster-ip-range": str(cluster.spec.network.services),
        "node-monitor-grace-period": f"{settings.node_monitor_grace_seconds}s",
        "leader-elect": str(cluster.spec.highly_available).lower(),
        "kube-api-qps": "300",
        "kube-api-burst": "600",
        "terminated-pod-gc-threshold": "1000",
        "profiling": "false",
        **_feature_gates(settings),
    }
    container = _container(
        "kube-controller-manager", images.controller_manager, arguments, memory="80Mi", limit="768Mi", cpu="4m"
    )
    container |= {
        "env": [{"name": "GOGC", "value": "60"}, {"name": "GOMEMLIMIT", "value": "640MiB"}, _ONE_PROCESSOR],
        "volumeMounts": [_mount("pki", PEM)],
        "livenessProbe": _probe(10257, "/healthz", period=15, failures=6, timeout=15),
    }
    volumes = [_secret_volume("pki", "kube-controller-manager")]
    return _deployment(cluster, "kube-controller-manager", container, volumes, digests, replicas)


def scheduler(cluster: Cluster, images: Images, digests: Mapping[str, str], *, replicas: int = 1) -> Manifest:
    """Return the cluster's scheduler."""
    arguments = {
        "config": "/etc/haneul/config/scheduler.yaml",
        "authentication-skip-lookup": "true",
        **_feature_gates(cluster.spec.settings),
    }
    container = _container("kube-scheduler", images.scheduler, arguments, memory="48Mi", limit="512Mi", cpu="2m")
    container |= {
        "env": [{"name": "GOGC", "value": "60"}, {"name": "GOMEMLIMIT", "value": "384MiB"}, _ONE_PROCESSOR],
        "volumeMounts": [_mount("pki", PEM), _mount("config", "/etc/haneul/config")],
        "livenessProbe": _probe(10259, "/healthz", period=15, failures=6, timeout=15),
    }
    volumes = [
        _secret_volume("pki", "kube-scheduler"),
        {"name": "config", "configMap": {"name": "kube-scheduler"}},
    ]
    return _deployment(cluster, "kube-scheduler", container, volumes, digests, replicas)


def cilium_operator(
    cluster: Cluster, endpoints: Endpoints, images: Images, digests: Mapping[str, str], *, replicas: int = 1
) -> Manifest:
    """Return the operator of the cluster's own Cilium, which stands with the masters as they do."""
    arguments = {
        "k8s-kubeconfig-path": f"{PEM}/kubeconfig",
        "k8s-api-server-urls": endpoints.inside,
        "cluster-name": "default",
        "cluster-id": "0",
        "identity-allocation-mode": "crd",
        "ipam": "kubernetes",
        "enable-ipv4": "true",
        "enable-ipv6": "false",
        "unmanaged-pod-watcher-interval": "0",
        "operator-api-serve-addr": "127.0.0.1:9234",
        "operator-prometheus-serve-addr": "127.0.0.1:9963",
    }
    container = _container("cilium-operator", images.cilium, arguments, memory="48Mi", limit="384Mi", cpu="2m")
    container |= {
        "command": ["cilium-operator"],
        "env": [
            {"name": "GOGC", "value": "60"},
            {"name": "GOMEMLIMIT", "value": "256MiB"},
            {"name": "CILIUM_K8S_NAMESPACE", "value": "kube-system"},
            {"name": "HOME", "value": "/home"},
        ],
        "volumeMounts": [_mount("pki", PEM), {"name": "home", "mountPath": "/home"}],
    }
    volumes = [_secret_volume("pki", "cilium-operator"), {"name": "home", "emptyDir": {"sizeLimit": "16Mi"}}]
    return _deployment(cluster, "cilium-operator", container, volumes, digests, replicas)


def _feature_gates(settings: Settings, fixed: Mapping[str, bool] = MappingProxyType({})) -> dict[str, str]:
    gates = {**settings.feature_gates, **fixed}
    if not gates:
        return {}
    return {"feature-gates": ",".join(f"{name}={str(value).lower()}" for name, value in sorted(gates.items()))}


def _container(
    name: str, image: str, arguments: Mapping[str, str], *, memory: str, limit: str, cpu: str
) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--{argument}={value}" for argument, value in arguments.items()],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}},
        # What a program said at its end is why it cannot start, for those who cannot read its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": hardened_container(),
    }


def _pod(cluster: Cluster, role: str, container: Manifest, volumes: list[Manifest]) -> dict[str, Any]:
    return {
        "metadata": {"labels": labels(cluster, role)},
        "spec": {
            "containers": [container],
            "volumes": volumes,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "priorityClassName": "haneul-masters",
            "terminationGracePeriodSeconds": 5,
            "dnsPolicy": "Default",
            "securityContext": hardened_pod(USER),
        },
    }


def _deployment(
    cluster: Cluster,
    role: str,
    container: Manifest,
    volumes: list[Manifest],
    digests: Mapping[str, str],
    replicas: int,
) -> Manifest:
    pod = _pod(cluster, role, container, volumes)
    pod["metadata"]["annotations"] = {CREDENTIALS_ANNOTATION: digests[role]}
    if cluster.spec.highly_available:
        pod["spec"]["topologySpreadConstraints"] = high_availability.spread(labels(cluster, role))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": role, "namespace": cluster.masters_namespace, "labels": labels(cluster, role)},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels(cluster, role)},
            "template": pod,
        },
    }


def _probe(
    port: int, path: str, *, period: int, failures: int, scheme: str = "HTTPS", timeout: int = 5
) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port, "scheme": scheme},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def _mount(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "mountPath": path, "readOnly": True}


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _claim_volume(name: str, claim: str) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}
