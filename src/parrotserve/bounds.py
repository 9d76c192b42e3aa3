"""How much slower requests may get because of others, and throughput work's least share: for scheduler and engines."""

from dataclasses import dataclass

SLOWDOWN = 1.5
"""A latency-sensitive request may wait for its next token so many times as long as it would alone, where no `tpot` is
set."""
LATER_PROMPTS = 2.0
"""Throughput work that decodes may wait for its next token so many times as long because of prompts of later work."""
CROWDING = 1.1
"""A step may take so many times what a fair one takes (ADR 008), where nothing is set. With less, engines are left half
empty for tenants with few requests; with more, these wait for the steps of full engines."""

THROUGHPUT_SHARE = 0.1
"""Of the tokens decoded in any ten seconds, the least that throughput work gets where there is any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long steps may be."""

    tpot: float | None = None
    """Seconds between two tokens of a latency-sensitive request; None: `SLOWDOWN` times what one takes alone."""
    crowding: float = CROWDING
    """Beside requests of a tenant that somebody waits for, a step may take so many times what it would if no other
    tenant added more to it, by weight, than this one does."""

    def step(self, alone: float) -> float:
        """Seconds that a step may take for a latency-sensitive request whose steps take so long `alone`."""
        return SLOWDOWN * alone if self.tpot is None else self.tpot
