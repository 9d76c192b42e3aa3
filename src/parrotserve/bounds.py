"""How much slower requests may get because of others, and throughput work's least share: for scheduler and engines."""

from dataclasses import dataclass

SLOWDOWN = 1.5
"""Factor by which other work may lengthen the time between two tokens of a latency-sensitive request, compared with
running alone, if no `tpot` is set."""
LATER_PROMPTS = 2.0
"""Factor by which prompts of later work may lengthen the time between two tokens of throughput work."""
CROWDING = 1.1
"""Default of `Bounds.crowding` (ADR 008). With less, engines are left half empty for the sake of tenants with few
requests; with more, these tenants wait for the steps of full engines."""

THROUGHPUT_SHARE = 0.1
"""Least fraction of the tokens decoded in any ten seconds that throughput work gets, if there is any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds on how long steps may be."""

    tpot: float | None = None
    """Seconds between two tokens of a latency-sensitive request; None: `SLOWDOWN` times what one takes alone."""
    crowding: float = CROWDING
    """How many times as long as a fair step a step may be if a tenant in it has requests that somebody waits for. A
    fair one is what it would be if no other tenant added more, relative to its weight, than this tenant does."""

    def step(self, alone: float) -> float:
        """Most seconds that a step of a latency-sensitive request may take, whose steps take `alone` without others."""
        return SLOWDOWN * alone if self.tpot is None else self.tpot
