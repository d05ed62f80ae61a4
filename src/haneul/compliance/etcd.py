"""Section 2 of the benchmark: etcd. A table."""

from __future__ import annotations

from typing import Final

from haneul.compliance.model import Item, Probe, Verdict
from haneul.compliance.probes import flag, flag_is, flags_set, item, judged
from haneul.compliance.snapshot import Snapshot

_ETCD: Final = "etcd"
_RENDERED: Final = "rendered by the platform: bring it up to date with 'haneul up'"


def _own_authority() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        digests = snapshot.document("authorities")
        same = digests["etcd"] == digests["cluster"]
        seen = "one authority signs for both" if same else "etcd's authority is another than the cluster's"
        return judged(not same, seen)

    return Probe("the certificates of etcd's authority and of the cluster's", judge)


ITEMS: Final[tuple[Item, ...]] = (
    item("2.1", "etcd serves TLS with a given certificate", flags_set(_ETCD, "cert-file", "key-file"), _RENDERED),
    item("2.2", "etcd asks its clients for certificates", flag_is(_ETCD, "client-cert-auth", "true"), _RENDERED),
    item(
        "2.3",
        "etcd makes itself no certificate for clients",
        flag(_ETCD, "auto-tls", lambda value: value in (None, "false")),
        _RENDERED,
    ),
    item(
        "2.4",
        "etcd's members speak TLS with given certificates",
        flags_set(_ETCD, "peer-cert-file", "peer-key-file"),
        _RENDERED,
    ),
    item(
        "2.5",
        "etcd's members ask each other for certificates",
        flag_is(_ETCD, "peer-client-cert-auth", "true"),
        _RENDERED,
    ),
    item(
        "2.6",
        "etcd makes itself no certificate for members",
        flag(_ETCD, "peer-auto-tls", lambda value: value in (None, "false")),
        _RENDERED,
    ),
    item("2.7", "etcd has an authority of its own", _own_authority(), _RENDERED),
)
