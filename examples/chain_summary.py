"""Chain summary: read a long text piece by piece, keeping one summary up to date.

Each step needs the one before it, so this program gains most from running on the service: a client that rendered
the prompts itself would wait for a round trip, and queue anew, between any two steps.
"""

import heapq
import textwrap

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY


@P.SemanticFunction(max_tokens=60)
def refine(summary: P.SemanticVariable, piece: P.SemanticVariable):
    """You read a text piece by piece and keep a summary of it in three sentences.
    Summary so far: {{input:summary}}
    Next piece: {{input:piece}}
    Write the new summary of everything read so far.
    {{output:updated}}
    """


def pieces_of(text: str, width: int) -> list[str]:
    """The text in pieces of at most `width` characters, cut between words."""
    return textwrap.wrap(" ".join(text.split()), width)


def summarise_chain() -> str:
    essay = heapq.__about__[1100:3900]  # the part in prose of "Heap queues", an essay in Python's library
    summary = P.SemanticVariable("(nothing read yet)")
    for piece in pieces_of(essay, width=700):
        summary = refine(summary, piece)
    return summary.get(perf=LATENCY)


if __name__ == "__main__":
    print(summarise_chain())
