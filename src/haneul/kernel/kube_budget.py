"""How much of clusters' objects one program keeps in memory that follows many of them.

Whoever owns a cluster may fill its API with objects, which must not cost the others anything. So of each object only
what is of use is kept, lists are read in pages whose size is bounded, and what a cluster has is counted: by the number
of its objects and by their length as JSON. A cluster that is over its budget is not followed any further.

All clusters together have a bound too. As long as they are within it, each may have as much as the budget of one.
Beyond it projects have even shares, of which those that need less leave the rest to the others, and so have the
clusters of a project of its share. So many clusters of one project do no more than one, and a cluster of a project
within its share is never stopped for what others have. One beyond it is, at its next change or when it is next listed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import PODS, SECRETS, Manifest, Resource

#: Where an object is: its namespace and name.
Spot = tuple[str, str]
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_STATUSES: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


class OverBudgetError(HaneulError):
    """A cluster has more objects, or larger ones, than whoever follows many clusters keeps of one."""

    code = "over-budget"
    title = "The cluster has more than is followed"
    http_status = 507


@dataclass(frozen=True)
class Budget:
    """Bounds: ``objects`` and ``octets`` of one cluster's, ``shared`` octets of all; a page's objects and octets.

    Octets are of JSON; the same objects take some seven times as much in memory.
    """

    objects: int = 50_000
    octets: int = 24 << 20
    shared: int = 24 << 20
    page: int = 500
    page_octets: int = 4 << 20


class Ledger:
    """What all clusters have that one program follows, by their projects."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._accounts: set[Account] = set()
        #: How many octets the objects of all clusters have; kept, for it is asked with every object that comes.
        self.octets = 0

    def open(self, project: str, annotations: Sequence[str] = (), secret_keys: Collection[str] = ()) -> Account:
        """Return a new account, for a project's cluster.

        Annotations with other beginnings than these are not kept, nor are what Secrets have under other keys.
        """
        account = Account(self, project, tuple(annotations), frozenset(secret_keys))
        self._accounts.add(account)
        return account

    def close(self, account: Account) -> None:
        """Count an account no longer: nothing of its cluster is kept."""
        if account in self._accounts:
            self._accounts.remove(account)
            self.octets -= account.octets

    def add(self, account: Account, octets: int) -> None:
        """Count that one cluster has so many more, or fewer."""
        if account in self._accounts:
            self.octets += octets

    def share(self, project: str) -> int:
        """Return how many octets one cluster of a project may have now."""
        budget = self.budget
        if self.octets <= budget.shared:
            return budget.octets
        clusters: dict[str, list[int]] = defaultdict(list)
        for account in self._accounts:
            clusters[account.project].append(account.octets)
        share = even_share(budget.shared, (sum(theirs) for theirs in clusters.values()))
        if sum(clusters[project]) <= share:
            return budget.octets
        return min(budget.octets, even_share(share, clusters[project]))


