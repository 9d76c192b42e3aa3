"""What a job is, and what bounds it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of every job, and of the sandbox."""

    seconds: float
    """Wall-clock time of a job."""
    memory: int
    """Bytes of a child's whole address space, including its interpreter (which takes a tenth of 256 MiB)."""
    output: int
    """Most bytes of a result."""
    processes: int
    """Most children that run side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call of one function."""

    source: str
    name: str
    file: str
    line: int
    arguments: Iterable[str]
    """The JSON object of the arguments by parameter, in pieces, each of which is made when it is sent."""
    seconds: float | None = None
    """The time limit that the function asked for, used if it is below the sandbox's own."""
