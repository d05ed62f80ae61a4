"""Section 4 of the benchmark: files of nodes, kubelets, kube-proxy. A table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from haneul.compliance.model import Item, Probe, Verdict
from haneul.compliance.probes import (
    absent,
    ciphers_judged,
    failed,
    field_of,
    file_modes,
    file_owners,
    item,
    judged,
    kubelet,
    named,
    passed,
    shown,
    warned,
    worst,
)
from haneul.compliance.snapshot import Snapshot

_UP: Final = "made by 'haneul up'; run it again"
_NODES: Final = "rendered by the platform: bring it up to date with 'haneul up', and let the node be replaced"
_NO_UNIT: Final = "nodes of clusters run their kubelet under runit, from a script in the node's read-only image"
_NO_PROXY: Final = "the management cluster has no kube-proxy: Cilium does its work"


def _on_node(path: str, wanted: str) -> Probe:
    """A node's own files are seen on the node alone."""

    def judge(snapshot: Snapshot) -> Verdict:
        nodes = named(one.node for one in snapshot.all_kubelets())
        return warned(f"look on each node ({nodes}): 'stat -c \"%a %U:%G\" {path}' should say {wanted}")

    return Probe("nobody outside a node sees its files: a person looks on the node", judge)


def _proxy_on_node(wanted: str) -> Probe:
    seen = _on_node("/var/lib/kubelet/kubeconfig", wanted)

    def judge(snapshot: Snapshot) -> Verdict:
        if snapshot.document("network") != "native":
            return absent("the cluster has no kube-proxy: Cilium does its work")
        return seen.judge(snapshot)

    return Probe(f"kube-proxy uses the kubelet's own credential; {seen.how}", judge)


def _authority(good: Callable[[int], bool]) -> Probe:
    """Nodes that are pods have their authorities' file from a Secret."""

    def judge(snapshot: Snapshot) -> Verdict:
        modes = {
            pod["metadata"]["name"]: volume["secret"].get("defaultMode", 0o644)
            for pod in snapshot.all_of("machines")
            for volume in pod["spec"].get("volumes", [])
            if volume["name"] == "bootstrap" and "secret" in volume
        }
        bad = [f"{name} ({mode:o})" for name, mode in modes.items() if not good(mode)]
        if bad:
            return failed(named(bad))
        others = [one.node for one in snapshot.all_kubelets() if not any(name.startswith(one.node) for name in modes)]
        if others:
            path = "/opt/haneul/node/bootstrap/ca.crt"
            return warned(f"look on the machines of {named(others)}: 'stat -c \"%a %U:%G\" {path}'")
        return passed(f"mounted from Secrets with modes {named(f'{mode:o}' for mode in modes.values())}")

    return Probe("the mode of the Secret with the authorities that node pods mount", judge)


def _kubelet_flag(name: str, good: Callable[[str | None], bool]) -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        kubelets = snapshot.all_kubelets()
        bad = [f"{one.node} ({shown(one.flags, name)})" for one in kubelets if not good(one.flags.get(name))]
        return failed(named(bad)) if bad else passed(shown(kubelets[0].flags, name))

    return Probe(f"the flag --{name} that each kubelet is started with", judge)


def _serving_certificate() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        bad = [
            one.node
            for one in snapshot.all_kubelets()
            if not field_of(one, "serverTLSBootstrap")
            and not (field_of(one, "tlsCertFile") and field_of(one, "tlsPrivateKeyFile"))
        ]
        if bad:
            return failed(f"{named(bad)}: the kubelet signs its own serving certificate")
        return passed("serving certificates are given, or asked for of the cluster's authority")

    return Probe("serverTLSBootstrap, or tlsCertFile and tlsPrivateKeyFile, of every kubelet", judge)


def _kubelet_ciphers() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        return worst(
            ciphers_judged(field_of(one, "tlsMinVersion") or "", field_of(one, "tlsCipherSuites") or [])
            for one in snapshot.all_kubelets()
        )

    return Probe("tlsCipherSuites and tlsMinVersion of every kubelet", judge)


def _address_filter() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        unit = snapshot.document("kubelet-unit")
        if unit is None:
            return absent("the kubelet is no unit of systemd, which alone knows such a filter")
        return judged("IPAddressDeny=any" in unit, "IPAddressDeny=any in the unit: " + str("IPAddressDeny=any" in unit))

    return Probe("IPAddressDeny in the kubelet's systemd unit", judge)


def _proxy_metrics() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        if snapshot.document("network") != "native":
            return absent("the cluster has no kube-proxy: Cilium does its work")
        address = str(snapshot.document("kube-proxy").get("metricsBindAddress") or "127.0.0.1:10249")
        return judged(address.startswith("127.0.0.1"), f"metrics at {address}")

    return Probe("metricsBindAddress in kube-proxy's configuration", judge)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _not_for_ever(value: Any) -> bool:
    return value not in ("0", "0s", 0)


