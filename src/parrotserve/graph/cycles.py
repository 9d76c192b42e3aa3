"""Dataflow order of new producers, and the refusal of cycles."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from parrotserve.errors import InvalidGraph
from parrotserve.graph.objects import Producer, Variable


def in_dataflow_order(new: Sequence[Producer], consumers: Mapping[Variable, Sequence[Producer]]) -> list[Producer]:
    """The new producers and everything downstream of them, in topological order.

    `consumers` holds the new producers that need a variable; older ones are found from the variable itself. Any
    cycle that the new producers close passes through one of them, so nothing upstream is visited: the cost is
    proportional to the batch, unless older producers already waited for its outputs. Depth-first search; raises
    `InvalidGraph` naming the cycle.
    """
    finished: list[Producer] = []
    done: set[Producer] = set()
    for start in new:
        if start in done:
            continue
        path: dict[Producer, Iterator[Producer]] = {start: _downstream(start, consumers)}
        while path:
            producer, followers = next(reversed(path.items()))
            follower = next(followers, None)
            if follower is None:
                del path[producer]
                done.add(producer)
                finished.append(producer)
            elif follower in path:
                raise _cycle([*path], follower)
            elif follower not in done:
                path[follower] = _downstream(follower, consumers)
    return finished[::-1]


def _downstream(producer: Producer, consumers: Mapping[Variable, Sequence[Producer]]) -> Iterator[Producer]:
    return chain.from_iterable(
        chain(consumers.get(output, ()), output.consumers, output.fallen_consumers) for output in producer.outputs
    )


def _cycle(path: list[Producer], again: Producer) -> InvalidGraph:
    names = [str(producer) for producer in path[path.index(again) :]]
    return InvalidGraph(f"Each of these needs the one before it, in a cycle: {' -> '.join([*names, names[0]])}.")
