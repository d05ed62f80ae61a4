"""The platform's own services in the management cluster: API and operator, as manifests and as steps of `haneul up`.

Both are pods, so the management cluster starts, heals and rolls them. They are hardened like the tenants' masters.
The API's database lies on the host; its certificate comes from the platform's own authority, which people's command
lines trust.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from haneul.app import reserved
from haneul.app.host_rights import host_rights
from haneul.app.hub_content import HubContent
from haneul.app.platform_balancer import text_of
from haneul.app.token_keys import json_web_keys
from haneul.balancer.settings import HaproxySettings
from haneul.components.store import ComponentStore
from haneul.components.table import image_reference, variants
from haneul.dkos.adapters.kube_address_use import ADDRESS_USE
from haneul.dkos.adapters.kube_events import READER
from haneul.dkos.adapters.kube_machines import KEYS_NAMESPACE
from haneul.dkos.adapters.sandbox_policy import node_pod_policy, runtime_class
from haneul.dkos.backup.record import NAMESPACE as BACKUP_NAMESPACE
from haneul.dkos.backup.record import WORKER_NAME as BACKUP_NAME
from haneul.dkos.door import WAKER_NAME, WAKER_NAMESPACE
from haneul.dkos.isolation import backup_policies, reader_policies, waker_policies
from haneul.dkos.readers import BALANCER, HUB, INGRESS, NAMES, Reader
from haneul.dkos.schema import custom_resource_definition, machine_resource_definition
from haneul.firewall.schema import custom_resource_definition as approvals_definition
from haneul.firewall.schema import writer_policy
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, UnavailableError
from haneul.kernel.files import read_private, write_atomically
from haneul.kernel.kube import DEPLOYMENTS, NAMESPACES, SECRETS, KubeClient, Manifest, is_rolled_out, resource_of
from haneul.kernel.kube_manifests import (
    READ,
    WRITE,
    account,
    account_with_rights,
    cluster_role,
    hardened_container,
    hardened_pod,
    rights_in_namespace,
    rule,
)
from haneul.kernel.leaf_files import LeafFiles
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority
from haneul.kernel.process import run
from haneul.kernel.progress import Progress
from haneul.kernel.waiting import wait_for
from haneul.management.certificates import Held, held
from haneul.management.image_hub import USER as HUB_USER
from haneul.management.image_hub import HubFiles, ImageHub
from haneul.management.lifecycle import Lifecycle
from haneul.management.settings import ManagementSettings

NAMESPACE: Final = "haneul-system"
API_PORT: Final = 7443
_USER: Final = 65532
_ALIVE_PORT: Final = 8080
#: The public key of the management cluster's service account tokens, which kubeadm makes once.
_TOKEN_KEY: Final = Path("/etc/kubernetes/pki/sa.pub")
_LABELS: Final = {"app.kubernetes.io/managed-by": "haneul", "app.kubernetes.io/part-of": "haneul"}
#: What clusters of the management cluster's own version run beside it, and all that those of the older minor do.
_IMAGES: Final = (
    "platform",
    "toolbox",
    *(
        row.name
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        for row in variants(name)[1:]
    ),
    *(row.name for row in variants("node")),
)
_CERTIFICATE_LIFE: Final = timedelta(days=90)


@dataclass(frozen=True)
class PlatformFiles:
    """What the platform keeps on the host, below its state folder."""

    state: Path

    @property
    def authority(self) -> Path:
        """Return the certificate that people's command lines trust."""
        return self.state / "platform-ca.crt"

    @property
    def authority_key(self) -> Path:
        """Return the authority's key, which never leaves the host."""
        return self.state / "platform-ca.key"

    @property
    def certificate(self) -> Path:
        """Return the API's certificate with its key."""
        return self.state / "platform-api.pem"

    @property
    def admin_token(self) -> Path:
        """Return the first administrator's token, for root only."""
        return self.state / "admin.token"

    @property
    def database(self) -> Path:
        """Return the folder of the API's database."""
        return self.state / "platform"

    @property
    def backups(self) -> Path:
        """Return the folder of all clusters' backups."""
        return self.state / "backups"