ITEMS: Final[tuple[Item, ...]] = (
    item(
        "4.1.1",
        "Only root may read the kubelet's service definition",
        file_modes("kubelet's service definition", 0o600),
        _UP,
        tenant=_NO_UNIT,
    ),
    item(
        "4.1.2",
        "The kubelet's service definition belongs to root",
        file_owners("kubelet's service definition"),
        _UP,
        tenant=_NO_UNIT,
    ),
    item(
        "4.1.3",
        "Only root may read kube-proxy's credential",
        _proxy_on_node("600"),
        "chmod 600 the file",
        management=_NO_PROXY,
    ),
    item(
        "4.1.4",
        "kube-proxy's credential belongs to root",
        _proxy_on_node("root:root"),
        "chown root:root the file",
        management=_NO_PROXY,
    ),
    item(
        "4.1.5",
        "Only root may read the kubelet's credential",
        file_modes("kubelet's credential", 0o600),
        "chmod 600 the file",
        tenant=_on_node("/var/lib/kubelet/kubeconfig", "600"),
    ),
    item(
        "4.1.6",
        "The kubelet's credential belongs to root",
        file_owners("kubelet's credential"),
        "chown root:root the file",
        tenant=_on_node("/var/lib/kubelet/kubeconfig", "root:root"),
    ),
    item(
        "4.1.7",
        "Nobody but root may change whom the kubelet trusts",
        file_modes("authorities that the kubelet trusts", 0o644),
        "chmod 644 the file",
        tenant=_authority(lambda mode: not mode & ~0o644),
    ),
    item(
        "4.1.8",
        "The file of whom the kubelet trusts belongs to root",
        file_owners("authorities that the kubelet trusts"),
        "chown root:root the file",
        # A pod's files from Secrets are root's; with a mode for root alone nobody else has a part in them.
        tenant=_authority(lambda mode: not mode & 0o077),
    ),
    item(
        "4.1.9",
        "Only root may read the kubelet's configuration",
        file_modes("kubelet's configuration", 0o600),
        _UP,
        tenant=_on_node("/run/haneul/kubelet.yaml", "600"),
    ),
    item(
        "4.1.10",
        "The kubelet's configuration belongs to root",
        file_owners("kubelet's configuration"),
        _UP,
        tenant=_on_node("/run/haneul/kubelet.yaml", "root:root"),
    ),
    item(
        "4.2.1",
        "The kubelet tells nothing to who is not known",
        kubelet("authentication.anonymous.enabled", lambda value: value is False),
        _NODES,
    ),
    item(
        "4.2.2",
        "The kubelet asks the API server who may do what",
        kubelet("authorization.mode", lambda value: value not in (None, "AlwaysAllow")),
        _NODES,
    ),
    item("4.2.3", "The kubelet verifies its clients", kubelet("authentication.x509.clientCAFile", bool), _NODES),
    item(
        "4.2.4",
        "The kubelet has no port without authentication",
        kubelet("readOnlyPort", lambda value: not value),
        _NODES,
    ),
    item(
        "4.2.5",
        "Idle streams end",
        kubelet("streamingConnectionIdleTimeout", _not_for_ever),
        "leave it at its default, or name a time",
    ),
    item(
        "4.2.6",
        "The kubelet keeps its own packet chains in order",
        kubelet("makeIPTablesUtilChains", lambda value: value in (None, True)),
        "leave it at its default",
    ),
    item(
        "4.2.7",
        "Nodes are named after their hosts",
        _kubelet_flag("hostname-override", lambda value: value is None),
        "leave the flag out",
    ),
    item(
        "4.2.8",
        "Events of a kubelet are limited, and not off",
        kubelet("eventRecordQPS", lambda value: value is None or _positive(value)),
        "leave it at its default, or name a rate",
    ),
    item(
        "4.2.9",
        "The kubelet's serving certificate comes from an authority",
        _serving_certificate(),
        "let the cluster's authority sign it",
    ),
    item(
        "4.2.10",
        "The kubelet renews its client certificate",
        kubelet("rotateCertificates", lambda value: value is True),
        _NODES,
    ),
    item(
        "4.2.11",
        "The kubelet may renew its serving certificate",
        kubelet("featureGates", lambda gates: (gates or {}).get("RotateKubeletServerCertificate") is not False),
        "leave the feature on",
    ),
    item("4.2.12", "The kubelet speaks strong ciphers only", _kubelet_ciphers(), _NODES),
    item("4.2.13", "No pod may take all process ids of its node", kubelet("podPidsLimit", _positive), _NODES),
    item(
        "4.2.14",
        "Pods run under the runtime's system call filter unless they ask for another",
        kubelet("seccompDefault", lambda value: value is True),
        _NODES,
    ),
    item(
        "4.2.15",
        "Only named addresses reach the kubelet",
        _address_filter(),
        "filter the kubelet's port in the network",
        tenant="nodes run their kubelet under runit, which filters no addresses; of node pods, the management "
        "cluster's network policies let only the cluster's own parts in",
    ),
    item(
        "4.3.1",
        "kube-proxy shows its figures to its own host only",
        _proxy_metrics(),
        "leave metricsBindAddress at its default",
        management=_NO_PROXY,
    ),
)
