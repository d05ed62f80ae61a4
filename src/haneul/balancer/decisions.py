"""What one cluster's Services get: their frontends, and what each is told. Pure.

A Service that is wrong in one thing never takes another along. One whose settings are wrong, but that is balanced
already, stays balanced as it was set before, with the members that it has now.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from haneul.balancer.allocation import Refusal, Request, allocate
from haneul.balancer.annotations import Asked, asked
from haneul.balancer.members import Behind, Ground, Targets, behind
from haneul.balancer.model import (
    Abilities,
    Frontend,
    Frontends,
    Listener,
    Options,
    Part,
    Pool,
    Protocol,
    ProxyProtocol,
    Slot,
    canonical,
    is_port,
)
from haneul.balancer.room import QUOTA, Limits, Room, Wish, use_of_others, without_room
from haneul.kernel.kube import SERVICES, Manifest
from haneul.kernel.kube_objects import Place, place_of, service_of

BALANCED, NO_MEMBERS = "Balanced", "NoMembers"
WRONG_SETTING, NOT_SUPPORTED, REFUSED = "WrongSetting", "NotSupported", "ListenerRefused"
NOT_ACKNOWLEDGED: Final = "NotAcknowledged"
_LOAD_BALANCER: Final = "LoadBalancer"
_MOST_NAMED: Final = 3


@dataclass(frozen=True)
class Site:
    """What holds for a whole cluster: the pools of its project, what its members may be, what its balancer can do.

    ``load_balancer_class`` is whose Services are served; without one, those that name none. ``limits`` are the
    project's.
    """

    pools: tuple[Pool, ...]
    ground: Ground
    abilities: Abilities = field(default_factory=Abilities)
    load_balancer_class: str = ""
    defaults: Options = field(default_factory=Options)
    limits: Limits | None = None


@dataclass(frozen=True)
class Verdict:
    """What a Service is told. ``address`` is where it is balanced, empty if nowhere; ``errors`` are by its ports.

    ``balanced`` is whether all is as the Service asks; ``reason`` a word for programs, ``message`` for people.
    """

    balanced: bool
    reason: str
    message: str
    address: str = ""
    ports: tuple[Slot, ...] = ()
    errors: tuple[tuple[Slot, str], ...] = ()
    proxied: bool = False


@dataclass(frozen=True)
class Decision:
    """All frontends of a cluster, and what each of its Services of type LoadBalancer is told."""

    frontends: Mapping[Listener, Frontend]
    verdicts: Mapping[Place, Verdict]


@dataclass(frozen=True)
class View:
    """The objects of a cluster at one moment."""

    services: Sequence[Manifest] = ()
    slices: Sequence[Manifest] = ()
    nodes: Sequence[Manifest] = ()


@dataclass(frozen=True)
class _Candidate:
    """A Service that is to be balanced, before it has an address.

    ``unable`` are ports that the balancer cannot serve, ``over`` those for which the project has no room.
    """

    place: Place
    manifest: Manifest
    asked: Asked
    ports: tuple[tuple[Slot, Manifest], ...]
    unable: tuple[tuple[Slot, str], ...]
    served: tuple[Frontend, ...]
    over: tuple[Slot, ...] = ()


def is_ours(service: Manifest, site: Site) -> bool:
    """Say whether a Service is for this balancer to serve, now."""
    spec = service["spec"]
    return bool(
        spec.get("type") == _LOAD_BALANCER
        and (spec.get("loadBalancerClass") or "") == site.load_balancer_class
        and not service["metadata"].get("deletionTimestamp")
    )


def decide(view: View, present: Frontends, owner: str, site: Site, part: Part = Part.ALONE) -> Decision:
    """Decide on all Services at once: one's address depends on the others'."""
    served: dict[str, list[Frontend]] = defaultdict(list)
    for there in present.values():
        if there.owner == owner:
            served[there.frontend.service].append(there.frontend)
    candidates = [
        _candidate(service, served.get(str(place_of(SERVICES, service)), ()), site)
        for service in view.services
        if is_ours(service, site)
    ]
    foreign = {listener.address for listener, there in present.items() if there.owner != owner}
    able = [candidate for candidate in candidates if candidate.ports and (candidate.served or _is_right(candidate))]
    addresses_room, listeners_room = _rooms(site, present, owner, part)
    found = allocate([_request(candidate) for candidate in able], site.pools, foreign, part, addresses_room)
    refusals = {service: one for service, one in found.items() if isinstance(one, Refusal)}
    addresses = {service: one.keeps if isinstance(one, Refusal) else one for service, one in found.items()}
    candidates, full = _within_room(candidates, addresses, listeners_room)
    slices: dict[Place | None, list[Manifest]] = defaultdict(list)
    for piece in view.slices:
        slices[service_of(piece)].append(piece)
    frontends: dict[Listener, Frontend] = {}
    verdicts: dict[Place, Verdict] = {}
    for candidate in candidates:
        address, refusal = addresses.get(str(candidate.place)), refusals.get(str(candidate.place))
        if not address:
            verdicts[candidate.place] = _without_address(candidate, refusal)
            continue
        if not candidate.ports:
            verdicts[candidate.place] = _without_address(candidate, Refusal(QUOTA, full))
            continue
        pieces = slices[candidate.place]
        backs = {
            slot: behind(candidate.manifest, port, pieces, view.nodes, site.ground) for slot, port in candidate.ports
        }
        for slot, one in backs.items():
            listener = Listener(address, Protocol(slot.protocol), slot.port)
            frontends[listener] = Frontend(listener, str(candidate.place), candidate.asked.options, one.members)
        told = _with_address(candidate, address, backs, site, full)
        verdicts[candidate.place] = told if refusal is None else _staying(told, refusal)
    return Decision(frontends, verdicts)


def _rooms(site: Site, present: Frontends, owner: str, part: Part) -> tuple[Room | None, Room | None]:
    """Return how many addresses and listeners there may be; who is on standby does as it is told."""
    if site.limits is None or part is Part.STANDBY:
        return None, None
    others, limits = use_of_others(present, owner), site.limits
    return (
        Room(limits.project, limits.addresses, others.addresses),
        Room(limits.project, limits.listeners, others.listeners),
    )


def _within_room(
    candidates: Sequence[_Candidate], addresses: Mapping[str, str], room: Room | None
) -> tuple[list[_Candidate], str]:
    """Return candidates without the ports for which there is no room, and in words that there is none."""
    ordered = sorted(candidates, key=lambda one: (not one.served, _created(one.manifest), str(one.place)))
    wishes = [
        Wish(
            str(one.place),
            frozenset(slot for slot, _ in one.ports),
            frozenset(Slot(frontend.listener.protocol, frontend.listener.port) for frontend in one.served),
        )
        for one in ordered
        if addresses.get(str(one.place))
    ]
    denied, full = without_room(wishes, room)
    return [_without_slots(one, denied.get(str(one.place), frozenset())) for one in candidates], full


def _without_slots(candidate: _Candidate, over: frozenset[Slot]) -> _Candidate:
    ports = tuple((slot, port) for slot, port in candidate.ports if slot not in over)
    return replace(candidate, ports=ports, over=tuple(sorted(over))) if over else candidate


def refused(decision: Decision, listener: Listener, detail: str) -> Decision:
    """Return a decision without a listener that cannot be, and with what its Service is told of that."""
    service = decision.frontends[listener].service
    frontends = {place: one for place, one in decision.frontends.items() if place != listener}
    left = any(one.service == service for one in frontends.values())
    slot = Slot(listener.protocol, listener.port)
    verdicts = {
        place: replace(
            verdict,
            balanced=False,
            reason=REFUSED,
            message=detail,
            address=verdict.address if left else "",
            errors=(*verdict.errors, (slot, REFUSED)),
        )
        if str(place) == service
        else verdict
        for place, verdict in decision.verdicts.items()
    }
    return Decision(frontends, verdicts)


def without(decision: Decision, places: Iterable[Place]) -> Decision:
    """Return a decision without some Services."""
    names = {str(place) for place in places}
    frontends = {listener: one for listener, one in decision.frontends.items() if one.service not in names}
    return Decision(frontends, {place: one for place, one in decision.verdicts.items() if str(place) not in names})


def _candidate(service: Manifest, served: Iterable[Frontend], site: Site) -> _Candidate:
    wishes = _within(asked(service, site.defaults), site.abilities)
    standing = tuple(sorted(served, key=lambda frontend: frontend.listener))
    if wishes.errors and standing:
        wishes = replace(wishes, options=standing[0].options, address=standing[0].listener.address, pool="")
    ports: list[tuple[Slot, Manifest]] = []
    unable: list[tuple[Slot, str]] = []
    for port in service["spec"].get("ports") or []:
        name = port.get("protocol") or "TCP"
        if not is_port(port.get("port")):
            continue
        if name not in set(Protocol) or Protocol(name) not in site.abilities.protocols:
            unable.append((Slot(name, port["port"]), NOT_SUPPORTED))
        else:
            ports.append((Slot(Protocol(name), port["port"]), port))
    return _Candidate(place_of(SERVICES, service), service, wishes, tuple(ports), tuple(unable), standing)


def _within(wishes: Asked, abilities: Abilities) -> Asked:
    """Note what the balancer cannot do as errors."""
    errors = list(wishes.errors)
    if wishes.options.algorithm not in abilities.algorithms:
        errors.append(f"this balancer does not know the algorithm {wishes.options.algorithm}")
    if wishes.options.proxy_protocol is not ProxyProtocol.OFF and not abilities.proxy_protocol:
        errors.append("this balancer does not speak the PROXY protocol")
    return replace(wishes, errors=tuple(errors))


def _is_right(candidate: _Candidate) -> bool:
    return not candidate.asked.errors


def _request(candidate: _Candidate) -> Request:
    families = candidate.manifest["spec"].get("ipFamilies") or ["IPv4"]
    return Request(
        str(candidate.place),
        frozenset(slot for slot, _ in candidate.ports),
        created=_created(candidate.manifest),
        wanted=candidate.asked.address,
        pool=candidate.asked.pool,
        share=candidate.asked.share,
        served=candidate.served[0].listener.address if candidate.served else "",
        said=_said(candidate.manifest),
        version=6 if families[0] == "IPv6" else 4,
    )


def _created(service: Manifest) -> str:
    return service["metadata"].get("creationTimestamp") or ""


def _said(service: Manifest) -> str:
    """Return the address that a Service's status says, which whoever owns the cluster may have written, or nothing."""
    status = (service.get("status") or {}).get("loadBalancer") or {}
    for entry in status.get("ingress") or []:
        with contextlib.suppress(ValueError):
            return canonical(str(entry.get("ip") or ""))
    return ""


