"""Section 1 of the benchmark: the masters' files, API server, controller manager, scheduler. A table."""

from __future__ import annotations

from typing import Any, Final

from haneul.compliance.model import Item, Probe, Verdict
from haneul.compliance.probes import (
    entries,
    failed,
    file_modes,
    file_owners,
    flag,
    flag_is,
    flag_lacks,
    flag_lists,
    flags_set,
    item,
    judged,
    named,
    passed,
    strong_ciphers,
    worst,
)
from haneul.compliance.snapshot import Snapshot
from haneul.kernel.kube_manifests import HEALTH_PATHS, JOIN_PATH

_API: Final = "kube-apiserver"
_MANAGER: Final = "kube-controller-manager"
_SCHEDULER: Final = "kube-scheduler"

_PODS: Final = "the masters are pods of the management cluster: no host has a file of their specification"
_ELSEWHERE: Final = "it is a file of the management cluster's hosts, where 'haneul check platform' looks at it"
_NO_ADMIN: Final = (
    "no file has such a credential: people and the operator get certificates or tokens that end within the hour"
)
_MOUNTED_OWNER: Final = "it is mounted from a Secret: the kubelet makes it root's, and nobody can choose another owner"
_MANIFEST: Final = "made by 'haneul up'; run it again, or give the file back to root with mode 600"


def _files() -> tuple[Item, ...]:
    manifests = (
        ("the API server", "the API server's manifest"),
        ("the controller manager", "the controller manager's manifest"),
        ("the scheduler", "the scheduler's manifest"),
        ("etcd", "etcd's manifest"),
    )
    found = []
    for place, (name, what) in enumerate(manifests):
        modes = (f"1.1.{2 * place + 1}", f"Only root may read or write the static pod manifest of {name}")
        owner = (f"1.1.{2 * place + 2}", f"The static pod manifest of {name} belongs to root")
        found.append(item(*modes, file_modes(what, 0o600), _MANIFEST, tenant=_PODS))
        found.append(item(*owner, file_owners(what), _MANIFEST, tenant=_PODS))
    return tuple(found)


def _mounted(program: str, *names: str) -> Probe:
    """Ask that the Secrets of a program are mounted so that nobody but its own user and group reads them."""

    def judge(snapshot: Snapshot) -> Verdict:
        pods = [pod for pod in snapshot.all_of("masters") if program in ("", _role(pod))]
        modes = {
            f"{_role(pod)}/{volume['name']}": volume["secret"].get("defaultMode", 0o644)
            for pod in pods
            for volume in pod["spec"].get("volumes", [])
            if "secret" in volume
        }
        open_ones = [f"{name} ({mode:o})" for name, mode in modes.items() if mode & 0o007]
        if open_ones or not modes:
            return failed(named(open_ones) or "no Secret is mounted")
        return passed(f"mounted from Secrets with modes {named(f'{mode:o}' for mode in modes.values())}")

    return Probe("modes of the Secrets that the masters' pods mount: nothing for others", judge)


def _role(pod: Any) -> str:
    labels = pod["metadata"].get("labels", {})
    return str(labels.get("dkos.haneul.dev/role") or labels.get("component", ""))


def _anonymous() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        allowed = {*HEALTH_PATHS, *([JOIN_PATH] if snapshot.kind == "management" else [])}

        def one(flags: Any) -> Verdict:
            if "authentication-config" not in flags:
                value = flags.get("anonymous-auth", "not set, which is true")
                return judged(value == "false", f"--anonymous-auth is {value}")
            anonymous = (snapshot.document("authentication") or {}).get("anonymous")
            if anonymous is None:
                return failed("the authentication configuration says nothing of anonymous requests")
            if not anonymous.get("enabled"):
                return passed("anonymous requests are refused")
            paths = [entry["path"] for entry in anonymous.get("conditions") or []]
            return judged(bool(paths) and set(paths) <= allowed, f"anonymous requests reach {named(paths) or 'all'}")

        return worst(one(flags) for flags in snapshot.flags_of(_API))

    return Probe(
        "--anonymous-auth of kube-apiserver, or its authentication configuration: health checks at most, and of the "
        "management cluster what joining hosts read first",
        judge,
    )


def _providers() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        first = [entry[0] for entry in snapshot.document("encryption-providers") if entry]
        strong = {"aescbc", "aesgcm", "kms", "secretbox"}
        return judged(bool(first) and set(first) <= strong, f"what writes: {named(first) or 'nothing'}")

    return Probe("the first provider of each entry in the encryption configuration", judge)


def _at_least(value: str | None, least: int) -> bool:
    return value is not None and value.isdecimal() and int(value) >= least


def _timeout(value: str | None) -> bool:
    """Unset is a minute; nothing may last for ever."""
    seconds = {"h": 3600, "m": 60, "s": 1}
    total, number = 0, ""
    for letter in value or "1m":
        if letter in seconds:
            total, number = total + int(number or 0) * seconds[letter], ""
        else:
            number += letter
    return 0 < total <= 300


