"""Map-reduce summary: summarise many documents side by side, then all the summaries together.

The maps are one task group: nobody waits for any single one of them, only for the last. The service learns that from
the graph, because the one result asked for reads them all. The documents are the documentation of Python modules.
"""

import collections
import difflib
import heapq
import inspect
import random
import tempfile
from types import ModuleType

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY

MODULES = (collections, difflib, heapq, random, tempfile)


@P.SemanticFunction(max_tokens=40)
def summarise(document: P.SemanticVariable):
    """Say in one sentence what this Python module is for.

    {{input:document | truncate(150)}}

    {{output:summary}}
    """


@P.SemanticFunction(max_tokens=80)
def combine(summaries: P.SemanticVariable):
    """Here are short summaries of several Python modules:

    {{input:summaries}}

    Write one paragraph on what they offer together.
    {{output:overview}}
    """


def document_of(module: ModuleType) -> str:
    return f"{module.__name__}: {inspect.getdoc(module)}"


def summarise_modules() -> str:
    summaries = [summarise(document_of(module)) for module in MODULES]
    return combine(summaries).get(perf=LATENCY)


if __name__ == "__main__":
    print(summarise_modules())
