"""What tests of bad input say and start."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import Parrot as P

PARROT = (sys.executable, "-m", "parrotserve.cli.main")


@P.SemanticFunction(max_tokens=8)
def Echo(text: Any):
    """Say: {{input:text}} {{output:said}}"""


@contextmanager
def serving(*command: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A service in a process of its own: its URL and the process, ended at the end."""
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            banner = next((line for line in process.stderr if "Parrot serves" in line), "it ended")
            yield banner[banner.index("http://") :].split()[0], process
        finally:
            process.terminate()


@contextmanager
def unharmed() -> Iterator[None]:
    """A session with a request that waits while something happens within; it must not notice."""
    with P.Session():
        later = P.SemanticVariable(name="later")
        waiting, said = Echo(later), Echo("something").get()
        yield
        later.set("something")
        assert waiting.get(timeout=30) == Echo("something").get(timeout=30) == said


def declared(docstring: str, **options: Any) -> P.SemanticFunction:
    def function(text: str) -> None: ...

    function.__doc__ = docstring
    return P.SemanticFunction(**options)(function)
