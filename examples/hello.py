"""Hello: one semantic function with one input, called once.

The call returns at once, with a variable that stands for the answer; `.get()` waits for its text.
"""

import Parrot as P


@P.SemanticFunction(max_tokens=40)
def greet(name: P.SemanticVariable):
    """Write one warm sentence that greets {{input:name}} on their first day at work.
    {{output:greeting}}
    """


def hello() -> str:
    return greet("Ada").get()


if __name__ == "__main__":
    print(hello())
