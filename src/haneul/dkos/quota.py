"""What a project may have, and what its clusters count for: values and decisions. Pure.

Counted is what is asked for, not what is used: a cluster by itself, its nodes, the cores and memory of its nodes, and
a fixed amount for its masters, so that no count can lag behind. A cluster counts until it is gone. One that sleeps
counts by itself alone, with its name and addresses; waking is growth, which is admitted like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.model import Cluster, ClusterSpec, NodeProviderName, Phase
from haneul.kernel.errors import QuotaExceededError

#: What each of a cluster's masters counts for; a test holds it to be no less than what their pods reserve.
MASTERS_MILLICORES: Final = 100
MASTERS_MEMORY_MIB: Final = 512

_NAMED_IN_HINT: Final = 3


@dataclass(frozen=True)
class Amounts:
    """How much of each thing: of a cluster, of a project, or at most. Cores are thousandths, so that sums are exact."""

    clusters: int = 0
    nodes: int = 0
    millicores: int = 0
    memory_mib: int = 0
    addresses: int = 0
    listeners: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(mine + theirs for mine, theirs in zip(_numbers(self), _numbers(other), strict=True)))

    def larger(self, other: Amounts) -> Amounts:
        """Return of each thing the larger amount."""
        return Amounts(*(max(pair) for pair in zip(_numbers(self), _numbers(other), strict=True)))

    def grows_to(self, other: Amounts) -> bool:
        """Say whether ``other`` has more of anything."""
        return any(theirs > mine for mine, theirs in zip(_numbers(self), _numbers(other), strict=True))


class QuotaLimits(BaseModel):
    """What an administrator allows; what is left out is inherited from the platform, and there from the program."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    clusters: int | None = Field(default=None, ge=0, le=100_000, description="Clusters.")
    nodes: int | None = Field(default=None, ge=0, le=1_000_000, description="Nodes of all clusters.")
    cpu: float | None = Field(default=None, ge=0, le=10_000_000, description="Cores of nodes and masters.")
    memory_mib: int | None = Field(default=None, ge=0, le=1 << 40, description="Memory of nodes and masters, in MiB.")
    addresses: int | None = Field(default=None, ge=0, le=1_000_000, description="Addresses of load balancers.")
    listeners: int | None = Field(default=None, ge=0, le=1_000_000, description="Ports of these addresses.")

    def over(self, inherited: QuotaLimits) -> QuotaLimits:
        """Return these limits, with the inherited ones where there is none."""
        return inherited.model_copy(update=self.model_dump(exclude_none=True))


#: Limits of a project for which nobody set any.
BUILT_IN: Final = QuotaLimits(clusters=20, nodes=100, cpu=200, memory_mib=400 * 1024, addresses=20, listeners=200)


