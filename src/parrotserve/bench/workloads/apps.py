"""Apps: many applications, each with its own long prompt, on two engines whose caches hold half of the prompts each.

The placement of requests determines how much is computed: an engine that gets requests of all applications evicts each
prompt before the next request for it comes. Arrivals are random, as in `gpts`, whose prompts all fit.
"""

import random
from collections.abc import Callable, Sequence

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Workload
from parrotserve.bench.workloads.chat import arrivals

_QUERY, _OUTPUT = 8, 32


def apps(
    texts: Texts, chance: random.Random, *, count: int, prompt: int, rate: float, seconds: float
) -> list[Application]:
    """Requests of `count` equally likely applications, `rate` per second for `seconds`; `prompt` is in tokens."""
    prompts = [texts.take(prompt) for _ in range(count)]
    return [
        Application(
            kind="request",
            calls=(Call("answer", (chance.choice(prompts), "\nUser: ", texts.take(_QUERY), "\nAnswer:"), _OUTPUT),),
            results=("answer",),
            arrival=arrival,
        )
        for arrival in arrivals(chance, rate=rate, seconds=seconds)
    ]


def _on_two(
    count: int, prompt: int, rate: float, seconds: float
) -> Callable[[Texts, random.Random], Sequence[Application]]:
    return lambda texts, chance: apps(texts, chance, count=count, prompt=prompt, rate=rate, seconds=seconds)


_TWO_ENGINES = ("--engines", "2", "--kv-memory", "160MiB")
"""With the default model, each caches 7,281 tokens: eight or nine prompts of 768 tokens, beside running requests."""

APPS = Workload(
    name="apps",
    about="apps: many applications with long prompts, on two engines with cache for half of them each",
    cases=(Case("12 apps of 768, 3 requests/s", _on_two(12, 768, 3.0, 30.0), service=_TWO_ENGINES),),
    quick=(Case("3 apps of 128", _on_two(3, 128, 4.0, 1.0), service=("--engines", "2")),),
    headline=("request mean",),
)
