"""What `get` asks of a variable, and what a request is scheduled for."""

from enum import StrEnum
from typing import NamedTuple


class Criteria(StrEnum):
    """What the application wants of a variable that it waits for."""

    LATENCY = "latency"
    """The whole value as soon as possible."""
    THROUGHPUT = "throughput"
    """Part of bulk work: what counts is work done per second."""
    TTFT = "ttft"
    """The first token as soon as possible (streams)."""
    TPOT = "tpot"
    """Steady short gaps between tokens (streams read by a person)."""


class Objective(StrEnum):
    """What a request is scheduled for; deduced from criteria and the graph, strictest first."""

    LATENCY = "latency"
    GROUP = "group"
    """A member of a task group: only the end of the group's last member counts."""
    THROUGHPUT = "throughput"

    @property
    def pressing(self) -> bool:
        """Whether somebody waits for the request, or for its group; other work is there for throughput."""
        return self is not Objective.THROUGHPUT


class Precedence(NamedTuple):
    """Orders an engine's requests of one objective: the smaller goes first; of equal ones, the one that came earlier.

    Requests that were submitted together are equal in `order`: they are one piece of work, and none waits for another.
    """

    place: int = 0
    submission: int = 0
    stages: int = 0
    """Number of stages that follow it until the result that somebody waits for. Does not affect the order."""

    @property
    def order(self) -> tuple[int, int]:
        """The part by which requests are compared."""
        return self[:2]


NO_PRECEDENCE = Precedence()
"""The precedence of requests that are ordered by arrival alone."""