class Quotas(BaseModel):
    """All limits that were set: the platform's, and those of single projects."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: QuotaLimits = QuotaLimits()
    projects: dict[str, QuotaLimits] = {}

    def of(self, project: str) -> Amounts:
        """Return what a project may have at most."""
        limits = self.own(project).over(self.platform.over(BUILT_IN))
        return Amounts(
            limits.clusters or 0,
            limits.nodes or 0,
            round((limits.cpu or 0) * 1000),
            limits.memory_mib or 0,
            limits.addresses or 0,
            limits.listeners or 0,
        )

    def own(self, project: str) -> QuotaLimits:
        """Return the limits that were set for just this project."""
        return self.projects.get(project, QuotaLimits())

    def with_limits(self, project: str | None, limits: QuotaLimits) -> Quotas:
        """Return the quotas with other limits for a project, or for the platform where none is named."""
        if project is None:
            return self.model_copy(update={"platform": limits})
        kept = {name: own for name, own in self.projects.items() if name != project}
        return self.model_copy(update={"projects": kept if limits == QuotaLimits() else {**kept, project: limits}})


def needs(spec: ClusterSpec) -> Amounts:
    """Return what a cluster of this spec counts for while it is awake.

    Its addresses and listeners are counted by whoever gives them out. Machines that the project brought
    itself count as nodes; their cores and memory are nobody else's to limit.
    """
    given = [pool for pool in spec.node_pools if pool.provider is not NodeProviderName.SSH]
    return Amounts(
        clusters=1,
        nodes=spec.node_count,
        millicores=MASTERS_MILLICORES * spec.masters + sum(round(pool.cpu * 1000) * pool.count for pool in given),
        memory_mib=MASTERS_MEMORY_MIB * spec.masters + sum(pool.memory_mib * pool.count for pool in given),
    )


def counts_for(cluster: Cluster, spec: ClusterSpec | None = None) -> Amounts:
    """Return what a cluster counts for as it is, or would with another spec.

    It sleeps for the quota from when nothing of it runs any more until somebody's word to wake it is written down. A
    status that was not written for just this spec says nothing: it may be of before the cluster was woken and put to
    sleep again.
    """
    wanted, status = spec or cluster.spec, cluster.status
    sleeps = status.phase is Phase.ASLEEP and status.observed_generation == cluster.generation
    return Amounts(clusters=1) if sleeps and wanted.hibernation.asleep else needs(wanted)


def used_by_clusters(project: str, clusters: Iterable[Cluster]) -> dict[str, Amounts]:
    """Return what each of a project's clusters counts for, by name.

    A cluster may come several times: as it is, and as it is about to become. It counts for the larger of each thing,
    whichever of them will have been.
    """
    used: dict[str, Amounts] = {}
    for cluster in clusters:
        if cluster.project == project:
            used[cluster.name] = used.get(cluster.name, Amounts()).larger(counts_for(cluster))
    return used


def total(amounts: Iterable[Amounts]) -> Amounts:
    """Return the sum."""
    result = Amounts()
    for entry in amounts:
        result = result + entry
    return result


def admit_growth(
    project: str, name: str, before: Amounts, after: Amounts, *, clusters: Iterable[Cluster], limits: Amounts
) -> None:
    """Raise QuotaExceededError if cluster ``name`` may not grow from ``before`` (nothing, for a new one) to ``after``.

    ``clusters`` are those of the platform, this one included or not, and what is about to become of them. What does
    not grow is never refused, even when the project has more than it may: a limit that was lowered only stops growth.
    """
    others = {other: amounts for other, amounts in used_by_clusters(project, clusters).items() if other != name}
    used = total(others.values()) + before
    said, raised, scarce = [], [], ""
    for kind in _KINDS:
        asked = kind.of(after) - kind.of(before)
        if asked > 0 and kind.of(used) + asked > kind.of(limits):
            said.append(
                f"{kind.words}: {kind.shown(kind.of(used))} used of {kind.shown(kind.of(limits))}, "
                f"{kind.shown(asked)} more asked for"
            )
            raised.append(f"{kind.option} {kind.shown(kind.of(used) + asked)}")
            scarce = scarce or kind.field
    if said:
        hint = _most_of(scarce, {**others, name: before})
        raise QuotaExceededError(
            f"{project} would have more than its quota; {'; '.join(said)}",
            hint=f"{hint}a platform administrator raises it: 'haneul project quota set {project} {' '.join(raised)}'",
        )


@dataclass(frozen=True)
class _Kind:
    """One counted thing: its field in :class:`Amounts`, its words for people, and the option that limits it."""

    field: str
    words: str
    option: str
    per_unit: int = 1

    def of(self, amounts: Amounts) -> int:
        return int(getattr(amounts, self.field))

    def shown(self, amount: int) -> str:
        return f"{amount / self.per_unit:g}" if self.per_unit > 1 else str(amount)


_KINDS: Final = (
    _Kind("clusters", "clusters", "--clusters"),
    _Kind("nodes", "nodes", "--nodes"),
    _Kind("millicores", "cores", "--cpu", 1000),
    _Kind("memory_mib", "MiB of memory", "--memory"),
    _Kind("addresses", "addresses", "--addresses"),
    _Kind("listeners", "listeners", "--listeners"),
)


def _most_of(field: str, clusters: Mapping[str, Amounts]) -> str:
    """Return in words which clusters have most of what is scarce, to say where some could be freed."""
    kind = next(kind for kind in _KINDS if kind.field == field)
    ranked = sorted(clusters.items(), key=lambda entry: (-kind.of(entry[1]), entry[0]))
    most = [(name, kind.of(amounts)) for name, amounts in ranked if kind.of(amounts) > 0][:_NAMED_IN_HINT]
    if not most:
        return ""
    if field == "clusters":
        return "delete a cluster that is not needed, or "
    return f"most {kind.words} have {', '.join(f'{name} ({kind.shown(amount)})' for name, amount in most)}; "


def _numbers(amounts: Amounts) -> list[int]:
    return [getattr(amounts, entry.name) for entry in fields(amounts)]