class Account:
    """What one cluster has, list by list: of a kind all objects, or those that a selector chose."""

    def __init__(self, ledger: Ledger, project: str, annotations: tuple[str, ...], secret_keys: frozenset[str]) -> None:
        self.project = project
        self._ledger = ledger
        self._annotations = annotations
        self._secret_keys = secret_keys
        self._sizes: dict[str, dict[Spot, int]] = defaultdict(dict)
        self._octets: dict[str, int] = defaultdict(int)
        #: How many octets the cluster's objects have, in all lists.
        self.octets = 0

    @property
    def budget(self) -> Budget:
        """Return the bounds."""
        return self._ledger.budget

    def close(self) -> None:
        """Say that nothing of it is kept any more."""
        self._ledger.close(self)

    def begin(self, listed: str) -> dict[Spot, int]:
        """Count a list anew. Returns what was counted, for :meth:`resume`."""
        before = self._sizes[listed]
        self._sizes[listed] = {}
        self._count(listed, -self._octets[listed])
        return before

    def resume(self, listed: str, before: dict[Spot, int]) -> None:
        """Count again what was there before a list that broke off: it is still kept. Raises OverBudgetError."""
        sizes = self._sizes[listed] = {**before, **self._sizes[listed]}
        self._count(listed, sum(sizes.values()) - self._octets[listed])
        self._check()

    def keep(self, listed: str, resource: Resource, manifest: Manifest) -> Manifest:
        """Return what is kept of an object as it is now, and count it. Raises OverBudgetError."""
        kept = trimmed(resource, manifest, self._annotations, self._secret_keys)
        spot, size = spot_of(kept), len(json.dumps(kept, separators=(",", ":"), ensure_ascii=False))
        self.drop(listed, spot)
        self._sizes[listed][spot] = size
        self._count(listed, size)
        self._check()
        return kept

    def drop(self, listed: str, spot: Spot) -> None:
        """Count an object no longer."""
        self._count(listed, -self._sizes[listed].pop(spot, 0))

    def too_large(self, listed: str) -> OverBudgetError:
        """Return the error that one object alone is larger than any answer that is read."""
        return OverBudgetError(f"one of its {listed} has more than {self.budget.page_octets >> 10} KiB", hint=_HINT)

    def _count(self, listed: str, octets: int) -> None:
        self._octets[listed] += octets
        self.octets += octets
        self._ledger.add(self, octets)

    def _check(self) -> None:
        count = sum(len(sizes) for sizes in self._sizes.values())
        if count > self.budget.objects:
            raise OverBudgetError(f"it has more than {self.budget.objects} objects: {self._most()}", hint=_HINT)
        if self.octets > (share := self._ledger.share(self.project)):
            raise OverBudgetError(f"its objects have more than {share >> 10} KiB in all: {self._most()}", hint=_HINT)

    def _most(self) -> str:
        ranked = sorted(self._octets.items(), key=lambda entry: -entry[1])
        return ", ".join(
            f"{len(self._sizes[listed])} {listed} with {octets >> 10} KiB" for listed, octets in ranked[:3]
        )


def even_share(total: int, needs: Iterable[int]) -> int:
    """Return the largest share of which all together have at most ``total``, where nobody takes more than it needs.

    Who needs more than that needs more than an even part; without anybody who does, the share is all there is.
    """
    ordered, left = sorted(needs), total
    for number, need in enumerate(ordered):
        part = left // (len(ordered) - number)
        if need > part:
            return part
        left -= need
    return total


def trimmed(
    resource: Resource,
    manifest: Manifest,
    annotations: tuple[str, ...],
    secret_keys: frozenset[str] = frozenset(),
) -> Manifest:
    """Return an object without what nobody reads who follows it: who set which field, and others' annotations.

    Of a pod, which has most of all, its containers' images and its addresses are left; of a Secret, which may be a
    release of Helm's of a mebibyte, what is asked for.
    """
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    found = metadata.pop("annotations", None) or {}
    if kept := {name: value for name, value in found.items() if annotations and name.startswith(annotations)}:
        metadata["annotations"] = kept
    if resource == PODS:
        manifest = {**manifest, "spec": _pod_spec(manifest), "status": _pod_status(manifest)}
    if resource == SECRETS:
        data = {name: value for name, value in (manifest.get("data") or {}).items() if name in secret_keys}
        manifest = {**manifest, "data": data}
    return {**manifest, "metadata": metadata}


def _pod_spec(pod: Manifest) -> Manifest:
    spec = pod.get("spec") or {}
    kept = {name: [{"image": one.get("image")} for one in spec.get(name) or []] for name in _CONTAINERS}
    volumes = [{"image": volume["image"]} for volume in spec.get("volumes") or [] if volume.get("image")]
    return {**{name: ones for name, ones in kept.items() if ones}, **({"volumes": volumes} if volumes else {})}


def _pod_status(pod: Manifest) -> Manifest:
    status = pod.get("status") or {}
    kept = {name: [{"imageID": one.get("imageID")} for one in status.get(name) or []] for name in _STATUSES}
    return {
        **{name: ones for name, ones in kept.items() if ones},
        **{name: status[name] for name in ("phase", "podIP", "podIPs") if name in status},
    }


def spot_of(manifest: Manifest) -> Spot:
    """Return where an object is among those of its kind."""
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def over_budget(error: BaseException) -> OverBudgetError | None:
    """Return the error of this kind that another one is or has in it, if there is one."""
    if isinstance(error, OverBudgetError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := over_budget(one))), None)
    return None


_HINT: Final = "delete objects that are not needed, or move some to another cluster; it is looked at again by itself"
