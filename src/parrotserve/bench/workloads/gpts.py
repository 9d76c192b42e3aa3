"""GPTs: four applications, each with its own long prompt and many users, arriving at random (8.3).

Shares of the requests are the paper's, and so are lengths, those of prompts and outputs divided by `_SCALE`. What
counts is the rate of requests that is sustained: the mean latency per output token stays under a bound, and no queue
grows. Requests of the first seconds only load the service, so that it is in a steady state for those that count.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Workload
from parrotserve.bench.workloads.chat import arrivals

_SCALE = 4
_LOADING, _COUNTED = 10.0, 20.0
"""Seconds of arrivals that do not count, and of arrivals that do."""
_COUNTS = "request"


@dataclass(frozen=True, slots=True)
class _Gpt:
    """One application: tokens of its prompt, of a user's query and of an output, and its share of the requests."""

    prompt: int
    query: int
    output: int
    share: float


_GPTS = (
    _Gpt(7437, 7, 704, 0.19),
    _Gpt(1116, 8, 89, 0.40),
    _Gpt(1694, 4, 631, 0.28),
    _Gpt(2031, 4, 416, 0.13),
)


def gpts(
    texts: Texts, chance: random.Random, *, rate: float, loading: float, counted: float, scale: float
) -> list[Application]:
    """Requests at this rate: those of the first `loading` seconds do not count, those of the next `counted` seconds do.
    If there are none of the latter, `counted` is doubled until there are."""
    prompts = [texts.take(round(gpt.prompt / scale)) for gpt in _GPTS]
    found: list[Application] = []
    for arrival in arrivals(chance, rate=rate, seconds=loading + counted):
        (which,) = chance.choices(range(len(_GPTS)), [gpt.share for gpt in _GPTS])
        parts = (prompts[which], "\nUser: ", texts.take(_GPTS[which].query), "\nAnswer:")
        call = Call("answer", parts, max(1, round(_GPTS[which].output / scale)))
        kind = "loading" if arrival < loading else _COUNTS
        found.append(Application(kind=kind, calls=(call,), results=("answer",), arrival=arrival))
    if not found or found[-1].kind != _COUNTS:
        return gpts(texts, chance, rate=rate, loading=loading, counted=2 * counted, scale=scale)
    return found


def _at(
    rate: float, loading: float, counted: float, scale: float
) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: gpts(texts, chance, rate=rate, loading=loading, counted=counted, scale=scale)


GPTS = Workload(
    name="gpts",
    about="GPTs: four applications with long prompts of their own, requests arriving at random",
    cases=tuple(
        Case(f"{rate:g} requests/s", _at(rate, _LOADING, _COUNTED, _SCALE), rate=rate)
        for rate in (0.5, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32)
    ),
    quick=(Case("4 requests/s", _at(4.0, 0.5, 1.0, 32), rate=4.0),),
    headline=("latency a token",),
    measured=(_COUNTS,),
    bound=0.1,
    edition=2,
)
