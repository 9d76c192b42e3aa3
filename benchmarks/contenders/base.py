"""The interface of a contender."""

import random
from abc import ABC, abstractmethod

SUFFIX = 16
"""Tokens of its own that each sequence has after the prefix that all share."""


class Contender(ABC):
    """An engine with its settings. `family` says who it competes for: the best of one family counts."""

    name: str
    family: str

    def takes(self, batch: int, tokens: int) -> bool:
        """Whether it is measured at this point (batch 0: a prefill)."""
        return True

    @abstractmethod
    async def start(self) -> None:
        """Bring it up."""

    @abstractmethod
    async def prefill(self, tokens: int, seed: int) -> float:
        """Seconds from handing over a prompt of fresh tokens to its first output token."""

    @abstractmethod
    async def decode(self, batch: int, prefix: int, steps: int, seed: int) -> list[float]:
        """Seconds of each of `steps` steps in which `batch` sequences that begin with the same `prefix` tokens get one
        token each."""

    @abstractmethod
    async def close(self) -> None:
        """End it."""


def draw(seed: str, count: int, vocabulary: int) -> tuple[int, ...]:
    """Tokens of no meaning, none of them special (those lie at the ends); the same for the same seed."""
    chosen = random.Random(seed)
    return tuple(chosen.randrange(vocabulary // 48, vocabulary * 4 // 5) for _ in range(count))
