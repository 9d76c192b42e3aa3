"""`parrot run`: call a function of a program and show every output live."""

import inspect
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parrotserve.cli.blame import users_errors

if TYPE_CHECKING:
    from parrotserve.cli.watch import Figures, WatchedTransport

Target = Annotated[
    str,
    typer.Argument(metavar="FILE[:FUNCTION]", show_default=False, help="A Python file, and the function to call."),
]
Url = Annotated[
    str | None, typer.Option(help="Run on the service at this URL.", show_default="PARROT_URL, else embedded")
]
Model = Annotated[
    str | None, typer.Option(help="Name or path of the embedded service's model.", show_default="smollm2-135m")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what the function returned.")]


Explain = Annotated[
    bool, typer.Option("--explain", help="Explain afterwards why each request ran where and when it did.")
]


def run(target: Target, url: Url = None, model: Model = None, quiet: Quiet = False, explain: Explain = False) -> None:
    """Run a program: call a function of FILE and show every output while the model writes it.

    Without FUNCTION, Parrot calls the only function that needs no arguments. The file is imported, not run as a
    script: code under `if __name__ == "__main__"` does not run.

    \b
    Examples:
      parrot run examples/write_snake_game.py
      parrot run examples/game_team.py:develop_game --url http://127.0.0.1:8000
      parrot run --quiet examples/hello.py > greeting.txt
      parrot run --explain examples/game_team.py
    """
    from parrotserve.cli.console import complain, harmless, standard_output
    from parrotserve.cli.program import split_target
    from parrotserve.cli.screens import SilentScreen, screen_on
    from parrotserve.cli.service import service
    from parrotserve.cli.watch import WatchedTransport
    from parrotserve.sdk.connection import use

    if model and (url or os.environ.get("PARROT_URL")):
        raise typer.BadParameter("--model is for the embedded service; the service at a URL has its own.")
    path, name = split_target(target)
    screen = SilentScreen() if quiet else screen_on(standard_output())
    transport = WatchedTransport(service(url, model), screen, explain=explain)
    try:
        with use(transport, again=partial(service, url, model)), screen:
            try:
                outcome = _outcome(path, name, transport)
            finally:
                transport.finish()
    except KeyboardInterrupt as interrupt:
        if screen.lost is not None:
            raise screen.lost from interrupt
        raise
    _tell(outcome, transport, quiet=quiet)
    if lost := transport.lost:
        complain(lost)
    for told in outcome.explanations:
        standard_output().print(harmless(f"\n{told}"), end="")
    if outcome.missing:
        names = ", ".join(map(repr, outcome.missing))
        complain(
            f"Nobody has set {names}, so outputs that depend on it were not produced. Call set() on it, or remove it."
        )
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Outcome:
    function: str
    result: Any
    figures: "Figures"
    seconds: float
    explanations: list[str]
    missing: list[str]
    """Names of variables that nobody has set, although something depends on them."""


def _outcome(path: Path, name: str | None, transport: "WatchedTransport") -> _Outcome:
    """Load the program, choose the function and call it; then wait for outputs that the program has not asked for."""
    import asyncio

    from parrotserve.cli.program import choose, load
    from parrotserve.cli.result import resolved
    from parrotserve.sdk.loop import background
    from parrotserve.sdk.plain import is_pending
    from parrotserve.sdk.session import current_session

    with users_errors():
        module = load(path)
        function = choose(module, path, name, ran=bool(transport.variables))
        began = time.monotonic()
        result = function()
        if is_pending(result):
            result = asyncio.run(_awaited(result))
        elif inspect.isgenerator(result):
            result = list(result)
        elif inspect.isasyncgen(result):
            result = asyncio.run(_collected(result))
        result = resolved(result)
    current_session().sync()
    missing = background().call(transport.drained(_others_run))
    seconds = time.monotonic() - began
    figures = background().call(transport.figures())
    explanations = background().call(transport.explanations()) if transport.explain else []
    return _Outcome(function.__name__, result, figures, seconds, explanations, missing)


def _others_run() -> bool:
    """Whether threads of the program are still running, which might set a variable."""
    return any(
        thread is not threading.main_thread()
        and not thread.name.startswith("parrot-")
        and not type(thread).__module__.startswith("rich.")
        for thread in threading.enumerate()
    )


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


async def _collected(results: AsyncGenerator[Any, Any]) -> list[Any]:
    return [each async for each in results]


def _tell(outcome: _Outcome, transport: "WatchedTransport", *, quiet: bool) -> None:
    from parrotserve.cli.console import harmless, standard_output
    from parrotserve.cli.result import figures_line, raw, told

    console = standard_output()
    with users_errors():  # converting the result to text may run the user's code
        result = raw(outcome.result) if quiet else told(outcome.result, tuple(transport.variables.values()))
    if quiet:
        console.out(result)
        return
    console.print(harmless(f"{outcome.function}() returned{result}"), style="bold")
    console.print(figures_line(outcome.figures, outcome.seconds), style="dim")
