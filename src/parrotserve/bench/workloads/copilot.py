"""Copilot: one application with one long system prompt, and many users who each ask something (8.3).

The paper's prompts have 5,300 to 7,400 tokens, of which about 5,100 are the same for all; outputs have 180 to 800.
"""

import random
from collections.abc import Callable

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Workload


def copilot(
    texts: Texts, chance: random.Random, *, users: int, shared: int, own: tuple[int, int], output: tuple[int, int]
) -> list[Application]:
    """All users at once, with questions (`own`) and answers (`output`) of lengths within these bounds, in tokens."""
    system = texts.take(shared)
    found: list[Application] = []
    for _ in range(users):
        parts = (system, "\nUser: ", texts.take(chance.randint(*own)), "\nCopilot:")
        call = Call("answer", parts, chance.randint(*output))
        found.append(Application(kind="user", calls=(call,), results=("answer",)))
    return found


def _users(
    users: int, shared: int, own: tuple[int, int], output: tuple[int, int]
) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: copilot(texts, chance, users=users, shared=shared, own=own, output=output)


COPILOT = Workload(
    name="copilot",
    about="copilot: one long system prompt, many users at once",
    cases=(
        Case("32 users, 2048 shared", _users(32, 2048, (32, 128), (48, 160))),
        Case("8 users, 2048 shared", _users(8, 2048, (32, 128), (48, 160))),
        Case("64 users, 2048 shared", _users(64, 2048, (32, 128), (48, 160))),
        Case("64 users, 5100 shared", _users(64, 5100, (32, 128), (96, 256))),
        Case("64 users, 7000 shared", _users(64, 7000, (32, 128), (96, 256))),
        Case("16 users, 5100 shared, as published", _users(16, 5100, (200, 2300), (180, 800))),
    ),
    quick=(Case("4 users, 256 shared", _users(4, 256, (8, 16), (6, 10))),),
    headline=("user mean", "all done"),
)
