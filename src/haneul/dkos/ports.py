"""What DKOS needs of others, each as small as its use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from starlette.requests import Request

from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.model import Cluster, ClusterSpec, NodePool
from haneul.dkos.quota import Amounts
from haneul.kernel.kube import KubeClient


@dataclass(frozen=True)
class NodeAnnouncement:
    """A node that a pool wants: its name and pool, its files, and the credential to ask for a certificate with.

    ``authority`` are the certificates that the node trusts; a change of them reaches the running machine's file. Only
    a change of ``era``, the number of the authorities that sign for the node, makes it ask for certificates anew:
    a machine of another era is replaced. So is one of another ``version`` of Kubernetes.
    """

    name: str
    pool: NodePool
    files: dict[str, str]
    bootstrap_kubeconfig: bytes = field(repr=False)
    authority: bytes
    version: str
    era: int = 0


@dataclass(frozen=True)
class ProvidedNode:
    """A machine as its provider sees it.

    ``instance`` changes whenever the machine is replaced by a new one of the same name; ``address`` and ``started``
    are known once it runs. ``revision`` names what it is made from, or is being made from: a machine that is being
    replaced has its successor's, and does not run.
    """

    name: str
    instance: str
    address: str = ""
    running: bool = False
    started: datetime | None = None
    message: str = ""
    revision: str = ""
    #: The number of the authorities that it was made for.
    era: int = 0


class NodeProvider(Protocol):
    """Where a pool's nodes come from. Every method may be repeated; none waits for long."""

    def revision(self, cluster: Cluster, node: NodeAnnouncement) -> str:
        """Return the revision that :meth:`ensure` would give the machine; another one than it has means replacing it.

        Asked at every look, so a provider works it out once for the same announcement.
        """
        ...

    async def ensure(self, cluster: Cluster, node: NodeAnnouncement) -> None:
        """Make the machine be there with these files, replacing it if it was made from other ones."""
        ...

    async def observe(self, cluster: Cluster) -> list[ProvidedNode]:
        """Return the machines of a cluster."""
        ...

    async def remove(self, cluster: Cluster, name: str) -> None:
        """Make the machine not be there."""
        ...


class SpecWriter(Protocol):
    """Writes what is wanted of a cluster, within its project's quota."""

    async def replace_spec(self, cluster: Cluster, spec: ClusterSpec) -> Cluster:
        """Change the spec of exactly this state of the cluster.

        Raises ConflictError if it changed meanwhile, QuotaExceededError if it grows beyond the project's quota.
        """
        ...


@dataclass(frozen=True)
class GatedNode:
    """A node as the join gate needs it: where it is, and whether pods may run on it already.

    Without a pool it is on its way out.
    """

    name: str
    pool: NodePool | None
    address: str
    joined: bool = False


class JoinGate(Protocol):
    """Bars nodes whose pools name external resources until a person has let each of them in. Never lets by default."""

    async def look(self, cluster: Cluster, nodes: Sequence[GatedNode]) -> Mapping[str, str]:
        """Return what bars each gated node, in words and by name; nothing for one that may join.

        ``nodes`` are all of the cluster's gated nodes and those that leave. When this returns, the firewall lets
        through those that may join, and nothing of the cluster's but them and those that have joined and are to leave.
        """
        ...

    async def bars(self, cluster: Cluster, node: GatedNode) -> str:
        """Return what bars one node at this moment; asked right before its certificate is signed."""
        ...

    async def leave(self, cluster: Cluster) -> None:
        """Let the firewall forget a cluster that is gone."""
        ...


class Examiner(Protocol):
    """Examines clusters against rules of its own, and keeps what it found where the platform's API reads it."""

    async def examine(self, cluster: Cluster, nodes: Mapping[str, NodeAnnouncement], tenant: KubeClient | None) -> None:
        """Examine a cluster; ``tenant`` is its own API, if that answers. Takes half a minute at most; raises nothing.

        What could not be found out, or kept, is the examiner's to tell: it holds nothing else up.
        """
        ...


class Caller(Protocol):
    """Who is behind a request."""

    @property
    def person(self) -> str:
        """Return the person's name."""
        ...


class ClusterTokens(Protocol):
    """Makes tokens that clusters' API servers trust, where they trust the platform's issuer."""

    async def issue(self, person: str, role: str, cluster: Cluster) -> tuple[str, datetime]:
        """Return a short-lived token for a person in a role, and when it ends."""
        ...


class Access(Protocol):
    """Who may do what with a project's clusters; every method raises for whom it does not let through."""

    async def caller(self, request: Request) -> Caller:
        """Return who is behind the request."""
        ...

    async def look(self, caller: Caller, project: str) -> str:
        """Let through who may see the project; return their role's name."""
        ...

    async def own(self, caller: Caller, project: str) -> str:
        """Let through who may decide over the project's clusters as a whole; return their role's name."""
        ...

    async def change(self, caller: Caller, project: str) -> str:
        """Let through who may change the project's clusters; return their role's name."""
        ...

    def administer(self, caller: Caller) -> None:
        """Let through who administers the platform."""
        ...

    def recording(
        self, request: Request, caller: Caller, action: str, target: str, project: str
    ) -> AbstractAsyncContextManager[None]:
        """Record a change: that it is asked for, before the block is entered, and at its end how it went."""
        ...

    def now(self) -> datetime:
        """Return the moment."""
        ...


class PoolAskers(Protocol):
    """Keeps who asked for which gated pool, so that nobody lets in what they asked for themselves."""

    async def note(self, caller: Caller, project: str, cluster: str, pools: Sequence[NodePool]) -> None:
        """Write down, before it is done, that the caller asks for these pools as they are here."""
        ...


class AddressUse(Protocol):
    """What a project has of the load balancers; whoever gives it out knows, and holds to the limits."""

    async def of(self, project: str) -> Amounts:
        """Return its addresses and listeners, and nothing else."""
        ...


class BackupCatalogues(Protocol):
    """What is known of the backups of all clusters, also of deleted ones."""

    async def of(self, uid: str) -> Catalogue | None:
        """Return a cluster's."""
        ...

    async def of_project(self, project: str) -> Sequence[Catalogue]:
        """Return all of a project."""
        ...

    async def withdraw(self, project: str) -> None:
        """Let the backups of a project's deleted clusters end now: it is gone, and its name may be another's."""
        ...