class PlatformAuthority:
    """What signs the platform's certificates; ``up`` makes it."""

    def __init__(self, files: PlatformFiles) -> None:
        self._files = files

    def read(self) -> KeyPair:
        """Return the authority. Raises UnavailableError as long as there is none."""
        files = self._files
        try:
            return KeyPair(files.authority.read_bytes(), read_private(files.authority_key).encode())
        except FileNotFoundError as error:
            raise UnavailableError(f"{files.authority} is not there yet", hint="'haneul up' makes it") from error

    def ensure(self, now: datetime) -> KeyPair:
        """Return the authority, which is made once."""
        files = self._files
        if not files.authority.exists():
            authority = issue_authority("Haneul platform", now=now)
            # The key first: a certificate without its key would be taken for whole.
            write_atomically(files.authority_key, authority.key, mode=0o600)
            write_atomically(files.authority, authority.certificate)
        return self.read()


class Platform:
    """Installs the platform's services; every step may be repeated."""

    def __init__(
        self,
        settings: ManagementSettings,
        balancer: HaproxySettings,
        *,
        lifecycle: Lifecycle,
        store: ComponentStore,
        hub: ImageHub,
        content: HubContent,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._balancer = balancer
        self._hub = hub
        self.content = content
        self._lifecycle = lifecycle
        self._store = store
        self._clock = clock
        self.files = PlatformFiles(settings.state)
        self._authority = PlatformAuthority(self.files)

    async def up(self, progress: Progress) -> None:
        """Install or update the services and wait until they serve."""
        with progress.stage("load the platform's images", expected_seconds=20) as stage:
            for name in _IMAGES:
                stage.note(name)
                await self._lifecycle.containers.load_image(name)
        with progress.stage("start the platform", expected_seconds=10) as stage:
            for folder in (self.files.database, self.files.backups):
                folder.mkdir(mode=0o700, exist_ok=True)
                os.chown(folder, _USER, _USER)
            if self._settings.hub:
                self._hub.prepare(self._authority.ensure(self._clock.now()), json_web_keys(_TOKEN_KEY.read_bytes()))
            build = self._store.image_archive("platform").stem
            manifests = platform_manifests(
                settings=self._settings,
                image=self._store.image_reference("platform"),
                build=build,
                certificate=self._certificate(),
                authority=self.files.authority.read_text(),
                balancer=text_of(self._balancer),
                names_key=read_private(self._lifecycle.name_server.files.key).strip(),
            )
            async with self._lifecycle.client() as client:
                for manifest in manifests:
                    await client.apply(resource_of(manifest), manifest)
                if not self._settings.hub:
                    await client.delete(NAMESPACES, HUB.name)
                for name, namespace in (
                    ("haneul-operator", NAMESPACE),
                    ("haneul-api", NAMESPACE),
                    (WAKER_NAME, WAKER_NAMESPACE),
                    (BACKUP_NAME, BACKUP_NAMESPACE),
                    (NAMES.name, NAMES.name),
                    (BALANCER.name, BALANCER.name),
                    *([(HUB.name, HUB.name)] if self._settings.hub else []),
                ):
                    stage.note(name)
                    await self._wait_for(client, name, namespace)
        with progress.stage("make the first administrator", expected_seconds=2):
            await self._ensure_admin_token()

    async def settle_images(self, progress: Progress) -> None:
        """Have the hub run or not, with images where they are wanted. Raises what :meth:`HubContent.settle` does."""
        if not self._settings.hub:
            await self._hub.end()
        await self.content.settle(progress, platform=_url(self._settings))
        if self._settings.hub:
            with progress.stage("start the image hub", expected_seconds=3):
                await self._hub.start(platform=_url(self._settings))

    async def renew(self) -> None:
        """Renew the API's certificate if it is due; the running API takes it up from its mounted Secret.

        The Secret is written each time, so that a renewal that was ended half-way is finished by the next.
        """
        if not self.files.authority_key.exists():
            return
        async with self._lifecycle.client() as client:
            await client.apply(SECRETS, _tls_secret(self._certificate()))
        await self._hub.renew(self._authority.read(), platform=_url(self._settings))

    def certificates(self) -> list[Held]:
        """Return the platform's own certificates, as far as they are made."""
        files = self.files
        found = []
        if files.authority.exists():
            found.append(held("platform-ca.crt", files.authority.read_bytes(), authority=True))
        if files.certificate.exists():
            content = files.certificate.read_bytes()
            found.append(held("platform-api.pem", content, content))
        return [*found, *self._hub.certificates()]

    async def status(self) -> list[dict[str, Any]]:
        """Return the platform's services as rows for people; nothing where the management API does not answer."""
        try:
            async with self._lifecycle.client() as client:
                found = [
                    *await client.list(DEPLOYMENTS, NAMESPACE),
                    *await client.list(DEPLOYMENTS, WAKER_NAMESPACE),
                    *await client.list(DEPLOYMENTS, BACKUP_NAMESPACE),
                    *await client.list(DEPLOYMENTS, NAMES.name),
                    *await client.list(DEPLOYMENTS, BALANCER.name),
                    *await client.list(DEPLOYMENTS, HUB.name),
                ]
        except (HaneulError, FileNotFoundError):
            return []
        return [
            {
                "name": entry["metadata"]["name"],
                "kind": "platform service",
                "ready": entry.get("status", {}).get("readyReplicas", 0) >= 1,
                "detail": "",
            }
            for entry in found
        ]

    def _certificate(self) -> KeyPair:
        """Return the API's certificate: the kept one while it is good for this address, else a fresh one."""
        profile = LeafProfile(
            "haneul-api",
            dns_names=("localhost", "haneul"),
            addresses=("127.0.0.1", self._settings.address),
            server=True,
        )
        leaf, now = LeafFiles(self.files.certificate, self.files.certificate), self._clock.now()
        pair, _ = leaf.ensure(self._authority.ensure(now), profile, now=now, life=_CERTIFICATE_LIFE)
        return pair

    async def _wait_for(self, client: KubeClient, name: str, namespace: str) -> None:
        async def rolled_out() -> bool:
            seen = await client.get(DEPLOYMENTS, name, namespace)
            return seen is not None and is_rolled_out(seen)

        await wait_for(
            rolled_out,
            what=f"{name} to be ready",
            timeout=90,
            clock=self._clock,
            hint=f"look at the logs of the pods in the namespace {namespace}",
        )

    async def _ensure_admin_token(self) -> None:
        """Keep the administrator's token while it works; else have the API's own pod make another.

        The token comes through the exec connection's output: it is in no argument, environment or log.
        """
        if self.files.admin_token.exists() and await self._token_works(self.files.admin_token.read_text()):
            return
        made = await run(
            [
                str(self._store.program("kubectl")),
                f"--kubeconfig={self._settings.admin_kubeconfig}",
                "exec",
                f"--namespace={NAMESPACE}",
                "deployment/haneul-api",
                "--",
                "/usr/bin/python3",
                "-m",
                "haneul.app.main",
                "serve",
                "admin-token",
            ],
            timeout=60,
        )
        write_atomically(self.files.admin_token, made.stdout.strip() + "\n", mode=0o600)

    async def _token_works(self, token: str) -> bool:
        from haneul.cli.client import ApiClient  # noqa: PLC0415 - only here does the platform call its own API

        def ask() -> bool:
            server = f"https://{self._settings.address}:{API_PORT}"
            try:
                with ApiClient(server, authority=self.files.authority, token=token.strip()) as client:
                    client.get("/whoami")
            except HaneulError:
                return False
            return True

        return await asyncio.to_thread(ask)


def platform_manifests(
    *,
    settings: ManagementSettings,
    image: str,
    build: str,
    certificate: KeyPair,
    authority: str,
    balancer: str,
    names_key: str | None = None,
) -> list[Manifest]:
    """Return everything that the platform needs in the management cluster, in order.

    ``build`` names the image's contents, so that another build of the same version is rolled out. ``balancer`` is
    the file of the load balancer and its pools. ``names_key`` is the key of the DNS server's API; without it, its
    Secret is left as it is.
    """
    return [
        _namespace(),
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "haneul-masters", "labels": _LABELS},
            "value": 1000000,
            "description": "Tenants' masters come before their sandbox nodes.",
        },
        custom_resource_definition(),
        machine_resource_definition(),
        _keys_namespace(),
        approvals_definition(),
        *writer_policy(f"system:serviceaccount:{NAMESPACE}:haneul-api"),
        runtime_class(),
        *node_pod_policy(image_reference("node").rpartition(":")[0]),
        *account_with_rights("haneul-operator", NAMESPACE, _operator_rules(), _LABELS),
        *account_with_rights("haneul-api", NAMESPACE, _api_rules(), _LABELS),
        *_claims_rights(),
        *_keys_rights(),
        _event_reader(),
        _tls_secret(certificate),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "haneul-api", "namespace": NAMESPACE, "labels": _LABELS},
            "data": {reserved.FILE: reserved.dumped(reserved.reserved_ranges(settings))},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "platform-authority", "namespace": NAMESPACE, "labels": _LABELS},
            "data": {"ca.crt": authority},
        },
        *_waker_surroundings(),
        _waker(image, build),
        *_backup_surroundings(),
        _backup(settings, image, build),
        *_reader_surroundings(NAMES, host_port=settings.zones_api_port),
        *([] if names_key is None else [_names_key(names_key)]),
        _record_namespace(INGRESS),
        *host_rights(_LABELS),
        _names(settings, image, build, names_key),
        *_reader_surroundings(BALANCER, host_folders=True),
        *_address_use_rights(),
        _balancer_pools(balancer),
        _balancer(settings, image, f"{build}-{hashlib.sha256(balancer.encode()).hexdigest()[:12]}"),
        *([*_hub_surroundings(settings, authority), _hub_reporter(settings, image, build)] if settings.hub else []),
        _operator(settings, image, build),
        _api(settings, image, build),
    ]


