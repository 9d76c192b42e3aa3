"""Chain summary: a long document is summarised part by part, each step refining the summary so far (8.2)."""

import random
from collections.abc import Callable, Sequence

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Ref, Workload
from parrotserve.bench.workloads.chat import chats

_INSTRUCTION = "Refine the summary of a document with its next part. Write the whole summary anew."


def chain(texts: Texts, *, steps: int, chunk: int, output: int, arrival: float = 0.0) -> Application:
    """One document of `steps` parts of `chunk` tokens."""
    calls: list[Call] = []
    for step in range(steps):
        so_far: tuple[str | Ref, ...] = ("\nSummary so far: ", Ref(calls[-1].name)) if calls else ()
        parts = (_INSTRUCTION, *so_far, "\nNext part: ", texts.take(chunk), "\nSummary:")
        calls.append(Call(f"step{step + 1}", parts, output))
    return Application(kind="chain", calls=tuple(calls), results=(calls[-1].name,), arrival=arrival)


def _alone(steps: int, chunk: int, output: int) -> Callable[[Texts, random.Random], Sequence[Application]]:
    return lambda texts, chance: [chain(texts, steps=steps, chunk=chunk, output=output)]


def _together(chains: int, steps: int, chunk: int, output: int) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: [chain(texts, steps=steps, chunk=chunk, output=output) for _ in range(chains)]


def _beside(rate: float, steps: int, chunk: int, output: int) -> Callable[[Texts, random.Random], list[Application]]:
    """A chain that arrives when chats of other people have been arriving for a while; these continue to arrive."""

    def build(texts: Texts, chance: random.Random) -> list[Application]:
        others = chats(texts, chance, rate=rate, seconds=4.0 * steps, kind="background")
        return [chain(texts, steps=steps, chunk=chunk, output=output, arrival=2.0), *others]

    return build


CHAIN = Workload(
    name="chain",
    about="chain summary: each step refines the last one's summary with the next part of a document",
    cases=(
        Case("8 x 512, 50 out", _alone(8, 512, 50)),
        Case("8 x 512, 25 out", _alone(8, 512, 25)),
        Case("8 x 512, 100 out", _alone(8, 512, 100)),
        Case("4 x 1024, 50 out", _alone(4, 1024, 50)),
        *(
            Case(f"8 x 512, 50 out, beside {rate:g} chats/s", _beside(rate, 8, 512, 50))
            for rate in (1.0, 2.0, 3.0, 5.0)
        ),
        Case("5 chains", _together(5, 8, 512, 50)),
        Case("10 chains", _together(10, 8, 512, 50)),
        Case("25 chains", _together(25, 8, 512, 50)),
    ),
    quick=(Case("3 x 128, 8 out", _alone(3, 128, 8)), Case("2 chains", _together(2, 2, 128, 8))),
    headline=("chain mean",),
    measured=("chain",),
)
