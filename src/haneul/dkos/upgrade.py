"""How a cluster comes to another version of Kubernetes: which part is made from which version next. Pure.

What each part was made from last stands on its workload; so far it has come, and from there it goes on:

========================================================  ===========================================================
what is seen                                              what is made next
========================================================  ===========================================================
there is no API server yet                                everything from what is asked for
Kubernetes forbids to go from its version to the asked    everything as it is
the API server is of another version than the others      first those, even if meanwhile a third is asked for
all masters are of one version, and not of the asked one  the API server
it is made from the asked version, not all of it runs     nothing yet
it runs, another master is of another version             controller manager and scheduler
they are made from the asked version, not all runs        nothing yet
all masters run the asked version                         the nodes, from the version that is asked for them
========================================================  ===========================================================

So no kubelet is ever newer than the API server, no controller newer than it, and what did not come up stops the rest.
etcd is not part of it: one release serves all minors that are built. Nodes go back and forth as far as Kubernetes
allows; masters never go back. Neighbours: :mod:`haneul.dkos.masters` reads and makes, :mod:`haneul.dkos.node_changes`
brings the nodes along one by one, :mod:`haneul.dkos.states` says how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from haneul.dkos.model import ClusterSpec
from haneul.dkos.releases import way_of_masters, way_of_nodes


@dataclass(frozen=True)
class Part:
    """A part of the masters: the version that it was made from last, none if never, and whether just that runs."""

    version: str = ""
    runs: bool = False


@dataclass(frozen=True)
class Versions:
    """The version that each part is to be made from now."""

    api: str
    controllers: str
    nodes: str


@dataclass(frozen=True)
class Recorded:
    """What was made last. ``controllers`` are controller manager and scheduler, which go together."""

    api: Part = Part()
    controllers: Part = Part()
    nodes: str = ""

    @property
    def versions(self) -> Versions:
        """Return what everything stays made from; a part that was not made yet follows the one before it."""
        controllers = self.controllers.version or self.api.version
        return Versions(self.api.version, controllers, self.nodes or controllers)


class Stage(StrEnum):
    """How far the masters are."""

    #: All masters are of the asked version; nodes are told to be of theirs.
    DONE = "done"
    API = "api"
    CONTROLLERS = "controllers"
    #: All masters are made from the asked version, and the nodes wait until they run.
    STARTING = "starting"
    #: What is asked for cannot be: everything stays as it is.
    REFUSED = "refused"


@dataclass(frozen=True)
class Verdict:
    """Where the masters stand on their way to ``asked``; ``why`` not, if they cannot go there."""

    stage: Stage = Stage.DONE
    asked: str = ""
    before: str = ""
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What to make, and what there is to say of it."""

    versions: Versions
    verdict: Verdict = field(default_factory=Verdict)


def next_versions(spec: ClusterSpec, made: Recorded) -> Plan:
    """Return what every part is to be made from now."""
    asked, before = spec.version, made.api.version
    whole = Plan(Versions(asked, asked, spec.nodes_version), Verdict(asked=asked))
    if not before:
        return whole
    kept = made.versions
    why = way_of_masters(before, asked) or way_of_nodes(asked, kept.nodes) or way_of_nodes(asked, spec.nodes_version)
    if why:
        return Plan(kept, Verdict(Stage.REFUSED, asked, before, why))
    if before != asked:
        if kept.controllers == before:
            return Plan(replace(kept, api=asked), Verdict(Stage.API, asked, before))
        # Another version was asked for in the middle: no two minors may be between the masters, so first things first.
        return next_versions(spec.model_copy(update={"version": before, "node_version": kept.nodes}), made)
    return _after_api(made, kept, whole)


def _after_api(made: Recorded, kept: Versions, whole: Plan) -> Plan:
    """Go on when the API server is made from the asked version; ``whole`` is what comes in the end."""
    asked = kept.api
    if kept.controllers != asked:
        if made.api.runs:
            return Plan(replace(kept, controllers=asked), Verdict(Stage.CONTROLLERS, asked, kept.controllers))
        return Plan(kept, Verdict(Stage.API, asked, kept.controllers))
    run = made.api.runs and made.controllers.runs
    if made.controllers.version and kept.nodes != whole.versions.nodes and not run:
        return Plan(kept, Verdict(Stage.STARTING, asked, kept.nodes))
    return whole