def _tls_secret(certificate: KeyPair) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "haneul-api-tls", "namespace": NAMESPACE, "labels": _LABELS},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(certificate.certificate).decode(),
            "tls.key": base64.b64encode(certificate.key).decode(),
        },
    }


def _namespace() -> Manifest:
    # The jobs that delete tenants' data and the API's database need folders of the host.
    labels = {
        **_LABELS,
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/warn": "baseline",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _keys_namespace() -> Manifest:
    labels = {**_LABELS, "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KEYS_NAMESPACE, "labels": labels}}


def _operator_rules() -> list[Manifest]:
    """Return what the operator may do: with its own kinds everything, with clusters what a finalizer needs."""
    return [
        rule("dkos.haneul.dev", ["clusters", "clusters/status"], ["get", "list", "watch", "patch", "update"]),
        rule("dkos.haneul.dev", ["machines", "machines/status"], ["get", "list", "watch", "patch", "update"]),
        # Who may join, it only reads.
        rule("firewall.haneul.dev", ["firewallapprovals"], READ),
        rule("", ["namespaces", "services", "secrets", "configmaps", "persistentvolumes"], WRITE),
        rule("", ["persistentvolumeclaims"], WRITE),
        rule("", ["nodes"], READ),
        rule("", ["pods"], [*READ, "delete"]),
        rule("apps", ["deployments", "statefulsets"], WRITE),
        rule("batch", ["jobs"], WRITE),
        rule("networking.k8s.io", ["networkpolicies"], WRITE),
        rule("cilium.io", ["ciliumnetworkpolicies"], WRITE),
        rule("policy", ["poddisruptionbudgets"], WRITE),
        rule("discovery.k8s.io", ["endpointslices"], WRITE),
        rule("rbac.authorization.k8s.io", ["roles", "rolebindings"], WRITE),
        rule("rbac.authorization.k8s.io", ["roles"], ["bind"], names=["credential-signer"]),
        rule("apiextensions.k8s.io", ["customresourcedefinitions"], READ),
        # Writing what happened to clusters; reading it only to count. Who else reads it, in which project, it may say.
        rule("events.k8s.io", ["events"], ["get", "create", "patch"]),
        rule("rbac.authorization.k8s.io", ["clusterroles"], ["bind"], names=[READER]),
    ]


def _event_reader() -> Manifest:
    """Return the right to read events, which the operator gives the API in the namespaces of projects alone."""
    return cluster_role(READER, [rule("events.k8s.io", ["events"], ["list"])], _LABELS)


def _api_rules() -> list[Manifest]:
    """Return what the API may do; of secrets nothing, but what the operator grants it cluster by cluster."""
    return [
        rule("dkos.haneul.dev", ["clusters", "machines"], WRITE),
        rule("firewall.haneul.dev", ["firewallapprovals"], [*READ, "create", "delete"]),
        rule("", ["namespaces"], ["get", "create"]),
    ]


def _claims_rights() -> list[Manifest]:
    """Return the API's right to the one object in which creations claim their ranges."""
    rules = [
        rule("", ["configmaps"], ["create"]),
        rule("", ["configmaps"], ["get", "patch"], names=["cluster-claims"]),
    ]
    return rights_in_namespace("cluster-claims", NAMESPACE, rules, account("haneul-api", NAMESPACE), _LABELS)


def _address_use_rights() -> list[Manifest]:
    """Return the rights to the object that says what projects have: the balancer tells it, the API reads it."""
    named = [ADDRESS_USE]
    tells = [rule("", ["configmaps"], ["create"]), rule("", ["configmaps"], ["get", "patch"], names=named)]
    reads = [rule("", ["configmaps"], ["get"], names=named)]
    namespace = BALANCER.name
    return [
        *rights_in_namespace("address-use", namespace, tells, account(BALANCER.name, namespace), _LABELS),
        *rights_in_namespace("address-use-reader", namespace, reads, account("haneul-api", NAMESPACE), _LABELS),
    ]


def _keys_rights() -> list[Manifest]:
    """Return the API's rights where the keys to machines lie: it makes and deletes them, and never reads one."""
    rules = [
        rule("", ["secrets"], ["create", "delete"]),
        rule("", ["configmaps"], ["get", "create", "patch", "delete"]),
    ]
    return rights_in_namespace("machine-keys", KEYS_NAMESPACE, rules, account("haneul-api", NAMESPACE), _LABELS)


def _operator(settings: ManagementSettings, image: str, build: str) -> Manifest:
    # What machines get is what sandbox nodes run: the files of the node image.
    nodes = variants("node")
    container = {
        **_container(image, _operator_arguments(settings, image)),
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": 8080},
            "periodSeconds": 15,
            "failureThreshold": 6,
            "timeoutSeconds": 10,
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - for an instant it holds a key
            {"name": "cilium", "mountPath": "/opt/haneul/cilium", "readOnly": True},
            {"name": "authority", "mountPath": "/etc/haneul/authority", "readOnly": True},
            *(
                {"name": row.name.replace(".", "-"), "mountPath": f"/opt/haneul/nodes/{row.version}", "readOnly": True}
                for row in nodes
            ),
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "1Gi"}},
    }
    # In memory: what a client's key goes through never reaches a disk.
    scratch = {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}
    # Upstream's resource definitions, as the release brings them.
    cilium = {"name": "cilium", "image": {"reference": image_reference("cilium"), "pullPolicy": "IfNotPresent"}}
    authority = {"name": "authority", "configMap": {"name": "platform-authority"}}
    trees = [
        {
            "name": row.name.replace(".", "-"),
            "image": {"reference": image_reference(row.name), "pullPolicy": "IfNotPresent"},
        }
        for row in nodes
    ]
    return _deployment("haneul-operator", container, [scratch, cilium, authority, *trees], build)


