"""A joke and its explanation: two outputs of one prompt.

Both are written by one request, one after the other: the model reads the prompt and the joke once. A call with
several outputs returns a named tuple of variables.
"""

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY


@P.SemanticFunction(outputs={"joke": P.Sampling(max_tokens=60), "explanation": P.Sampling(max_tokens=60)})
def tell_joke(topic: P.SemanticVariable):
    """{{role:user}}Tell me a short joke about {{input:topic}}.
    {{role:assistant}}{{output:joke}}
    {{role:user}}Explain in one sentence why that is funny.
    {{role:assistant}}{{output:explanation}}
    """


def joke_with_explanation() -> tuple[str, str]:
    told = tell_joke("a parrot who works as a programmer")
    return told.joke.get(perf=LATENCY), told.explanation.get(perf=LATENCY)


if __name__ == "__main__":
    print(*joke_with_explanation(), sep="\n\n")
