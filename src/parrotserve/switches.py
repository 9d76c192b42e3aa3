"""The optimisations of the service, each of which can be turned off, as ablations do."""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from parrotserve.errors import DeclarationError

EVERYTHING = "all"
"""A name for all switches together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """Which optimisations are on. Turning one off costs time, but never changes a result.

    With everything off, requests go in order of arrival to the least loaded engine, which batches them without regard
    to who waits for what, and keeps KV for each alone.
    """

    objectives: bool = True
    """Deduce what each request is scheduled for, and order requests by it."""
    groups: bool = True
    """Place the members of a task group as one unit, and let engines finish what was submitted earlier first."""
    prefix: bool = True
    """Place requests with a common prefix together, and where their prefix is resident."""
    fairness: bool = True
    """Serve tenants by their weights, however many sessions they have."""
    preemption: bool = True
    """Pause throughput work where latency-sensitive requests would otherwise wait for room."""
    ahead: bool = True
    """Prefill what is known of a request while an input of it is still being written."""
    sharing: bool = True
    """Engines keep the KV of equal prefixes only once."""
    attention: bool = True
    """Engines read KV that sequences of a batch share only once for all of them."""
    pace: bool = True
    """Engines keep steps short enough for the TPOT bound of latency-sensitive sequences."""
    speculation: bool = True
    """Engines decode speculatively where a text repeats what came before."""

    @classmethod
    def without(cls, names: Iterable[str]) -> "Switches":
        """All on except these (`all`: every one off). Raises `DeclarationError` for a name that is no switch."""
        off = set(names)
        known = {field.name for field in dataclasses.fields(cls)}
        for name in sorted(off - known - {EVERYTHING}):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(known))}, {EVERYTHING}."
            raise DeclarationError(f"There is no switch {name!r}; {hint}", setting="without")
        return cls(**{name: name not in off and EVERYTHING not in off for name in known})

    @property
    def plain(self) -> bool:
        """Whether all optimisations of the scheduler itself are off, so that it goes by order of arrival."""
        return not (self.objectives or self.groups or self.prefix or self.fairness or self.preemption)
