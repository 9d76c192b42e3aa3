"""How much slower requests may get because of others, and how little throughput work: for scheduler and engines."""

from dataclasses import dataclass

SLOWDOWN = 1.5
"""How many times longer than alone a latency-sensitive request may wait for its next token, where nothing is set."""
LATER_PROMPTS = 2.0
"""How many times longer throughput work that decodes may wait for its next token because of prompts of later work."""
CROWDING = 1.1
"""How many times longer than fair a step may be, where nothing is set: some way between engines that are left half
empty for tenants with few requests, and tenants with few requests that wait for full ones."""

THROUGHPUT_SHARE = 0.1
"""Of the tokens decoded in any ten seconds, the least that throughput work gets where there is any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The longest steps."""

    tpot: float | None = None
    """Seconds between two tokens of a latency-sensitive request; None: some times what it takes alone."""
    crowding: float = CROWDING
    """Beside requests of a tenant that somebody waits for, a step may be so many times longer than if other tenants
    added no more to it, by weight, than this one does."""

    def step(self, alone: float) -> float:
        """Seconds that a step may take for a latency-sensitive request whose steps take so long `alone`."""
        return SLOWDOWN * alone if self.tpot is None else self.tpot
