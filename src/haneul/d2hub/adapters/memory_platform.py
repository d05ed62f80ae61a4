"""A platform in memory: for simulations, and tests of what asks one."""

from __future__ import annotations

from haneul.d2hub.model import Standing
from haneul.kernel.errors import UnavailableError


class MemoryPlatform:
    """Knows tokens by their text. ``away`` makes it answer nothing; ``asked`` counts the questions."""

    def __init__(self) -> None:
        self.tokens: dict[str, Standing] = {}
        self.away = False
        self.asked = 0

    async def standing(self, secret: str) -> Standing | None:
        """Look a token up."""
        self.asked += 1
        if self.away:
            raise UnavailableError("nobody can sign in now: the platform does not answer", hint="try again in a while")
        return self.tokens.get(secret)
