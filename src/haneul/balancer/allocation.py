"""Which Service gets which address. Pure, and the same for the same objects, whoever decides and whenever.

In rounds, in each the oldest Service first: what a Service has, it keeps; then come those that ask for an
address; then the others get the lowest free one. What a Service has is what the balancer serves for it, and after that
what its status says; the status is kept in the cluster, where its owner can write it, so it counts only inside the
pools of their own project.

Where machines share addresses, each with a memory of its own, what the status says comes first: it is what they have in
common. On those that are not active it alone counts, and nothing is given that it does not say.

A project may have so many addresses and no more; what the balancer serves for a Service is its own whatever the limit.
So who asks for another address, or shares with others than before, and has no room for that, stays where it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from typing import TypeAlias

from haneul.balancer.model import Part, Pool, Slot
from haneul.balancer.room import QUOTA, Held, Room


@dataclass(frozen=True)
class Request:
    """A Service that wants an address. ``served`` is where the balancer has it, ``said`` what its status says.

    ``created`` is when it was made, as the API writes it; ``version`` 4 or 6, for when it asks for no address.
    """

    service: str
    slots: frozenset[Slot]
    created: str = ""
    wanted: str = ""
    pool: str = ""
    share: str = ""
    served: str = ""
    said: str = ""
    version: int = 4


@dataclass(frozen=True)
class Refusal:
    """Why a Service gets none, in a word for programs and in words for people; ``keeps`` is where it stays, if so."""

    reason: str
    message: str
    keeps: str = ""


OUTSIDE, TAKEN, NONE_LEFT, NO_POOL = "AddressOutsidePools", "AddressTaken", "NoAddressLeft", "NoSuchPool"


@dataclass
class _Use:
    share: str = ""
    slots: set[Slot] = field(default_factory=set)
    services: list[str] = field(default_factory=list)


class _Book:
    """Who has what, while it is decided."""

    def __init__(self, pools: Sequence[Pool], foreign: Set[str], held: Held) -> None:
        self.pools = pools
        self.held = held
        self._foreign = foreign
        self._uses: dict[str, _Use] = defaultdict(_Use)
        #: What is left of pools to look at: nothing is given back while it is decided.
        self._rest: dict[tuple[str, int], Iterator[str]] = {}

    def pools_of(self, request: Request) -> list[Pool]:
        return [pool for pool in self.pools if request.pool in ("", pool.name)]

    def fits(self, request: Request, address: str) -> bool:
        return any(address in pool for pool in self.pools_of(request))

    def in_the_way(self, request: Request, address: str) -> str:
        """Return what keeps a Service from an address; nothing if it may have it."""
        if address in self._foreign:
            return "a Service of another cluster has it"
        use = self._uses.get(address)
        if use is None:
            return ""
        others = ", ".join(use.services)
        if not request.share or request.share != use.share:
            return f"{others} has it, and does not share it with this Service"
        if clash := use.slots & request.slots:
            slot = min(clash)
            return f"{others} has port {slot.port} of {slot.protocol} there"
        return ""

    def can_stay(self, request: Request) -> bool:
        """Say whether a Service can stay where it is: whoever is there was beside it before, shared now or not."""
        address = request.served
        there = any(address in pool for pool in self.pools) and address not in self._foreign
        return there and not (address in self._uses and self._uses[address].slots & request.slots)

    def has_room(self, request: Request, address: str = "") -> bool:
        """Say whether a Service's project may have an address for it, one that is free if none is named."""
        theirs = address and (address in self._uses or address == request.served)
        return bool(theirs) or self.held.has_room(moves=bool(request.served))

    def take(self, request: Request, address: str) -> None:
        self.held.hold(address)
        use = self._uses[address]
        if not use.services:
            use.share = request.share
        use.slots |= request.slots
        use.services.append(request.service)

    def shared(self, request: Request) -> str:
        """Return the lowest address that others share with a Service; nothing if there is none."""
        if request.share:
            for address in sorted(self._uses, key=lambda text: (ip_address(text).version, int(ip_address(text)))):
                if self.fits(request, address) and not self.in_the_way(request, address):
                    return address
        return ""

    def lowest(self, request: Request) -> str:
        """Return the lowest address that nobody has; nothing if none is left."""
        rest = self._rest.setdefault(
            (request.pool, request.version),
            (address for pool in self.pools_of(request) for address in _addresses(pool, request.version)),
        )
        return next((address for address in rest if address not in self._foreign and address not in self._uses), "")


#: What a round finds for a Service: its address, why it gets none, or nothing yet.
_Round: TypeAlias = Callable[[_Book, Request], str | Refusal | None]


