"""Section 5 of the benchmark: rights, pod security, network policies, secrets, namespaces. A table.

Most items ask whether something is needed, which only a person can say. What is known to be needed, Haneul's own parts
and Kubernetes' own, passes; everything else is named for a person to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from haneul.compliance import pods
from haneul.compliance.model import Item, Probe, Verdict
from haneul.compliance.probes import entries, failed, item, judged, named, passed, warned
from haneul.compliance.rights import Right, anybody, holders, own_roles, subject_name
from haneul.compliance.snapshot import Kind, Snapshot
from haneul.kernel.kube import Manifest

#: Whose rights come from us or from Kubernetes itself, beside accounts of kube-system and users named ``system:``.
_KNOWN: Final[Mapping[Kind, frozenset[str]]] = {
    "tenant": frozenset({"haneul:owners", "haneul:developers", "haneul:kubelet-clients", "haneul:cilium-operators"}),
    "management": frozenset({"haneul-system/haneul-operator", "haneul-system/haneul-api", "kubeadm:cluster-admins"}),
}
#: Namespaces in which no user's pod belongs.
_SYSTEM: Final = ("kube-system", "kube-public", "kube-node-lease")
_LOCAL_IMAGES: Final = "haneul.local/"

_REVIEW: Final = "take the right away from who does not need it"
_LEVEL: Final = "label the namespaces with pod-security.kubernetes.io/enforce"


def _known(snapshot: Snapshot, subject: str) -> bool:
    return subject in _KNOWN[snapshot.kind] or subject.startswith(("system:", "kube-system/"))


def _holders(what: str, *rights: Right) -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        found = holders(snapshot, rights)
        if broad := anybody(found):
            return failed(f"{named(broad)} may {what}")
        others = [name for name in found if not _known(snapshot, name)]
        if others:
            return warned(f"see whether {named(others)} must be able to {what}")
        own = [name for name in found if name in _KNOWN[snapshot.kind]]
        return passed(f"besides Kubernetes itself only {named(own)}" if own else "only Kubernetes itself")

    return Probe(f"roles and bindings of the whole cluster: who may {what}", judge)


def _administrators() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        found = {
            subject_name(subject)
            for binding in snapshot.all_of("clusterrolebindings")
            if binding["roleRef"]["name"] == "cluster-admin"
            for subject in binding.get("subjects") or []
        }
        if broad := anybody(found):
            return failed(f"{named(broad)} may do everything")
        others = [name for name in found if not _known(snapshot, name)]
        return warned(f"see whether {named(others)} must be able to do everything") if others else passed(named(found))

    return Probe("bindings to the role cluster-admin", judge)


def _wildcards() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        found = [
            role["metadata"]["name"]
            for role in own_roles(snapshot)
            if any("*" in (rule.get(field) or []) for rule in role.get("rules") or [] for field in _RULE_FIELDS)
        ]
        return warned(f"see whether {named(found)} must say '*'") if found else passed("no role of ours says '*'")

    return Probe("roles besides Kubernetes' own whose rules say '*'", judge)


_RULE_FIELDS: Final = ("apiGroups", "resources", "verbs")


def _bound_accounts(snapshot: Snapshot) -> set[str]:
    bindings = [*snapshot.all_of("clusterrolebindings"), *snapshot.all_of("rolebindings")]
    return {
        subject_name(subject)
        for binding in bindings
        for subject in binding.get("subjects") or []
        if subject["kind"] == "ServiceAccount"
    }


def _account(pod: Manifest) -> str:
    return f"{pod['metadata'].get('namespace', '')}/{pod['spec'].get('serviceAccountName') or 'default'}"


def _default_accounts() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        bound = [name for name in _bound_accounts(snapshot) if name.endswith("/default")]
        using = [
            pods.place(pod)
            for pod in snapshot.all_of("pods")
            if pods.mounts_token(pod) and _account(pod).endswith("/default")
        ]
        if bound:
            return failed(f"the default accounts {named(bound)} have rights")
        return warned(f"see whether {named(using)} need a token at all") if using else passed("no pod uses one")

    return Probe("pods with the token of an account named default, and bindings to such accounts", judge)


def _tokens() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        bound = _bound_accounts(snapshot)
        idle = [
            pods.place(pod) for pod in snapshot.all_of("pods") if pods.mounts_token(pod) and _account(pod) not in bound
        ]
        if idle:
            return warned(f"{named(idle)} have a token of an account without rights")
        return passed("every pod with a token has an account with rights")

    return Probe("pods that mount a token though nothing binds rights to their account", judge)


def _masters_group() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        bindings = [
            binding["metadata"]["name"]
            for binding in snapshot.all_of("clusterrolebindings")
            if binding["metadata"]["name"] != "cluster-admin"
            and any(subject["name"] == "system:masters" for subject in binding.get("subjects") or [])
        ]
        if bindings:
            return failed(f"{named(bindings)} rely on the group")
        if snapshot.kind == "tenant":
            return passed("nobody's certificate names it but the operator's, which ends within the hour")
        files = snapshot.files_of("credentials of the group system:masters")
        seen = named(file.path for file in files)
        return warned(f"see who has read, or copied, {seen}") if files else passed("no file names the group")

    return Probe("bindings to system:masters, and on hosts files with a certificate of the group", judge)


def _mechanism() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        for flags in snapshot.flags_of("kube-apiserver"):
            if "PodSecurity" in entries(flags.get("disable-admission-plugins")):
                return failed("the admission plugin PodSecurity is switched off")
        open_ones = [name for name, level in _levels(snapshot).items() if level is None and name not in _SYSTEM]
        if open_ones:
            return warned(f"no level is set for {named(open_ones)}: pods there may ask for anything")
        return passed("PodSecurity is on, and every namespace has a level")

    return Probe("the admission plugin PodSecurity, and the namespaces' labels", judge)


def _levels(snapshot: Snapshot) -> dict[str, str | None]:
    return {
        entry["metadata"]["name"]: (entry["metadata"].get("labels") or {}).get(pods.LEVEL_LABEL)
        for entry in snapshot.all_of("namespaces")
    }


def _admission(what: str, asks: pods.Asks, least: str) -> Probe:
    """Name pods that do something, and namespaces in which more could."""
    forbidding = pods.LEVELS[pods.LEVELS.index(least) :]

    def judge(snapshot: Snapshot) -> Verdict:
        doing = [pods.place(pod) for pod in snapshot.all_of("pods") if asks(pod)]
        levels = _levels(snapshot)
        free = [name for name, level in levels.items() if level not in forbidding]
        if doing:
            return warned(f"see whether these must {what}: {named(doing)}")
        if free:
            return warned(f"no pod does, but nothing forbids it in {named(free)}")
        return passed(f"every namespace is at least {least}")

    return Probe(f"pods that {what}, and namespaces whose pod security level is below {least}", judge)


def _network() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        network = snapshot.document("network")
        return judged(network == "cilium", f"the network is {network}")

    return Probe("the cluster's network", judge)


def _isolated() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        having = {policy["metadata"]["namespace"] for policy in snapshot.all_of("networkpolicies")}
        lacking = [name for name in _levels(snapshot) if name not in having]
        return warned(f"no policy stands in {named(lacking)}") if lacking else passed("every namespace has one")

    return Probe("namespaces without a NetworkPolicy", judge)


def _any_pod(how: str, asks: pods.Asks, said: Callable[[str], str], good: str) -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        found = [pods.place(pod) for pod in snapshot.all_of("pods") if asks(pod)]
        return warned(said(named(found))) if found else passed(good)

    return Probe(how, judge)


def _outside_store() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        providers = [name for entry in snapshot.document("encryption-providers") for name in entry]
        if "kms" in providers:
            return passed("a key service outside the cluster encrypts Secrets")
        return warned("decide whether a key that lies beside the cluster's data is enough for your secrets")

    return Probe("whether a key service outside encrypts Secrets", judge)


def _provenance() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        plugins = [name for flags in snapshot.flags_of("kube-apiserver") for name in _plugins(flags)]
        if "ImagePolicyWebhook" in plugins:
            return passed("ImagePolicyWebhook is on")
        foreign = [
            container["image"]
            for pod in snapshot.all_of("pods")
            for container in pods.containers(pod)
            if not container["image"].startswith(_LOCAL_IMAGES)
        ]
        if foreign or snapshot.kind == "tenant":
            return warned(f"nothing verifies where images come from; there are {named(foreign) or 'none yet'}")
        return passed("every image was built here, from pinned sources")

    return Probe("the admission plugin ImagePolicyWebhook, or that all images were built on this installation", judge)


def _plugins(flags: Mapping[str, str]) -> Sequence[str]:
    return entries(flags.get("enable-admission-plugins"))


def _boundaries() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        own = [name for name in _levels(snapshot) if name not in (*_SYSTEM, "default")]
        return passed(f"{len(own)} namespaces") if own else warned("there is none but Kubernetes' own: see to it")

    return Probe("namespaces besides Kubernetes' own", judge)


def _filtered() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        without = [pods.place(pod) for pod in snapshot.all_of("pods") if pods.unfiltered(pod)]
        if without:
            return warned(f"{named(without)} ask for no filter")
        if all(one.configuration.get("seccompDefault") for one in snapshot.all_kubelets()):
            return passed("the kubelets filter what asks for nothing")
        lacking = [pods.place(pod) for pod in snapshot.all_of("pods") if pods.without_filter(pod)]
        return warned(f"{named(lacking)} name no filter") if lacking else passed("every pod names a filter")

    return Probe("system call filters that pods name, and what the kubelets give the others", judge)


def _default_namespace() -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        things: Iterable[tuple[str, Any]] = (("pod", snapshot.all_of("pods")), ("service", snapshot.all_of("services")))
        found = [
            f"{kind} {entry['metadata']['name']}"
            for kind, all_of_kind in things
            for entry in all_of_kind
            if entry["metadata"].get("namespace") == "default" and entry["metadata"]["name"] != "kubernetes"
        ]
        return warned(f"move {named(found)} to a namespace of their own") if found else passed("nothing is in it")

    return Probe("pods and services in the namespace default", judge)


_RBAC: Final = "rbac.authorization.k8s.io"
_WRITES: Final = ("create", "update", "patch", "delete")

ITEMS: Final[tuple[Item, ...]] = (
    item("5.1.1", "Only who must may do everything", _administrators(), _REVIEW),
    item(
        "5.1.2",
        "Few may read Secrets",
        _holders("read Secrets", Right(("get", "list", "watch"), "", "secrets")),
        _REVIEW,
    ),
    item("5.1.3", "Roles say what they allow, not '*'", _wildcards(), "name groups, resources and verbs"),
    item("5.1.4", "Few may make pods", _holders("make pods", Right(("create",), "", "pods")), _REVIEW),
    item("5.1.5", "Default accounts are not used", _default_accounts(), "give the pods accounts of their own"),
    item("5.1.6", "Only pods that need a token have one", _tokens(), "set automountServiceAccountToken to false"),
    item("5.1.7", "The group that no role limits is not used", _masters_group(), "use rights that can be taken away"),
    item(
        "5.1.8",
        "Few may give themselves rights",
        _holders(
            "give themselves rights",
            Right(("bind", "escalate"), _RBAC, "clusterroles"),
            Right(("bind", "escalate"), _RBAC, "roles"),
            Right(("impersonate",), "", "users"),
            Right(("impersonate",), "", "groups"),
            Right(("impersonate",), "", "serviceaccounts"),
        ),
        _REVIEW,
    ),
    item(
        "5.1.9",
        "Few may make volumes of hosts' folders",
        _holders("make volumes", Right(("create",), "", "persistentvolumes")),
        _REVIEW,
    ),
    item(
        "5.1.10",
        "Few may speak to kubelets through the API server",
        _holders("reach kubelets", Right(("get", "create"), "", "nodes/proxy")),
        _REVIEW,
    ),
    item(
        "5.1.11",
        "Few may approve certificates",
        _holders(
            "approve certificates",
            Right(("update", "patch"), "certificates.k8s.io", "certificatesigningrequests/approval"),
        ),
        _REVIEW,
    ),
    item(
        "5.1.12",
        "Few may have every request sent elsewhere",
        _holders(
            "change webhooks",
            Right(_WRITES, "admissionregistration.k8s.io", "validatingwebhookconfigurations"),
            Right(_WRITES, "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
        ),
        _REVIEW,
    ),
    item(
        "5.1.13",
        "Few may make tokens of accounts",
        _holders("make tokens of accounts", Right(("create",), "", "serviceaccounts/token")),
        _REVIEW,
    ),
    item("5.2.1", "Something bounds what pods may ask for", _mechanism(), _LEVEL),
    item("5.2.2", "No container is privileged", _admission("be privileged", pods.privileged, "baseline"), _LEVEL),
    item(
        "5.2.3",
        "No pod shares its host's processes",
        _admission("share the host's processes", pods.asks_for("hostPID"), "baseline"),
        _LEVEL,
    ),
    item(
        "5.2.4",
        "No pod shares its host's memory between processes",
        _admission("share the host's memory between processes", pods.asks_for("hostIPC"), "baseline"),
        _LEVEL,
    ),
    item(
        "5.2.5",
        "No pod shares its host's network",
        _admission("share the host's network", pods.asks_for("hostNetwork"), "baseline"),
        _LEVEL,
    ),
    item(
        "5.2.6",
        "No process gets more rights than it started with",
        _admission("let processes get more rights", pods.escalates, "restricted"),
        _LEVEL,
    ),
    item(
        "5.2.7",
        "No container runs as root",
        _admission("be able to run as root", pods.may_be_root, "restricted"),
        _LEVEL,
    ),
    item(
        "5.2.8",
        "No container makes packets of its own",
        _admission("have NET_RAW", pods.may_forge_packets, "restricted"),
        _LEVEL,
    ),
    item(
        "5.2.9",
        "No container asks for capabilities",
        _admission("have capabilities that they ask for", pods.adds_capabilities, "restricted"),
        _LEVEL,
    ),
    item(
        "5.2.10",
        "Containers give up all capabilities",
        _admission("keep capabilities", pods.keeps_capabilities, "restricted"),
        _LEVEL,
    ),
    item(
        "5.2.11",
        "No container is a process of a Windows host",
        _admission("be processes of a Windows host", pods.windows_host, "baseline"),
        _LEVEL,
    ),
    item(
        "5.2.12",
        "No pod mounts its host's folders",
        _admission("mount folders of the host", pods.host_paths, "baseline"),
        _LEVEL,
    ),
    item(
        "5.2.13",
        "No pod takes ports of its host",
        _admission("take ports of the host", pods.host_ports, "baseline"),
        _LEVEL,
    ),
    item("5.3.1", "The network enforces policies", _network(), "make the cluster with '--network cilium'"),
    item("5.3.2", "Every namespace has a network policy", _isolated(), "make one that lets in what must come in"),
    item(
        "5.4.1",
        "Secrets are files, not variables",
        _any_pod(
            "pods with secrets in their environment",
            pods.secrets_in_environment,
            lambda names: f"{names} have secrets in their environment",
            "no pod has secrets in its environment",
        ),
        "mount the Secret as a file",
    ),
    item(
        "5.4.2", "It was weighed whether secrets belong elsewhere", _outside_store(), "use a store outside the cluster"
    ),
    item("5.5.1", "Images come from who is trusted", _provenance(), "have admission verify signatures"),
    item("5.6.1", "Namespaces set bounds", _boundaries(), "give each application a namespace"),
    item("5.6.2", "System calls of pods are filtered", _filtered(), "set seccompProfile to RuntimeDefault"),
    item(
        "5.6.3",
        "Pods say what they need to be allowed",
        _any_pod(
            "pods without a security context",
            pods.without_context,
            lambda names: f"{names} have none",
            "every pod has one",
        ),
        "give them a securityContext",
    ),
    item("5.6.4", "Nothing is in the namespace default", _default_namespace(), "give each application a namespace"),
)
