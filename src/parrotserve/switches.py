"""The optimisations of the service, each of which can be turned off: what ablations are made of."""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from parrotserve.errors import DeclarationError

EVERYTHING = "all"
"""A name for all switches together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What is on. Turning one off costs time, never a result.

    With everything off, requests go in order of arrival to the least loaded engine, which batches them without regard
    to who waits for what, and keeps KV for each alone.
    """

    objectives: bool = True
    """Deduce what each request is scheduled for, and order requests by it."""
    groups: bool = True
    """Place the members of a task group as one unit, and let engines finish what was submitted earlier first."""
    prefix: bool = True
    """Place requests that begin alike together, and where their beginning is resident."""
    fairness: bool = True
    """Serve tenants by their weights, whatever number of sessions they have."""
    preemption: bool = True
    """Pause throughput work where latency-sensitive requests would wait for room."""
    ahead: bool = True
    """Prefill what is known of a request while another one still writes its input."""
    sharing: bool = True
    """Engines keep the KV of equal prefixes once."""
    attention: bool = True
    """Engines read KV that sequences of a batch share once for all of them."""
    pace: bool = True
    """Engines keep steps as short as latency-sensitive sequences' TPOT bound asks."""
    speculation: bool = True
    """Engines try tokens ahead of their turn where a text repeats what came before."""

    @classmethod
    def without(cls, names: Iterable[str]) -> "Switches":
        """All on but these (`all`: none is on). Raises `DeclarationError` for a name that is no switch."""
        off = set(names)
        known = {field.name for field in dataclasses.fields(cls)}
        for name in sorted(off - known - {EVERYTHING}):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(known))}, {EVERYTHING}."
            raise DeclarationError(f"There is no switch {name!r}; {hint}", setting="without")
        return cls(**{name: name not in off and EVERYTHING not in off for name in known})

    @property
    def plain(self) -> bool:
        """Whether nothing is left of what the scheduler does better than order of arrival."""
        return not (self.objectives or self.groups or self.prefix or self.fairness or self.preemption)
