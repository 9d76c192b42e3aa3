"""An agent that uses tools: each turn reads the next part of its material and the result of a tool of the client."""

import random
from collections.abc import Callable

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Ref, Tool, Workload

_INSTRUCTION = "Answer with the help of tools, step by step."


def agent(texts: Texts, *, turns: int, material: int, found: int, output: int, seconds: float) -> Application:
    """An agent of `turns` turns, each after a tool that takes `seconds`; lengths are in tokens."""
    calls: list[Call | Tool] = []
    for turn in range(1, turns + 1):
        so_far = (f"step{turn - 1}",) if calls else ()
        calls.append(Tool(f"tool{turn}", so_far, texts.take(found), seconds))
        parts = (
            _INSTRUCTION,
            "\nMaterial: ",
            texts.take(material),
            "\nA tool found: ",
            Ref(f"tool{turn}"),
            "\nNext:",
        )
        calls.append(Call(f"step{turn}", parts, output))
    return Application(kind="agent", calls=tuple(calls), results=(f"step{turns}",))


def _of(seconds: float) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: [agent(texts, turns=6, material=512, found=48, output=32, seconds=seconds)]


TOOLS = Workload(
    name="tools",
    about="an agent that uses tools: every turn reads more material, and what a tool of the client found",
    cases=(
        Case("6 turns of 512, tools of 250 ms", _of(0.25)),
        Case("6 turns of 512, tools of 500 ms", _of(0.5)),
    ),
    quick=(
        Case(
            "2 turns",
            lambda texts, chance: [agent(texts, turns=2, material=128, found=16, output=8, seconds=0.05)],
        ),
    ),
    headline=("agent mean",),
)