def _without_address(candidate: _Candidate, refusal: Refusal | None) -> Verdict:
    ports = tuple(slot for slot, _ in candidate.ports)
    if refusal is not None:
        return Verdict(False, refusal.reason, refusal.message, ports=ports, errors=candidate.unable)
    if candidate.asked.errors:
        return Verdict(False, WRONG_SETTING, "; ".join(candidate.asked.errors), ports=ports, errors=candidate.unable)
    return Verdict(False, NOT_SUPPORTED, _unable(candidate), errors=candidate.unable)


def _staying(told: Verdict, refusal: Refusal) -> Verdict:
    """Return what a Service is told that stays where it is, but asked for something else."""
    message = f"{told.address} is served as before, and no other address: {refusal.message}"
    return replace(told, balanced=False, reason=refusal.reason, message=message)


def _with_address(candidate: _Candidate, address: str, found: Mapping[Slot, Behind], site: Site, full: str) -> Verdict:
    told = Verdict(
        True,
        BALANCED,
        f"{address} is served",
        address,
        tuple(slot for slot, _ in candidate.ports),
        (*candidate.unable, *((slot, QUOTA) for slot in candidate.over)),
        candidate.asked.options.proxy_protocol is not ProxyProtocol.OFF,
    )
    if candidate.asked.errors:
        text = "; ".join(candidate.asked.errors)
        return replace(told, balanced=False, reason=WRONG_SETTING, message=f"{text}; it stays as it was set before")
    if candidate.over:
        text = ", ".join(f"{slot.port}/{slot.protocol}" for slot in candidate.over)
        return replace(told, balanced=False, reason=QUOTA, message=f"{address} is served, but not port {text}: {full}")
    if candidate.unable:
        return replace(told, balanced=False, reason=NOT_SUPPORTED, message=_unable(candidate))
    empty = sorted(slot for slot, one in found.items() if not one.members)
    if empty:
        text = ", ".join(f"{slot.port}/{slot.protocol}" for slot in empty)
        strangers = sorted({stranger for one in found.values() for stranger in one.strangers})
        why = _why_none(candidate, strangers, site)
        return replace(told, balanced=False, reason=NO_MEMBERS, message=f"nothing is behind {address} port {text}{why}")
    return told


def _why_none(candidate: _Candidate, strangers: Sequence[str], site: Site) -> str:
    if strangers:
        return f": not of this cluster's networks are {', '.join(strangers[:_MOST_NAMED])}"
    if site.ground.targets is Targets.NODES and not any(port.get("nodePort") for _, port in candidate.ports):
        return ": it has no node ports, and this balancer reaches nodes alone"
    return ""


def _unable(candidate: _Candidate) -> str:
    ports = ", ".join(f"{slot.port}/{slot.protocol}" for slot, _ in candidate.unable)
    return f"this balancer cannot serve port {ports}" if ports else "the Service has no port"
