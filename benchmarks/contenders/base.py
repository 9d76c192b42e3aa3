"""The interface of a contender."""

import random
from abc import ABC, abstractmethod

Tokens = tuple[int, ...]

SUFFIX = 16
"""Tokens of its own that each sequence has after the prefix that all share."""


class Contender(ABC):
    """An engine with its settings. `family` says who it competes for: the best of one family counts."""

    name: str
    family: str

    @abstractmethod
    async def start(self) -> None:
        """Bring it up."""

    @abstractmethod
    async def prefill(self, prompt: Tokens) -> float:
        """Seconds from handing over a prompt that it has never seen to its first output token."""

    @abstractmethod
    async def decode(self, prefix: Tokens, suffixes: list[Tokens], steps: int) -> list[float]:
        """Seconds of each of `steps` steps in which every sequence gets a token: one for each of `suffixes`, after a
        prefix that all share. A prefix that it has from the time before is not computed again."""

    @abstractmethod
    async def close(self) -> None:
        """End it."""

    def wake(self) -> None:  # noqa: B027 - most need nothing
        """Its turn comes."""

    def rest(self) -> None:  # noqa: B027 - an engine of ours that has nothing to do sleeps
        """Others are measured: from now on it must not touch the cores."""


def draw(seed: str, count: int, vocabulary: int) -> Tokens:
    """Tokens of no meaning, none of them special (those lie at the ends); the same for the same seed."""
    chosen = random.Random(seed)
    return tuple(chosen.randrange(vocabulary // 48, vocabulary * 4 // 5) for _ in range(count))
