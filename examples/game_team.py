"""A team of agents writes a game: an architect, several coders, a reviewer, and a round of revisions.

The coders of one stage share the beginning of their prompts, the plan included, and run side by side. Later rounds
read the results of earlier ones, so the graph becomes deep and wide, yet the program declares it in plain loops.
"""

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY

FILES = ("board.py", "player.py", "main.py")


@P.SemanticFunction(max_tokens=80)
def plan_game(game: P.SemanticVariable, files: P.SemanticVariable):
    """You are a software architect. Plan {{input:game}} in Python, made of the files {{input:files}}.
    Say in one sentence for each file what it does.
    {{output:plan}}
    """


@P.SemanticFunction(max_tokens=80)
def write_file(plan: P.SemanticVariable, file: P.SemanticVariable):
    """You are a programmer in a team that writes a game to this plan:

    {{input:plan}}

    Write the file {{input:file}}. Answer with one block of code.
    {{output:code}}
    """


@P.SemanticFunction(max_tokens=60)
def review_code(plan: P.SemanticVariable, code: P.SemanticVariable):
    """You review the code of a game against its plan.
    Plan: {{input:plan}}

    {{input:code}}

    Name the two most important faults.
    {{output:comments}}
    """


@P.SemanticFunction(max_tokens=80)
def revise_file(comments: P.SemanticVariable, file: P.SemanticVariable, code: P.SemanticVariable):
    """You revise the code of a game after a review.
    Comments of the reviewer: {{input:comments}}

    {{input:file}} as it is now:
    {{input:code}}

    Write the better version of {{input:file}}. Answer with one block of code.
    {{output:revised}}
    """


def develop(game: str, rounds: int) -> dict[str, str]:
    """The files of the game after this many rounds of review and revision."""
    plan = plan_game(game, ", ".join(FILES))
    codes = [write_file(plan, file) for file in FILES]
    for _ in range(rounds):
        comments = review_code(plan, codes)
        codes = [revise_file(comments, file, code) for file, code in zip(FILES, codes, strict=True)]
    return dict(zip(FILES, P.gather(*codes, perf=LATENCY), strict=True))


def develop_game() -> dict[str, str]:
    return develop("a game of noughts and crosses for two players", rounds=1)


if __name__ == "__main__":
    for file, code in develop_game().items():
        print(f"# {file}\n{code}\n")
