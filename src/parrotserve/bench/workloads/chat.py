"""Chats: single requests of people who wait, arriving at random. Not a workload of its own, but a part of others."""

import random
from collections.abc import Iterator

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call


def arrivals(chance: random.Random, *, rate: float, seconds: float) -> Iterator[float]:
    """A Poisson process: times of arrival before `seconds`, on average `rate` per second."""
    moment = chance.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += chance.expovariate(rate)


def chats(
    texts: Texts,
    chance: random.Random,
    *,
    rate: float,
    seconds: float,
    kind: str = "chat",
    prompt: tuple[int, int] = (64, 512),
    output: tuple[int, int] = (32, 128),
) -> list[Application]:
    """Requests with prompts and outputs of lengths within these bounds; mostly short, as in published chat traces."""
    found: list[Application] = []
    for arrival in arrivals(chance, rate=rate, seconds=seconds):
        length, tokens = _between(chance, prompt), _between(chance, output)
        call = Call("answer", (texts.take(length), "\nAnswer:"), tokens)
        found.append(Application(kind=kind, calls=(call,), results=("answer",), arrival=arrival))
    return found


def _between(chance: random.Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return round(low + (high - low) * chance.random() ** 2)
