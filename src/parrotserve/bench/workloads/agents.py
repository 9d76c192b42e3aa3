"""Multi-agent programming, after MetaGPT: an architect, a coder for every file, rounds of review and revision (8.4).

Reviewers and coders of one round read the design and the current versions of all files: a long prefix that is generated
at run time.
"""

import random
from collections.abc import Callable, Sequence

from parrotserve.bench.texts import Texts
from parrotserve.bench.workload import Application, Call, Case, Ref, Workload

_ARCHITECT = "You are a software architect. Design the files of this program, and what each offers the others."
_CODER = "You are a programmer. Write one file of a program, after its design."
_REVIEWER = "You are a reviewer. Comment on one file of a program, with all its files before you."
_REVISER = "You are a programmer. Revise one file of a program after a review, with all its files before you."


def programming(
    texts: Texts, *, files: int, rounds: int, task: int, design: int, code: int, comment: int
) -> Application:
    """One program of `files` files; the lengths of its task and of the outputs are in tokens."""
    described = texts.take(task)
    architect = Call("design", (_ARCHITECT, "\nTask: ", described, "\nDesign:"), design)
    names = [f"file{number + 1}" for number in range(files)]
    written = [Call(name, (_CODER, "\nDesign: ", Ref("design"), f"\nWrite {name}.\nCode:"), code) for name in names]
    calls = [architect, *written]
    for turn in range(1, rounds + 1):
        before = _all_files(names, [call.name for call in written])
        reviews = [
            Call(f"review{turn} of {name}", (_REVIEWER, *before, f"\nComment on {name}.\nReview:"), comment)
            for name in names
        ]
        written = [
            Call(
                f"{name} after round {turn}",
                (_REVISER, *before, f"\nReview of {name}: ", Ref(review.name), f"\nRewrite {name}.\nCode:"),
                code,
            )
            for name, review in zip(names, reviews, strict=True)
        ]
        calls += [*reviews, *written]
    return Application(kind="program", calls=tuple(calls), results=tuple(call.name for call in written))


def _all_files(names: Sequence[str], calls: Sequence[str]) -> list[str | Ref]:
    parts: list[str | Ref] = ["\nDesign: ", Ref("design")]
    for name, call in zip(names, calls, strict=True):
        parts += [f"\n{name}: ", Ref(call)]
    return parts


def _of(files: int, rounds: int) -> Callable[[Texts, random.Random], list[Application]]:
    return lambda texts, chance: [
        programming(texts, files=files, rounds=rounds, task=120, design=64, code=64, comment=32)
    ]


AGENTS = Workload(
    name="agents",
    about="multi-agent programming: an architect, coders, and rounds of review and revision",
    cases=(
        Case("4 files, 2 rounds", _of(4, 2)),
        Case("8 files, 2 rounds", _of(8, 2)),
        Case("16 files, 2 rounds", _of(16, 2)),
    ),
    quick=(
        Case(
            "2 files, 1 round",
            lambda texts, chance: [programming(texts, files=2, rounds=1, task=120, design=12, code=12, comment=8)],
        ),
    ),
    headline=("program mean",),
)