def allocate(
    requests: Iterable[Request],
    pools: Sequence[Pool],
    foreign: Set[str],
    part: Part = Part.ALONE,
    room: Room | None = None,
) -> dict[str, str | Refusal]:
    """Return for each Service its address, or why it gets none; on standby, of those alone that get one.

    ``pools`` are those that it may have addresses of, ``foreign`` the addresses that are somebody else's, ``room`` how
    many its project may have; on standby, who is active has seen to that.
    """
    requests = list(requests)
    staying: dict[str, Refusal] = {}
    while True:
        result = _allocated(requests, partial(_Book, pools, foreign), part, room, staying)
        # Whoever was to move and has no room for that, stays; so others do not find its place free.
        more = {
            request.service: found
            for request in requests
            if request.served
            and isinstance(found := result.get(request.service), Refusal)
            and found.reason == QUOTA
            and request.service not in staying
        }
        if not more:
            return result
        staying |= more


def _allocated(
    requests: Iterable[Request],
    opened: Callable[[Held], _Book],
    part: Part,
    room: Room | None,
    staying: Mapping[str, Refusal],
) -> dict[str, str | Refusal]:
    """Give out addresses once; Services ``staying`` have no room to move, after those that want nothing else."""
    waiting = sorted(
        requests,
        key=lambda request: (not request.served, request.service in staying, request.created, request.service),
    )
    book = opened(Held(None if part is Part.STANDBY else room, [one.served for one in waiting if one.served]))
    result: dict[str, str | Refusal] = {}
    kept = partial(_kept, part=part, staying=staying)
    rounds: list[_Round]
    if part is Part.ALONE:
        # Nobody's status leads it to where somebody else is served.
        rounds = [partial(kept, memories=lambda one: (one.served,)), partial(kept, memories=lambda one: (one.said,))]
    else:
        rounds = [partial(kept, memories=lambda one: (one.said, one.served))]
    if part is not Part.STANDBY:
        rounds += [_asked_for, _any]
    for round_ in rounds:
        for request in waiting:
            if request.served:
                book.held.let_go(request.served)
            found = round_(book, request)
            if taken := found.keeps if isinstance(found, Refusal) else found:
                book.take(request, taken)
            if found is not None:
                result[request.service] = found
            elif request.served:
                # As long as it is open where it goes, what it has is its own.
                book.held.hold(request.served)
        waiting = [request for request in waiting if request.service not in result]
    return result


def _kept(
    book: _Book,
    request: Request,
    *,
    part: Part,
    staying: Mapping[str, Refusal],
    memories: Callable[[Request], tuple[str, ...]],
) -> str | Refusal | None:
    if request.service in staying and book.can_stay(request):
        return replace(staying[request.service], keeps=request.served)
    for standing in memories(request):
        # Whether a Service moves that asks for another address is not for one on standby to say.
        stays = part is Part.STANDBY or request.wanted in ("", standing)
        kept = standing and stays and book.fits(request, standing)
        if kept and not book.in_the_way(request, standing) and book.has_room(request, standing):
            return standing
    return None


def _asked_for(book: _Book, request: Request) -> str | Refusal | None:
    if not request.wanted:
        return None
    if not book.fits(request, request.wanted):
        return _outside(book, request)
    if why := book.in_the_way(request, request.wanted):
        return Refusal(TAKEN, f"{request.wanted} cannot be given: {why}")
    if not book.has_room(request, request.wanted):
        return Refusal(QUOTA, book.held.full())
    return request.wanted


def _any(book: _Book, request: Request) -> str | Refusal:
    pools = ", ".join(pool.name for pool in book.pools_of(request))
    if not pools:
        names = ", ".join(pool.name for pool in book.pools) or "there are none"
        what = f"there is no pool {request.pool}" if request.pool else "there is no pool"
        return Refusal(NO_POOL, f"{what} that this project may use: {names}")
    if address := book.shared(request):
        return address
    if not book.has_room(request):
        return Refusal(QUOTA, book.held.full())
    if address := book.lowest(request):
        return address
    return Refusal(NONE_LEFT, f"no IPv{request.version} address is free in the pools of this project: {pools}")


def _outside(book: _Book, request: Request) -> Refusal:
    names = ", ".join(pool.name for pool in book.pools_of(request)) or "there are none"
    return Refusal(OUTSIDE, f"{request.wanted} is in no pool that this Service may use: {names}")


def _addresses(pool: Pool, version: int) -> Iterator[str]:
    for first, last in pool.ranges:
        low, high = ip_address(first), int(ip_address(last))
        if low.version != version:
            continue
        kind = type(low)
        number = int(low)
        while number <= high:
            yield str(kind(number))
            number += 1