def _operator_arguments(settings: ManagementSettings, image: str) -> list[str]:
    folders = [f"--clusters={settings.clusters}", f"--backups={settings.state}/backups", f"--platform-image={image}"]
    names = [f"--zone={settings.zone}", f"--dns-address={settings.address}", f"--ingress={settings.ingress}"]
    if settings.hub:
        names += [f"--hub={settings.hub_name}", f"--hub-address={settings.address}", f"--hub-port={settings.hub_port}"]
        names.append("--hub-authority=/etc/haneul/authority/ca.crt")
    return ["serve", "operator", f"--outside-address={settings.address}", *folders, *names, *_trust(settings)]


def _url(settings: ManagementSettings) -> str:
    return f"https://{settings.address}:{API_PORT}"


def _trust(settings: ManagementSettings) -> list[str]:
    if not settings.clusters_trust_issuer:
        return []
    return [f"--issuer={_url(settings)}/oidc", "--issuer-authority=/etc/haneul/authority/ca.crt"]


def _api_arguments(settings: ManagementSettings) -> list[str]:
    trust = ["--clusters-trust-issuer"] if settings.clusters_trust_issuer else []
    return ["serve", "api", f"--port={API_PORT}", f"--url={_url(settings)}", *trust]


def _api(settings: ManagementSettings, image: str, build: str) -> Manifest:
    container = {
        **_container(image, _api_arguments(settings)),
        "ports": [{"name": "https", "containerPort": API_PORT, "hostPort": API_PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": API_PORT, "scheme": "HTTPS"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": API_PORT, "scheme": "HTTPS"},
            "periodSeconds": 15,
            "failureThreshold": 6,
            "timeoutSeconds": 10,
        },
        "volumeMounts": [
            {"name": "tls", "mountPath": "/etc/haneul/tls", "readOnly": True},
            {"name": "settings", "mountPath": "/etc/haneul/settings", "readOnly": True},
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - SQLite sorts here
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
    }
    volumes = [
        {"name": "tls", "secret": {"secretName": "haneul-api-tls", "defaultMode": 0o440}},
        {"name": "settings", "configMap": {"name": "haneul-api"}},
        {"name": "data", "hostPath": {"path": f"{settings.state}/platform", "type": "Directory"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    # What the process reads once rolls it when it changes.
    ranges = hashlib.sha256(reserved.dumped(reserved.reserved_ranges(settings)).encode()).hexdigest()[:12]
    build = f"{build}-{ranges}"
    deployment = _deployment("haneul-api", container, volumes, build)
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": settings.host_name}
    return deployment


def _waker_surroundings() -> list[Manifest]:
    """Return the waker's own namespace, account and bounds: what it may is read and mark the records in there."""
    labels = {**_LABELS, "pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": WAKER_NAME, "namespace": WAKER_NAMESPACE, "labels": _LABELS}
    rules = [rule("", ["configmaps"], [*READ, "patch"])]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WAKER_NAMESPACE, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        *rights_in_namespace("sleepers", WAKER_NAMESPACE, rules, account(WAKER_NAME, WAKER_NAMESPACE), _LABELS),
        *waker_policies(_LABELS),
    ]


def _waker(image: str, build: str) -> Manifest:
    container = {
        **_container(image, ["serve", "waker", f"--alive-port={_ALIVE_PORT}"]),
        **_alive_probes(),
        "resources": {"requests": {"cpu": "5m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
    }
    deployment = _deployment(WAKER_NAME, container, [], build, namespace=WAKER_NAMESPACE)
    # What it holds is lost with it, so the next one stands before it goes; two at once disturb nobody.
    deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return deployment


def _backup_surroundings() -> list[Manifest]:
    """Return the backup worker's own namespace, account and bounds.

    It reads the records there, shows catalogues, and deletes both when a deleted cluster's time has come. The API
    reads the catalogues, and takes those of a deleted project away.
    """
    # The backups' folder, and in Jobs of restores one member's data, are folders of the host.
    labels = {
        **_LABELS,
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/warn": "baseline",
    }
    metadata = {"name": BACKUP_NAME, "namespace": BACKUP_NAMESPACE, "labels": _LABELS}
    worker = [
        rule("", ["secrets"], [*READ, "delete"]),
        rule("", ["configmaps"], WRITE),
    ]
    api = [rule("", ["configmaps"], [*READ, "delete"])]
    reader = account("haneul-api", NAMESPACE)
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BACKUP_NAMESPACE, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        *rights_in_namespace("records", BACKUP_NAMESPACE, worker, account(BACKUP_NAME, BACKUP_NAMESPACE), _LABELS),
        *rights_in_namespace("catalogues", BACKUP_NAMESPACE, api, reader, _LABELS),
        *backup_policies(_LABELS),
    ]


def _backup(settings: ManagementSettings, image: str, build: str) -> Manifest:
    container = {
        **_container(image, ["serve", "backup", f"--alive-port={_ALIVE_PORT}"]),
        **_alive_probes(),
        "volumeMounts": [
            {"name": "backups", "mountPath": "/backups"},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - for an instant it holds a key
        ],
        # Drills, of which there is one at a time, have an etcd of their own.
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "1536Mi"}},
    }
    volumes = [
        {"name": "backups", "hostPath": {"path": f"{settings.state}/backups", "type": "Directory"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "12Gi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    deployment = _deployment(BACKUP_NAME, container, volumes, build, namespace=BACKUP_NAMESPACE)
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": settings.host_name}
    return deployment


def _reader_surroundings(reader: Reader, *, host_port: int | None = None, host_folders: bool = False) -> list[Manifest]:
    """Return the own namespace, account and bounds of who works for clusters outside of them.

    It reads the records and what else lies there, writes down in a record why it does nothing more for its cluster, and
    deletes the record of one that is gone. Kubernetes has no level for pods that are restricted in all but
    ``host_folders``.
    """
    level = "privileged" if host_folders else "restricted"
    labels = {**_LABELS, "pod-security.kubernetes.io/enforce": level}
    if host_folders:
        labels["pod-security.kubernetes.io/warn"] = "baseline"
    metadata = {"name": reader.name, "namespace": reader.name, "labels": _LABELS}
    rules = [rule("", ["secrets"], [*READ, "patch", "delete"])]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": reader.name, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        *rights_in_namespace("records", reader.name, rules, account(reader.name, reader.name), _LABELS),
        *reader_policies(reader, _LABELS, host_port=host_port),
    ]


def _record_namespace(reader: Reader) -> Manifest:
    """Return the namespace of the records for a program of the host: no pod is ever there."""
    labels = {**_LABELS, "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": reader.name, "labels": labels}}


def _names_key(key: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "zones-api", "namespace": NAMES.name, "labels": _LABELS},
        "type": "Opaque",
        "data": {"key": base64.b64encode(key.encode()).decode()},
    }


def _names(settings: ManagementSettings, image: str, build: str, key: str | None) -> Manifest:
    zones = [f"--zone={zone}" for zone in settings.zones]
    server = f"--server=http://{settings.address}:{settings.zones_api_port}"
    container = {
        **_container(image, ["serve", "names", server, *zones, f"--alive-port={_ALIVE_PORT}"]),
        **_alive_probes(),
        "volumeMounts": [
            {"name": "key", "mountPath": "/etc/haneul/names", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - for an instant it holds a key
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }
    volumes = [
        {"name": "key", "secret": {"secretName": "zones-api", "defaultMode": 0o440}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    deployment = _deployment(NAMES.name, container, volumes, build, namespace=NAMES.name)
    if key is not None:
        # It reads the key when it starts; of one that is random and long, these letters tell that it is another.
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        deployment["spec"]["template"]["metadata"]["annotations"]["haneul.dev/zones-key"] = digest
    # The way to the API of the DNS server, which takes a key in the clear, does not leave its host.
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": settings.host_name}
    return deployment


def _balancer_pools(balancer: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "pools", "namespace": BALANCER.name, "labels": _LABELS},
        "data": {"balancer.yaml": balancer},
    }


def _balancer(settings: ManagementSettings, image: str, build: str) -> Manifest:
    container = {
        **_container(image, ["serve", "balancer", f"--alive-port={_ALIVE_PORT}"]),
        **_alive_probes(),
        "volumeMounts": [
            {"name": "pools", "mountPath": "/etc/haneul/balancer", "readOnly": True},
            # Read-only, as all that is done there is to open the socket.
            {"name": "keeper", "mountPath": "/run/balancer", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - for an instant it holds a key
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }
    folder = f"{settings.runtime}/balancer"
    volumes = [
        {"name": "pools", "configMap": {"name": "pools"}},
        {"name": "keeper", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    deployment = _deployment(BALANCER.name, container, volumes, build, namespace=BALANCER.name)
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": settings.host_name}
    return deployment


def _hub_surroundings(settings: ManagementSettings, authority: str) -> list[Manifest]:
    """Return what is around who tells the image hub of clusters; it writes in a folder of the host."""
    return [
        *_reader_surroundings(HUB, host_port=settings.hub_port, host_folders=True),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "hub-authority", "namespace": HUB.name, "labels": _LABELS},
            "data": {"ca.crt": authority},
        },
    ]


def _hub_reporter(settings: ManagementSettings, image: str, build: str) -> Manifest:
    server = f"--server=https://{settings.address}:{settings.hub_port}"
    arguments = ["serve", "hub-reporter", server, f"--audience={settings.hub_name}", f"--alive-port={_ALIVE_PORT}"]
    container = {
        **_container(image, arguments),
        **_alive_probes(),
        "volumeMounts": [
            {"name": "clusters", "mountPath": "/hub"},
            {"name": "authority", "mountPath": "/etc/haneul/hub", "readOnly": True},
            {"name": "token", "mountPath": "/etc/haneul/token", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - for an instant it holds a key
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }
    token = {"serviceAccountToken": {"path": "token", "audience": settings.hub_name, "expirationSeconds": 3600}}
    volumes = [
        {"name": "clusters", "hostPath": {"path": str(HubFiles(settings.state).clusters), "type": "Directory"}},
        {"name": "authority", "configMap": {"name": "hub-authority"}},
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    deployment = _deployment(HUB.name, container, volumes, build, namespace=HUB.name)
    pod = deployment["spec"]["template"]["spec"]
    # The hub and who writes what it reads are one user, and on one host.
    pod |= {"securityContext": hardened_pod(HUB_USER), "nodeSelector": {"kubernetes.io/hostname": settings.host_name}}
    return deployment


def _alive_probes() -> Manifest:
    """Return the probes of what only opens a port while it works."""
    return {
        "readinessProbe": {"tcpSocket": {"port": _ALIVE_PORT}, "periodSeconds": 2, "timeoutSeconds": 5},
        "livenessProbe": {
            "tcpSocket": {"port": _ALIVE_PORT},
            "periodSeconds": 15,
            "failureThreshold": 6,
            "timeoutSeconds": 10,
        },
    }


def _container(image: str, arguments: list[str]) -> Manifest:
    return {
        "name": "haneul",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "securityContext": hardened_container(),
    }


def _deployment(
    name: str, container: Manifest, volumes: list[Manifest], build: str, *, namespace: str = NAMESPACE
) -> Manifest:
    labels = {**_LABELS, "app.kubernetes.io/name": name}
    spec: dict[str, Any] = {
        "serviceAccountName": name,
        "containers": [container],
        "volumes": volumes,
        "enableServiceLinks": False,
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 10,
        "securityContext": hardened_pod(_USER),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            # Two operators, or two APIs on one host port, would be one too many.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": labels, "annotations": {"haneul.dev/build": build}},
                "spec": spec,
            },
        },
    }
