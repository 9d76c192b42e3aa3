"""What `get` asks of a variable, and what a request is scheduled for."""

from enum import StrEnum


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
