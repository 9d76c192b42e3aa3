"""Chat mixed with map-reduce: people who wait for answers, and jobs of throughput work, on one engine (8.5).

In one case, the job is a set of texts to write, as many at once as fill the engine: chats arrive when it has no room.
"""

import random
from collections.abc import Callable
from functools import partial

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Workload
from parrotserve.bench.workloads.chat import chats
from parrotserve.bench.workloads.map_reduce import map_reduce
from parrotserve.criteria import Criteria


def _mix(
    *, rate: float, seconds: float, jobs: int, chunks: int, chunk: int, output: int
) -> Callable[[Texts, random.Random], list[Application]]:
    def build(texts: Texts, chance: random.Random) -> list[Application]:
        people = chats(texts, chance, rate=rate, seconds=seconds)
        every = seconds / (2 * jobs)
        sizes = {"chunks": chunks, "chunk": chunk, "output": output}
        batch = [
            map_reduce(texts, **sizes, kind="job", arrival=number * every, criteria=Criteria.THROUGHPUT)
            for number in range(jobs)
        ]
        return [*batch, *people]

    return build


def _full(texts: Texts, chance: random.Random, *, rate: float, seconds: float, drafts: int) -> list[Application]:
    calls = tuple(Call(f"draft{number + 1}", (texts.take(64), "\nDraft:"), 192) for number in range(drafts))
    names = tuple(call.name for call in calls)
    job = Application(kind="job", calls=calls, results=names, criteria=Criteria.THROUGHPUT)
    return [job, *chats(texts, chance, rate=rate, seconds=seconds)]


MIXED = Workload(
    name="mixed",
    about="chat mixed with map-reduce jobs on the same engine",
    cases=(
        Case("1 chat/s, 2 jobs of 16 x 512", _mix(rate=1.0, seconds=15, jobs=2, chunks=16, chunk=512, output=50)),
        Case("2 chats/s, 2 jobs of 16 x 512", _mix(rate=2.0, seconds=15, jobs=2, chunks=16, chunk=512, output=50)),
        Case("1 chat/s, a job of 96 drafts", partial(_full, rate=1.0, seconds=12, drafts=96)),
    ),
    quick=(Case("4 chats/s, 1 job", _mix(rate=4.0, seconds=1.0, jobs=1, chunks=3, chunk=128, output=8)),),
    headline=("chat p50", "job mean"),
)
