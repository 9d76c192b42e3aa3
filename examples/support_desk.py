"""A tree that branches on values: the program reads what the model decided and goes on accordingly.

Control flow is plain Python: `.get()` gives a text, `if` looks at it, and the graph grows by the branch taken. All
messages are sorted first, side by side, because their calls are declared before anything is waited for.
"""

import json

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY

MESSAGES = (
    "My umbrella arrived with a broken handle. I want my money back.",
    "Do your umbrellas also come in green?",
)


@P.SemanticFunction(max_tokens=16, schema={"enum": ["complaint", "question", "praise"]})
def sort_message(message: P.SemanticVariable):
    """Is this message of a customer a complaint, a question or praise?
    Message: {{input:message}}
    {{output:kind}}
    """


@P.SemanticFunction(max_tokens=16, schema={"enum": ["refund", "replacement"]})
def choose_remedy(message: P.SemanticVariable):
    """Does this customer want a refund or a replacement?
    Message: {{input:message}}
    {{output:remedy}}
    """


@P.SemanticFunction(max_tokens=60)
def apologise(message: P.SemanticVariable, remedy: P.SemanticVariable):
    """Write two sentences that apologise to this customer and promise a {{input:remedy}}.
    Message: {{input:message}}
    {{output:reply}}
    """


@P.SemanticFunction(max_tokens=60)
def reply_kindly(message: P.SemanticVariable, kind: P.SemanticVariable):
    """You work for a shop that sells umbrellas. Reply in two sentences to this {{input:kind}}.
    Message: {{input:message}}
    {{output:reply}}
    """


def branch(message: str, kind: str) -> P.SemanticVariable:
    """The reply to a message of this kind; a complaint needs one more decision."""
    if kind == "complaint":
        remedy = json.loads(choose_remedy(message).get(perf=LATENCY))
        return apologise(message, remedy)
    return reply_kindly(message, kind)


def answer_messages() -> list[str]:
    kinds = [(message, sort_message(message)) for message in MESSAGES]
    replies = [branch(message, json.loads(kind.get(perf=LATENCY))) for message, kind in kinds]
    return P.gather(*replies, perf=LATENCY)


if __name__ == "__main__":
    print(*answer_messages(), sep="\n\n")
