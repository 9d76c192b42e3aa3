"""Question answering with a native function: look a passage up, then answer from it.

A native function is an ordinary Python function of strings. It runs in this process, once its input is there; the
service runs the prompts before and after it as parts of one graph. The passages are Python's own documentation.
"""

import inspect
import re

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY


@P.SemanticFunction(max_tokens=12)
def pick_keywords(question: P.SemanticVariable):
    """List three search keywords for this question, separated by commas.
    Question: {{input:question}}
    {{output:keywords}}
    """


@P.NativeFunction
def look_up(question: str, keywords: str) -> str:
    """The documentation of the string method that shares most words with the question and the keywords."""
    wanted = set(re.findall(r"[a-z]+", f"{question} {keywords}".lower()))
    passages = {name: inspect.getdoc(getattr(str, name)) or "" for name in dir(str) if not name.startswith("_")}

    def overlap(name: str) -> int:
        words = set(re.findall(r"[a-z]+", passages[name].lower()))
        return 3 * (name in wanted) + len(words & wanted)

    best = max(passages, key=overlap)
    return f"str.{best}: {passages[best]}"


@P.SemanticFunction(max_tokens=60)
def answer_from(question: P.SemanticVariable, passage: P.SemanticVariable):
    """Answer the question in one sentence, using only the documentation.

    Documentation of {{input:passage | truncate(200)}}

    Question: {{input:question}}
    {{output:answer}}
    """


def answer_question() -> str:
    question = P.SemanticVariable("How do I remove whitespace from both ends of a string with strip?")
    passage = look_up(question, pick_keywords(question))
    return answer_from(question, passage).get(perf=LATENCY)


if __name__ == "__main__":
    print(answer_question())
