"""A playwright's workflow: synopsis, review, social post. A chain in which each step reads the one before.

Only the last result is asked for in the end, yet every step is shown by `parrot run`, because each is a variable
of the same dataflow graph.
"""

import Parrot as P
from Parrot.PerformanceCriteria import LATENCY


@P.SemanticFunction(max_tokens=90)
def write_synopsis(title: P.SemanticVariable, era: P.SemanticVariable):
    """You are a playwright. Write a synopsis of four sentences for a play.
    Title: {{input:title}}
    Era: {{input:era}}
    {{output:synopsis}}
    """


@P.SemanticFunction(max_tokens=80)
def write_review(synopsis: P.SemanticVariable):
    """You are a theatre critic. Write a review of three sentences of the play with this synopsis:

    {{input:synopsis}}

    {{output:review}}
    """


@P.SemanticFunction(max_tokens=60)
def write_post(date: P.SemanticVariable, synopsis: P.SemanticVariable, review: P.SemanticVariable):
    """You write posts for a theatre. Write one post of two sentences that invites people to the play.
    First night: {{input:date}}
    Synopsis: {{input:synopsis}}
    What the critic said: {{input:review}}

    {{output:post}}
    """


def announce_play() -> str:
    synopsis = write_synopsis("The Last Lighthouse Keeper", "the winter of 1911")
    review = write_review(synopsis)
    return write_post("the first of March", synopsis, review).get(perf=LATENCY)


if __name__ == "__main__":
    print(announce_play())
