"""What a workload is: applications that arrive, each a dataflow of prompts, as plain data. No I/O, no clock.

A workload says what is to be done, never how: the same applications are run by every side.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from parrotserve.bench.texts import Texts
from parrotserve.criteria import Criteria


@dataclass(frozen=True, slots=True)
class Ref:
    """The output of an earlier call, or the result of a tool, of the same application."""

    call: str


@dataclass(frozen=True, slots=True)
class Call:
    """One prompt and its one output of exactly `tokens` tokens. Parts are tokenised each for itself, on every side."""

    name: str
    parts: tuple[str | Ref, ...]
    tokens: int

    @property
    def needs(self) -> tuple[str, ...]:
        """The calls whose outputs it reads."""
        return tuple(dict.fromkeys(part.call for part in self.parts if isinstance(part, Ref)))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the client's own, between prompts: when what it `reads` is there, it takes so long and has a
    result."""

    name: str
    reads: tuple[str, ...]
    result: str
    seconds: float

    @property
    def tokens(self) -> int:
        """No engine writes any."""
        return 0

    @property
    def needs(self) -> tuple[str, ...]:
        """The calls whose outputs it reads."""
        return self.reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One run of one program by one user."""

    kind: str
    """Applications of one kind are reported together."""
    calls: tuple[Call | Tool, ...]
    """Each reads outputs of calls before it only."""
    results: tuple[str, ...]
    """The calls whose outputs the user waits for."""
    arrival: float = 0.0
    """Seconds after the beginning."""
    criteria: Criteria = Criteria.LATENCY

    @property
    def tokens(self) -> int:
        """Output tokens of all calls."""
        return sum(call.tokens for call in self.calls)


@dataclass(frozen=True, slots=True)
class Outcome:
    """When an application's last result was there, and how long after its arrival that was; in seconds."""

    application: Application
    finished: float
    """Infinite where it was cut off before its end."""

    @property
    def latency(self) -> float:
        """What its user waited."""
        return self.finished - self.application.arrival


Figures = Mapping[str, float]
"""What one trial showed, by name: times in seconds, and how many were open at once. Smaller is better."""
OPEN_FIRST, OPEN_SECOND = "open, first half", "open, second half"
"""Figures of workloads with a bound: applications open at once, on average over halves of the time of arrivals."""


@dataclass(frozen=True, slots=True)
class Case:
    """One size of a workload: `build` makes its applications from fresh text and a source of chance."""

    name: str
    build: Callable[[Texts, random.Random], Sequence[Application]]
    rate: float | None = None
    """Arrivals a second, where cases of one workload differ by it."""
    service: tuple[str, ...] = ()
    """Options of `parrot serve` for this case, after those of the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A named benchmark."""

    name: str
    about: str
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]
    """Smaller ones, to see that all works."""
    headline: tuple[str, ...]
    """The figures by which sides are compared."""
    measured: tuple[str, ...] = ()
    """The kinds of applications that count; none named: all. Others are background."""
    bound: float | None = None
    """Where cases differ by rate: a rate is sustained up to this mean latency, in seconds an output token."""
    edition: int = 1
    """Raised when what a case measures changes, so that no record mixes trials of both."""

    def counts(self, application: Application) -> bool:
        """Whether an application is measured, and not only beside those that are."""
        return not self.measured or application.kind in self.measured


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """Per kind: median and mean latency, and mean latency an output token; over all kinds: when the last one ended."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.application.kind].append(outcome)
    found: dict[str, float] = {}
    for kind, chosen in by_kind.items():
        latencies = [outcome.latency for outcome in chosen]
        found[f"{kind} p50"] = median(latencies)
        found[f"{kind} mean"] = fmean(latencies)
    found["latency a token"] = fmean(outcome.latency / outcome.application.tokens for outcome in outcomes)
    found["all done"] = max(outcome.finished for outcome in outcomes)
    return found


def open_at_once(outcomes: Sequence[Outcome], counted: Sequence[Outcome]) -> Figures:
    """How many of `outcomes` were open at once, on average over each half of the time in which `counted` ones arrived;
    nothing where these arrived all at once.

    It tells whether a queue grows. Latency does not, for whoever comes last is served while nobody comes any more.
    """
    arrivals = [outcome.application.arrival for outcome in counted]
    first, last = min(arrivals), max(arrivals)
    if first == last:
        return {}
    middle = (first + last) / 2
    return {OPEN_FIRST: _mean_open(outcomes, first, middle), OPEN_SECOND: _mean_open(outcomes, middle, last)}


def _mean_open(outcomes: Sequence[Outcome], begin: float, end: float) -> float:
    spans = (min(one.finished, end) - max(one.application.arrival, begin) for one in outcomes)
    return sum(max(0.0, span) for span in spans) / (end - begin)


def check(applications: Sequence[Application]) -> None:
    """That calls read only what comes before them, and results exist. Raises ValueError."""
    for application in applications:
        known: set[str] = set()
        for call in application.calls:
            if call.name in known or not known.issuperset(call.needs):
                raise ValueError(f"{application.kind}: {call.name} is named twice, or reads what comes later.")
            known.add(call.name)
        if not application.results or not known.issuperset(application.results):
            raise ValueError(f"{application.kind}: its results {application.results} are not among its calls.")
