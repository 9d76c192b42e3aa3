"""What a job is, and what bounds it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of every job."""

    seconds: float
    """By the clock on the wall."""
    memory: int
    """Bytes of a child's whole address space, its interpreter included (a tenth of 256 MiB)."""
    output: int
    """Bytes of a result."""
    processes: int
    """Children that run side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call of one function."""

    source: str
    name: str
    file: str
    line: int
    arguments: Iterable[str]
    """By parameter: JSON in pieces, of which each is made as it is sent."""
    seconds: float | None = None
    """Less than the sandbox's own limit, if the function asked for less."""
