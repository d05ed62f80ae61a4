"""Which objects a proxy does not take, found by halves; normally none, as everything was parsed before. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from haneul.kernel.kube_objects import Place

#: Says why the proxy does not take a configuration with these objects alone; nothing if it does.
Takes = Callable[[frozenset[Place]], Awaitable[str]]


async def culprits(objects: Sequence[Place], takes: Takes) -> dict[Place, str]:
    """Return, of some objects, those without which the proxy takes all others, and what it says of each.

    Of two that it does not take together, the one that comes first stays. Asked is about twice the number of culprits
    times the logarithm of the number of objects.
    """
    taken: set[Place] = set()
    found: dict[Place, str] = {}

    async def add(group: Sequence[Place]) -> None:
        why = await takes(frozenset(taken.union(group)))
        if not why:
            taken.update(group)
        elif len(group) == 1:
            found[group[0]] = why
        else:
            half = len(group) // 2
            await add(group[:half])
            await add(group[half:])

    if objects:
        await add(objects)
    return found
