"""Question answering with a native function: look a passage up, then answer from it.

A native function is an ordinary Python function of strings. It runs in this process, once its input is there; the
service runs the prompts before and after it as parts of one graph. The passages are Python's own documentation.
"""

import inspect
import re
from collections import Counter

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY


@P.SemanticFunction(max_tokens=12)
def pick_keywords(question: P.SemanticVariable):
    """List three search keywords for this question, separated by commas.
    Question: {{input:question}}
    {{output:keywords}}
    """


PASSAGES = [f"str.{name}: {inspect.getdoc(getattr(str, name))}" for name in dir(str) if not name.startswith("_")]


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@P.NativeFunction
def look_up(question: str, keywords: str) -> str:
    """The documentation of a string method that has most in common with both texts, for its length."""
    wanted = words_of(f"{question} {keywords}")
    spread = Counter(word for passage in PASSAGES for word in words_of(passage))

    def score(passage: str) -> float:
        words = words_of(passage)
        return sum(1 / spread[word] for word in words & wanted) / len(words) ** 0.5

    return max(PASSAGES, key=score)


@P.SemanticFunction(max_tokens=60)
def answer_from(question: P.SemanticVariable, passage: P.SemanticVariable):
    """Answer the question in one sentence, using only the documentation.

    Documentation: {{input:passage | truncate(200)}}

    Question: {{input:question}}
    {{output:answer}}
    """


def answer_question() -> str:
    question = P.SemanticVariable("How do I remove whitespace from both ends of a string with strip?")
    passage = look_up(question, pick_keywords(question))
    return answer_from(question, passage).get(perf=LATENCY)


if __name__ == "__main__":
    print(answer_question())