def _scheduler_profiling() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        def one(flags: Any) -> Verdict:
            if "config" not in flags:
                return judged(flags.get("profiling") == "false", f"--profiling={flags.get('profiling', 'not set')}")
            configured = (snapshot.document("scheduler") or {}).get("enableProfiling", True)
            return judged(configured is False, f"enableProfiling: {str(configured).lower()}")

        return worst(one(flags) for flags in snapshot.flags_of(_SCHEDULER))

    return Probe("--profiling of kube-scheduler, or enableProfiling in its configuration", judge)


_PLUGINS: Final = "enable-admission-plugins"
_OFF: Final = "disable-admission-plugins"
_RENDERED: Final = "rendered by the platform: bring it up to date with 'haneul up'"

ITEMS: Final[tuple[Item, ...]] = (
    *_files(),
    item(
        "1.1.9",
        "Only root may read the network plugins' configuration",
        file_modes("network plugins' files", 0o600),
        "chmod 600 the named files",
        tenant=_ELSEWHERE,
    ),
    item(
        "1.1.10",
        "The network plugins' configuration belongs to root",
        file_owners("network plugins' files"),
        "chown root:root the named files",
        tenant=_ELSEWHERE,
    ),
    item(
        "1.1.11",
        "Nobody but etcd gets into the folders of etcd's data",
        file_modes("etcd's folders", 0o700),
        "chmod 700 the named folders",
        tenant=_ELSEWHERE,
    ),
    item(
        "1.1.12",
        "The folders of etcd's data belong to a user of etcd's own",
        file_owners("etcd's folders", "etcd", "etcd"),
        "run etcd as a user of its own",
        tenant=_ELSEWHERE,
    ),
    item(
        "1.1.13",
        "Only root may read the administrator's credentials",
        file_modes("administrator's credentials", 0o600),
        "chmod 600 the named files",
        tenant=_NO_ADMIN,
    ),
    item(
        "1.1.14",
        "The administrator's credentials belong to root",
        file_owners("administrator's credentials"),
        "chown root:root the named files",
        tenant=_NO_ADMIN,
    ),
    item(
        "1.1.15",
        "Nobody else may read the scheduler's credential",
        file_modes("scheduler's credential", 0o600),
        "chmod 600 the named file",
        tenant=_mounted(_SCHEDULER),
    ),
    item(
        "1.1.16",
        "The scheduler's credential belongs to root",
        file_owners("scheduler's credential"),
        "chown root:root the named file",
        tenant=_MOUNTED_OWNER,
    ),
    item(
        "1.1.17",
        "Nobody else may read the controller manager's credential",
        file_modes("controller manager's credential", 0o600),
        "chmod 600 the named file",
        tenant=_mounted(_MANAGER),
    ),
    item(
        "1.1.18",
        "The controller manager's credential belongs to root",
        file_owners("controller manager's credential"),
        "chown root:root the named file",
        tenant=_MOUNTED_OWNER,
    ),
    item(
        "1.1.19",
        "The folder of certificates and keys belongs to root",
        file_owners("certificates and keys"),
        "chown root:root the named files",
        tenant=_MOUNTED_OWNER,
    ),
    item(
        "1.1.20",
        "Nobody but root may change certificates",
        file_modes("certificates", 0o644),
        "chmod 644 the named files",
        tenant=_mounted(""),
    ),
    item(
        "1.1.21",
        "Nobody else may read keys",
        file_modes("keys", 0o600),
        "chmod 600 the named files",
        tenant=_mounted(""),
    ),
    item("1.2.1", "The API server tells nothing to who is not known", _anonymous(), _RENDERED),
    item(
        "1.2.2",
        "No file of fixed tokens opens the API server",
        flag(_API, "token-auth-file", lambda value: value is None),
        "use tokens that end",
    ),
    item(
        "1.2.3",
        "No Service may claim addresses outside the cluster for itself",
        flag_lists(_API, _PLUGINS, "DenyServiceExternalIPs"),
        _RENDERED,
    ),
    item(
        "1.2.4",
        "The API server shows kubelets a client certificate",
        flags_set(_API, "kubelet-client-certificate", "kubelet-client-key"),
        _RENDERED,
    ),
    item(
        "1.2.5",
        "The API server verifies kubelets' certificates",
        flags_set(_API, "kubelet-certificate-authority"),
        "let the cluster's authority sign the kubelets' serving certificates, and name it",
    ),
    item(
        "1.2.6",
        "Not everything is allowed to everybody",
        flag(_API, "authorization-mode", lambda value: bool(value) and "AlwaysAllow" not in entries(value)),
        _RENDERED,
    ),
    item("1.2.7", "Kubelets reach what is theirs only", flag_lists(_API, "authorization-mode", "Node"), _RENDERED),
    item("1.2.8", "Rights come from roles", flag_lists(_API, "authorization-mode", "RBAC"), _RENDERED),
    item(
        "1.2.9",
        "Nobody can flood the API server with events",
        flag_lists(_API, _PLUGINS, "EventRateLimit"),
        _RENDERED,
    ),
    item("1.2.10", "Admission is not switched off", flag_lacks(_API, _PLUGINS, "AlwaysAdmit"), _RENDERED),
    item(
        "1.2.11",
        "Images are pulled anew for each pod, with the pod's own credentials",
        flag_lists(_API, _PLUGINS, "AlwaysPullImages"),
        "keep whose images are secret from each other in clusters of their own",
    ),
    item("1.2.12", "Pods get accounts by rule", flag_lacks(_API, _OFF, "ServiceAccount"), _RENDERED),
    item("1.2.13", "Nothing is made in namespaces that end", flag_lacks(_API, _OFF, "NamespaceLifecycle"), _RENDERED),
    item("1.2.14", "A kubelet changes its own objects only", flag_lists(_API, _PLUGINS, "NodeRestriction"), _RENDERED),
    item("1.2.15", "The API server offers no profiles", flag_is(_API, "profiling", "false"), _RENDERED),
    item("1.2.16", "The API server writes an audit log", flags_set(_API, "audit-log-path"), _RENDERED),
    item(
        "1.2.17",
        "Audit files are kept for thirty days",
        flag(_API, "audit-log-maxage", lambda value: _at_least(value, 30)),
        "set auditLogDays to 30 or more in the cluster's settings",
    ),
    item(
        "1.2.18",
        "Ten older audit files are kept",
        flag(_API, "audit-log-maxbackup", lambda value: _at_least(value, 10)),
        _RENDERED,
    ),
    item(
        "1.2.19",
        "An audit file may grow to a hundred megabytes",
        flag(_API, "audit-log-maxsize", lambda value: _at_least(value, 100)),
        "give the audit log more room",
    ),
    item(
        "1.2.20",
        "Requests end within a sensible time",
        flag(_API, "request-timeout", _timeout),
        "set it to five minutes at most",
    ),
    item(
        "1.2.21",
        "Tokens of accounts that are gone are refused",
        flag(_API, "service-account-lookup", lambda value: value in (None, "true")),
        _RENDERED,
    ),
    item(
        "1.2.22",
        "Accounts' tokens are verified by a key of their own",
        flags_set(_API, "service-account-key-file"),
        _RENDERED,
    ),
    item(
        "1.2.23", "The API server shows etcd a certificate", flags_set(_API, "etcd-certfile", "etcd-keyfile"), _RENDERED
    ),
    item(
        "1.2.24",
        "The API server serves TLS with a given certificate",
        flags_set(_API, "tls-cert-file", "tls-private-key-file"),
        _RENDERED,
    ),
    item("1.2.25", "Client certificates are verified", flags_set(_API, "client-ca-file"), _RENDERED),
    item("1.2.26", "The API server verifies etcd's certificate", flags_set(_API, "etcd-cafile"), _RENDERED),
    item(
        "1.2.27", "Secrets are encrypted before etcd has them", flags_set(_API, "encryption-provider-config"), _RENDERED
    ),
    item("1.2.28", "Secrets are encrypted well", _providers(), _RENDERED),
    item("1.2.29", "The API server speaks strong ciphers only", strong_ciphers(_API), _RENDERED),
    item(
        "1.2.30",
        "Pods' tokens live no longer than they say",
        flag_is(_API, "service-account-extend-token-expiration", "false"),
        "switch the extension off once every program reads its token anew",
    ),
    item(
        "1.3.1",
        "Pods that have ended are cleared away in time",
        flag(_MANAGER, "terminated-pod-gc-threshold", lambda value: _at_least(value, 1)),
        _RENDERED,
    ),
    item("1.3.2", "The controller manager offers no profiles", flag_is(_MANAGER, "profiling", "false"), _RENDERED),
    item(
        "1.3.3",
        "Each controller has an account of its own",
        flag_is(_MANAGER, "use-service-account-credentials", "true"),
        _RENDERED,
    ),
    item(
        "1.3.4",
        "Accounts' tokens are signed with a given key",
        flags_set(_MANAGER, "service-account-private-key-file"),
        _RENDERED,
    ),
    item("1.3.5", "Pods can verify the API server", flags_set(_MANAGER, "root-ca-file"), _RENDERED),
    item(
        "1.3.6",
        "Kubelets' serving certificates may rotate",
        flag_lacks(_MANAGER, "feature-gates", "RotateKubeletServerCertificate=false"),
        "leave the feature on",
    ),
    item(
        "1.3.7",
        "The controller manager listens to its own host only",
        flag_is(_MANAGER, "bind-address", "127.0.0.1"),
        _RENDERED,
    ),
    item("1.4.1", "The scheduler offers no profiles", _scheduler_profiling(), _RENDERED),
    item(
        "1.4.2",
        "The scheduler listens to its own host only",
        flag_is(_SCHEDULER, "bind-address", "127.0.0.1"),
        _RENDERED,
    ),
)
