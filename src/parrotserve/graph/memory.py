"""About how much memory the graph takes: texts as they are, and everything else at a rate for each object."""

import sys

from parrotserve.graph.events import NewCall, NewRequest, Submitted
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import Producer, Variable
from parrotserve.native_calls import Slot
from parrotserve.segments import Text

SESSION = 4_000
_VARIABLE = 1_500
_PRODUCER = 5_000
_PART = 200
_LOGPROB = 150
"""Bytes that each object takes besides its texts: a session, a variable, a request or native call, a segment, input or
slot of one, and one log-probability (of a chosen token or of an alternative)."""


def size_of_text(text: str | None) -> int:
    """Bytes of a text. One with characters beyond Latin-1 takes two or four bytes for each character."""
    return 0 if text is None else sys.getsizeof(text)


def size_of_value(variable: Variable) -> int:
    """Bytes of a variable's value and of the log-probabilities kept with it."""
    return size_of_text(variable.value) + _LOGPROB * variable.logprobs


def size_of_variable(variable: Variable) -> int:
    """Bytes of a variable, with its value."""
    return _VARIABLE + size_of_value(variable)


def size_of_producer(spec: NewRequest | NewCall) -> int:
    """Bytes of a request or native call."""
    if isinstance(spec, NewRequest):
        texts = sum(size_of_text(part.text) for part in spec.segments if isinstance(part, Text))
        return _PRODUCER + _PART * len(spec.segments) + texts
    sandboxed = spec.sandboxed
    own = 0 if sandboxed is None else size_of_text(sandboxed.source) + sum(map(_size_of, sandboxed.arguments))
    return _PRODUCER + _PART * len(spec.inputs) + own


def size_of_new(batch: Submitted, graph: Graph) -> int:
    """Bytes that a batch would add to the graph."""
    variables = {one.id: one for one in batch.variables if one.id not in graph.variables}
    producers = [one for one in batch.requests if one.id not in graph.requests]
    calls = [one for one in batch.calls if one.id not in graph.calls]
    size = 0 if batch.session in graph.sessions else SESSION
    size += sum(_VARIABLE + size_of_text(one.value) for one in variables.values())
    return size + sum(map(size_of_producer, (*producers, *calls)))


def hold(graph: Graph, producer: Producer) -> None:
    """Count the memory of a new request or native call for its session and tenant."""
    session, size = producer.session, size_of_producer(producer.spec)
    session.held += size
    graph.held[session.tenant] += size


def _size_of(part: str | Slot) -> int:
    return _PART if isinstance(part, Slot) else size_of_text(part)
