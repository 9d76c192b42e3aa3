"""GPTs: four applications, each with its own long prompt and many users, arriving at random (8.3).

Lengths and shares of the requests are the paper's, divided by `_SCALE`. What counts is the rate of requests that is
sustained while the mean latency an output token stays under a bound.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Workload
from parrotserve.bench.workloads.chat import arrivals

_SCALE = 4


@dataclass(frozen=True, slots=True)
class _Gpt:
    """Tokens of its prompt, of a user's query and of an output, and its share of the requests."""

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


def gpts(texts: Texts, chance: random.Random, *, rate: float, seconds: float, scale: float) -> list[Application]:
    """Requests at this rate for so long."""
    prompts = [texts.take(round(gpt.prompt / scale)) for gpt in _GPTS]
    found: list[Application] = []
    for arrival in arrivals(chance, rate=rate, seconds=seconds):
        (which,) = chance.choices(range(len(_GPTS)), [gpt.share for gpt in _GPTS])
        parts = (prompts[which], "\nUser: ", texts.take(_GPTS[which].query), "\nAnswer:")
        call = Call("answer", parts, max(1, round(_GPTS[which].output / scale)))
        found.append(Application(kind="request", calls=(call,), results=("answer",), arrival=arrival))
    return found or gpts(texts, chance, rate=rate, seconds=2 * seconds, scale=scale)


def _at(rate: float, seconds: float, scale: float) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: gpts(texts, chance, rate=rate, seconds=seconds, scale=scale)


GPTS = Workload(
    name="gpts",
    about="GPTs: four applications with long prompts of their own, requests arriving at random",
    cases=tuple(
        Case(f"{rate:g} requests/s", _at(rate, 12.0, _SCALE), rate=rate) for rate in (0.5, 1, 2, 4, 6, 8, 12, 16)
    ),
    quick=(Case("4 requests/s", _at(4.0, 1.0, 32), rate=4.0),),
    headline=("latency a token",),
    bound=0.1,
)
