"""Section 3 of the benchmark: who signs in how, and what is written down. A table."""

from __future__ import annotations

from typing import Final

from haneul.compliance.audit_policy import LEVELS, AuditedRequest, level
from haneul.compliance.model import Item, Probe, Verdict
from haneul.compliance.probes import failed, flags_set, item, judged, named, passed, warned
from haneul.compliance.snapshot import Snapshot

_CORE: Final = ""
#: What must be seen in the log: its verb, group and resource.
_WATCHED: Final = (
    AuditedRequest("get", _CORE, "secrets"),
    AuditedRequest("get", _CORE, "configmaps"),
    AuditedRequest("create", "authentication.k8s.io", "tokenreviews"),
    AuditedRequest("create", _CORE, "pods"),
    AuditedRequest("delete", _CORE, "pods"),
    AuditedRequest("patch", "apps", "deployments"),
    AuditedRequest("create", _CORE, "pods/exec"),
    AuditedRequest("create", _CORE, "pods/portforward"),
    AuditedRequest("get", _CORE, "pods/proxy"),
    AuditedRequest("get", _CORE, "services/proxy"),
)
#: Of these nothing may be written but who asked for what: their contents are secret.
_BODILESS: Final = ("secrets", "configmaps", "tokenreviews")


def _people_by_certificate() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        issuers = [entry["issuer"]["url"] for entry in (snapshot.document("authentication") or {}).get("jwt") or []]
        return judged(bool(issuers), f"issuers of people's tokens: {named(issuers) or 'none'}")

    return Probe("whether the API server trusts an issuer of people's tokens", judge)


def _administrators_certificate() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        files = snapshot.files_of("administrator's credentials")
        if not files:
            return passed("no file has a client certificate of an administrator")
        return warned(f"see who has read, or copied, {named(seen.path for seen in files)}")

    return Probe("files with a client certificate of an administrator", judge)


def _people_by_account() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        kept = [f"{entry['metadata']['namespace']}/{entry['metadata']['name']}" for entry in snapshot.all_of("tokens")]
        if kept:
            return warned(f"see who uses the tokens without end in the Secrets {named(kept)}")
        return passed("no Secret has an account's token without end")

    return Probe("Secrets of the type kubernetes.io/service-account-token", judge)


def _people_by_bootstrap() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        tokens = snapshot.all_of("bootstrap-tokens")
        endless = [entry["metadata"]["name"] for entry in tokens if not entry["expiration"]]
        groups = {name for entry in tokens for name in entry["groups"].split(",") if name}
        foreign = [name for name in groups if not name.startswith("system:bootstrappers:")]
        if endless or foreign:
            return warned(f"see who uses {named([*endless, *foreign])}")
        return passed(f"{len(tokens)} bootstrap tokens, all for nodes and all of them end")

    return Probe("Secrets of the type bootstrap.kubernetes.io/token: their groups, and whether they end", judge)


def _policy_covers() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        policy = snapshot.document("audit-policy")
        bad = []
        for request in _WATCHED:
            found = level(policy, request)
            bodies = request.resource in _BODILESS and LEVELS.index(found) > LEVELS.index("Metadata")
            if found == "None" or bodies:
                bad.append(f"{request.verb} {request.resource} ({found})")
        return failed(named(bad)) if bad else passed(f"all {len(_WATCHED)} kinds of requests are written down")

    return Probe("what the audit policy does with ten kinds of requests", judge)


ITEMS: Final[tuple[Item, ...]] = (
    item(
        "3.1.1",
        "People sign in otherwise than by client certificates",
        _people_by_certificate(),
        "let clusters trust the platform's issuer",
        management=_administrators_certificate(),
    ),
    item(
        "3.1.2",
        "People do not sign in with tokens of service accounts",
        _people_by_account(),
        "delete the Secrets, and give people members' rights or robots' tokens",
    ),
    item(
        "3.1.3",
        "People do not sign in with bootstrap tokens",
        _people_by_bootstrap(),
        "delete the Secrets; the platform makes one for each node and takes it away again",
    ),
    item(
        "3.2.1",
        "There is an audit policy",
        flags_set("kube-apiserver", "audit-policy-file"),
        "rendered by the platform: bring it up to date with 'haneul up'",
    ),
    item(
        "3.2.2",
        "The audit policy covers what matters, and writes no secrets down",
        _policy_covers(),
        "rendered by the platform: bring it up to date with 'haneul up'",
    ),
)
