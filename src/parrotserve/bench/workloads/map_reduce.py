"""Map-reduce summary: the parts of a document are summarised in parallel, then the summaries together (8.2)."""

import random
from collections.abc import Callable
from functools import partial

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Ref, Workload
from parrotserve.criteria import Criteria

_MAP = "Summarise this part of a document in a few sentences.\nPart: "
_REDUCE = "Summarise a document from the summaries of its parts."


def map_reduce(
    texts: Texts,
    *,
    chunks: int,
    chunk: int,
    output: int,
    kind: str = "map-reduce",
    arrival: float = 0.0,
    criteria: Criteria = Criteria.LATENCY,
) -> Application:
    """One document of `chunks` parts of `chunk` tokens."""
    maps = [Call(f"map{number + 1}", (_MAP, texts.take(chunk), "\nSummary:"), output) for number in range(chunks)]
    parts: list[str | Ref] = [_REDUCE]
    for call in maps:
        parts += ["\n- ", Ref(call.name)]
    reduce = Call("reduce", (*parts, "\nSummary:"), output)
    return Application(kind=kind, calls=(*maps, reduce), results=("reduce",), arrival=arrival, criteria=criteria)


def _at_once(
    documents: int, chunks: int, chunk: int, output: int
) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: [
        map_reduce(texts, chunks=chunks, chunk=chunk, output=output) for _ in range(documents)
    ]


_one = partial(_at_once, 1)


MAP_REDUCE = Workload(
    name="map-reduce",
    about="map-reduce summary: parts of a document side by side, then their summaries together",
    cases=(
        Case("16 x 512, 50 out", _one(16, 512, 50)),
        Case("16 x 512, 25 out", _one(16, 512, 25)),
        Case("16 x 512, 100 out", _one(16, 512, 100)),
        Case("32 x 512, 50 out", _one(32, 512, 50)),
        Case("16 x 1024, 50 out", _one(16, 1024, 50)),
        Case("4 documents, 8 x 512, 50 out", _at_once(4, 8, 512, 50)),
    ),
    quick=(Case("4 x 128, 8 out", _one(4, 128, 8)),),
    headline=("map-reduce mean",),
)
